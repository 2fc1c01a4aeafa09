//! `/v1/mongo/:workspaceId/collections/:col/documents/:id`
//!
//! A document's validator is a digest of all it holds, so a change of any field changes
//! it, and the answer to every read and change of one carries it.

use std::sync::Arc;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use http::header::ETAG;
use http::{HeaderValue, StatusCode};
use mongodb::options::ReturnDocument;
use mongodb::{ClientSession, Collection};
use postern_common::etag::{self, IfMatch};
use postern_common::query::Query;
use postern_common::{Call, Failure, Reply};

use crate::arguments::form;
use crate::body;
use crate::failure::failure;
use crate::family::{Mongo, Place};
use crate::merge;
use crate::read::no_document;
use crate::render::{self, Form};
use crate::retry;
use crate::store::Needs;
use crate::wall::{At, Budget, Update, document, id};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The document that a path names.
#[derive(Clone)]
struct Target {
    collection: Collection<Document>,
    place: Place,
    id: Bson,
    /// As it stands in the path.
    text: String,
}

impl Target {
    fn of(app: &Mongo, call: &Call) -> Result<Self, Failure> {
        let place = app.place(call)?;
        let text = call.param("id").to_owned();
        Ok(Self {
            collection: place.collection(call)?,
            id: id(&text),
            place,
            text,
        })
    }

    /// This document, if it is the workspace's.
    fn predicate(&self) -> Document {
        let mut predicate = doc! { "_id": self.id.clone() };
        predicate.extend(self.place.wall.predicate());
        predicate
    }

    fn missing(&self) -> Failure {
        no_document(&self.text)
    }

    /// Looks at the document only if the client named a validator.
    async fn check(&self, session: &mut ClientSession, if_match: &IfMatch) -> Result<(), Failure> {
        if if_match.is_present() {
            let found = self.current(session, if_match).await?;
            found.ok_or_else(|| self.missing())?;
        }
        Ok(())
    }

    /// The document as it stands in the transaction, if its validator is one that the
    /// client named.
    async fn current(
        &self,
        session: &mut ClientSession,
        if_match: &IfMatch,
    ) -> Result<Option<RawDocumentBuf>, Failure> {
        let collection = self.collection.clone_with_type::<RawDocumentBuf>();
        let find = collection.find_one(self.predicate()).session(session);
        let found = self.place.timed(find).await?;
        if let Some(found) = &found {
            if_match.check_tag(&validator(found)?)?;
        }
        Ok(found)
    }
}

/// Over the canonical form: 1 and 1.0 are different.
fn validator(document: &RawDocumentBuf) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    render::document(document, Form::Canonical, &mut bytes)?;
    Ok(etag::of_bytes(&bytes))
}

fn answer(status: StatusCode, document: &RawDocumentBuf, form: Form) -> Result<Reply, Failure> {
    let mut body = Vec::new();
    render::document(document, form, &mut body)?;
    Ok(Reply::bytes(status, JSON, body).with_header(ETAG, &validator(document)?))
}

/// What a change answers: the document as it now is. One that is larger than an answer may
/// be is changed all the same, and told by its validator alone.
fn changed(
    status: StatusCode,
    document: &RawDocumentBuf,
    form: Form,
    most: usize,
) -> Result<Reply, Failure> {
    // As BSON a document is about as long as it is as JSON: one that is far above the bound is
    // not written out first.
    if document.as_bytes().len() <= most.saturating_mul(2) {
        let whole = answer(status, document, form)?;
        if whole.body.len() <= most {
            return Ok(whole);
        }
    }
    let status = match status {
        StatusCode::OK => StatusCode::NO_CONTENT,
        made => made,
    };
    Ok(Reply::empty(status).with_header(ETAG, &validator(document)?))
}

fn only_form(mut query: Query) -> Result<Form, Failure> {
    let form = form(&mut query);
    query.finish()?;
    Ok(form)
}

/// `GET`
pub(crate) async fn get(app: Arc<Mongo>, call: Call) -> Result<Reply, Failure> {
    let target = Target::of(&app, &call)?;
    let form = only_form(call.query()?)?;
    let collection = target.collection.clone_with_type::<RawDocumentBuf>();
    let found = retry::read(|| async {
        let find = collection.find_one(target.predicate());
        find.max_time(app.bounds.max_time).await.map_err(failure)
    });
    match found.await? {
        Some(document) => {
            let reply = answer(StatusCode::OK, &document, form)?;
            let most = app.bounds.max_bytes;
            if reply.body.len() > most {
                let message = format!(
                    "is a document of more than {most} bytes: list it with filter._id and a projection"
                );
                return Err(Failure::invalid_field("id", message));
            }
            Ok(reply)
        }
        None => {
            target.place.need(target.collection.name()).await?;
            Err(target.missing())
        }
    }
}

/// `PUT`: the whole document; `?upsert=true` makes it where it is not there.
pub(crate) async fn replace(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let target = Target::of(&app, &call)?;
    let mut query = call.query()?;
    let upsert = query.optional("upsert", |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    });
    let (upsert, form) = (upsert.unwrap_or(false), only_form(query)?);
    let (sent, fields) = body::object(&mut call).await?;
    let at = At::root("body");
    document(&fields, &at)?;
    if fields.get("_id").is_some_and(|named| *named != target.id) {
        return Err(at
            .field("_id")
            .refused("must be the one in the path, or left out")
            .into());
    }
    let mut fields = fields;
    fields.remove("_id");
    let whole = Arc::new(target.place.wall.mark(fields));
    let (place, if_match) = (target.place.clone(), call.if_match());
    let most = app.bounds.max_bytes;
    // A document that is not there has no validator that could match.
    let upsert = upsert && !if_match.is_present();
    let needs = match upsert {
        true => Needs::Room(target.collection.name().to_owned()),
        false => Needs::Nothing,
    };
    app.mutate(&call, &place, &sent, needs, None, move |session| {
        let (target, whole, if_match) = (target.clone(), Arc::clone(&whole), if_match.clone());
        Box::pin(async move {
            target.check(session, &if_match).await?;
            // The server's own form of it: its id may be of another type of number.
            let replace = target
                .collection
                .find_one_and_replace(target.predicate(), &*whole)
                .return_document(ReturnDocument::After);
            let replaced = target.place.timed(replace.session(&mut *session)).await?;
            let (status, document) = match replaced {
                Some(replaced) => (StatusCode::OK, replaced),
                None if upsert => {
                    let mut document = doc! { "_id": target.id.clone() };
                    document.extend((*whole).clone());
                    let insert = target.collection.insert_one(&document);
                    target.place.timed(insert.session(session)).await?;
                    (StatusCode::CREATED, document)
                }
                None => return Err(target.missing()),
            };
            let raw = RawDocumentBuf::from_document(&document).map_err(Failure::internal)?;
            changed(status, &raw, form, most)
        })
    })
    .await
}

/// `PATCH`: operators, or fields that are set; or a merge patch (RFC 7396).
pub(crate) async fn update(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let target = Target::of(&app, &call)?;
    let form = only_form(call.query()?)?;
    let merges = body::media_type(&call).eq_ignore_ascii_case("application/merge-patch+json");
    let (sent, fields) = body::object(&mut call).await?;
    let change = Arc::new(if merges {
        Change::Merge(merge::read(fields, &At::root("body"))?)
    } else {
        let update = Update::read(&fields, &mut Budget::default(), &At::root("body"))?;
        Change::Operators(update)
    });
    let (place, if_match) = (target.place.clone(), call.if_match());
    let most = app.bounds.max_bytes;
    app.mutate(&call, &place, &sent, Needs::Nothing, None, move |session| {
        let (target, change, if_match) = (target.clone(), Arc::clone(&change), if_match.clone());
        Box::pin(async move {
            let update = match &*change {
                Change::Operators(update) => {
                    target.check(session, &if_match).await?;
                    update.to_bson()
                }
                Change::Merge(patch) => {
                    let found = target.current(session, &if_match).await?;
                    let found = found.ok_or_else(|| target.missing())?;
                    match merge::operators(patch, &found)? {
                        nothing if nothing.is_empty() => {
                            return changed(StatusCode::OK, &found, form, most);
                        }
                        operators => operators,
                    }
                }
            };
            let collection = target.collection.clone_with_type::<RawDocumentBuf>();
            let change = collection
                .find_one_and_update(target.predicate(), update)
                .return_document(ReturnDocument::After);
            let found = target.place.timed(change.session(session)).await?;
            let found = found.ok_or_else(|| target.missing())?;
            changed(StatusCode::OK, &found, form, most)
        })
    })
    .await
}

/// What a `PATCH` brings.
enum Change {
    Operators(Update),
    Merge(Document),
}

/// `DELETE`
pub(crate) async fn delete(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let target = Target::of(&app, &call)?;
    call.query()?.finish()?;
    let sent = call.body().await?;
    let (place, if_match) = (target.place.clone(), call.if_match());
    let reply = Reply::json(StatusCode::OK, &serde_json::json!({ "deleted": 1 }))?;
    let (needs, told) = (Needs::Nothing, reply.clone());
    app.mutate(&call, &place, &sent, needs, Some(told), move |session| {
        let (target, if_match, reply) = (target.clone(), if_match.clone(), reply.clone());
        Box::pin(async move {
            target.check(session, &if_match).await?;
            let delete = target.collection.delete_one(target.predicate());
            let deleted = target.place.timed(delete.session(session)).await?;
            match deleted.deleted_count {
                0 => Err(target.missing()),
                _ => Ok(reply),
            }
        })
    })
    .await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::wall::{TENANT, WORKSPACE};

    #[test]
    fn validators_tell_types_apart_and_not_tenants() {
        let tag = |document: Document| {
            validator(&RawDocumentBuf::from_document(&document).unwrap()).unwrap()
        };
        assert_ne!(tag(doc! {"a": 1}), tag(doc! {"a": 1.0}));
        assert_eq!(
            tag(doc! {"a": 1}),
            tag(doc! {"a": 1, TENANT: "t", WORKSPACE: "w"})
        );
    }
}
