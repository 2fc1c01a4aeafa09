//! `/v1/mongo/:workspaceId/collections/:col/documents/:id`
//!
//! A document's validator is a digest of all it holds, so a change of any field changes
//! it, and the answer to every read and change of one carries it.

use std::sync::Arc;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, StatusCode};
use mongodb::{ClientSession, Collection};
use postern_common::etag::{self, IfMatch};
use postern_common::query::Query;
use postern_common::{Call, Failure, Reply};

use crate::arguments::form;
use crate::body;
use crate::failure::failure;
use crate::family::{Mongo, Place};
use crate::read::no_document;
use crate::render::{self, Form};
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

    /// The document as it stands in the transaction, if its validator is one that the
    /// client named.
    async fn current(
        &self,
        session: &mut ClientSession,
        if_match: &IfMatch,
    ) -> Result<Option<RawDocumentBuf>, Failure> {
        let found = self
            .collection
            .clone_with_type::<RawDocumentBuf>()
            .find_one(self.predicate())
            .session(session)
            .await
            .map_err(failure)?;
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

fn only_form(mut query: Query) -> Result<Form, Failure> {
    let form = form(&mut query);
    query.finish()?;
    Ok(form)
}

/// `GET`
pub(crate) async fn get(app: Arc<Mongo>, call: Call) -> Result<Reply, Failure> {
    let target = Target::of(&app, &call)?;
    let form = only_form(call.query()?)?;
    let found = target
        .collection
        .clone_with_type::<RawDocumentBuf>()
        .find_one(target.predicate())
        .max_time(app.bounds.max_time)
        .await
        .map_err(failure)?;
    match found {
        Some(document) => answer(StatusCode::OK, &document, form),
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
    let mut whole = doc! { "_id": target.id.clone() };
    whole.extend(fields);
    let whole = Arc::new(target.place.wall.mark(whole));
    if upsert {
        crate::collections::make_missing(&app, &target.place, target.collection.name()).await?;
    }
    let (place, if_match) = (target.place.clone(), call.if_match());
    app.mutate(&call, &place, &sent, move |session| {
        let (target, whole, if_match) = (target.clone(), Arc::clone(&whole), if_match.clone());
        Box::pin(async move {
            let found = target.current(session, &if_match).await?;
            let status = match found {
                Some(_) => {
                    let replace = target.collection.replace_one(target.predicate(), &*whole);
                    replace.session(session).await.map_err(failure)?;
                    StatusCode::OK
                }
                None if upsert && !if_match.is_present() => {
                    let insert = target.collection.insert_one(&*whole);
                    insert.session(session).await.map_err(failure)?;
                    StatusCode::CREATED
                }
                None => return Err(target.missing()),
            };
            let raw = RawDocumentBuf::from_document(&whole).map_err(Failure::internal)?;
            answer(status, &raw, form)
        })
    })
    .await
}

/// `PATCH`: operators, or fields that are set; as a merge patch (RFC 7396) `null` removes one.
pub(crate) async fn update(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let target = Target::of(&app, &call)?;
    let form = only_form(call.query()?)?;
    let content_type = call
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let merges = content_type.is_some_and(|text| {
        text.trim_start()
            .starts_with("application/merge-patch+json")
    });
    let (sent, fields) = body::object(&mut call).await?;
    let fields = if merges { merge(fields)? } else { fields };
    let update = Update::read(&fields, &mut Budget::default(), &At::root("body"))?.to_bson();
    let (place, if_match) = (target.place.clone(), call.if_match());
    app.mutate(&call, &place, &sent, move |session| {
        let (target, update, if_match) = (target.clone(), update.clone(), if_match.clone());
        Box::pin(async move {
            let found = target.current(session, &if_match).await?;
            found.ok_or_else(|| target.missing())?;
            let change = target.collection.update_one(target.predicate(), update);
            change.session(&mut *session).await.map_err(failure)?;
            let changed = target.current(session, &IfMatch::default()).await?;
            answer(
                StatusCode::OK,
                &changed.ok_or_else(|| target.missing())?,
                form,
            )
        })
    })
    .await
}

/// A merge patch as operators: members of nested objects are merged, `null` removes.
fn merge(patch: Document) -> Result<Document, Failure> {
    fn walk(
        prefix: &str,
        patch: Document,
        set: &mut Document,
        unset: &mut Document,
    ) -> Result<(), Failure> {
        for (name, value) in patch {
            if name.starts_with('$') || name.contains('.') || name.is_empty() {
                let at = format!("{prefix}{name}");
                return Err(Failure::invalid_field(
                    &at,
                    "is no field that a merge patch can name",
                ));
            }
            let path = format!("{prefix}{name}");
            match value {
                Bson::Null => drop(unset.insert(path, "")),
                Bson::Document(nested) if !nested.is_empty() => {
                    walk(&format!("{path}."), nested, set, unset)?
                }
                value => drop(set.insert(path, value)),
            }
        }
        Ok(())
    }
    let (mut set, mut unset) = (Document::new(), Document::new());
    walk("", patch, &mut set, &mut unset)?;
    let mut operators = Document::new();
    if !set.is_empty() {
        operators.insert("$set", set);
    }
    if !unset.is_empty() {
        operators.insert("$unset", unset);
    }
    Ok(operators)
}

/// `DELETE`
pub(crate) async fn delete(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let target = Target::of(&app, &call)?;
    call.query()?.finish()?;
    let sent = call.body().await?;
    let (place, if_match) = (target.place.clone(), call.if_match());
    app.mutate(&call, &place, &sent, move |session| {
        let (target, if_match) = (target.clone(), if_match.clone());
        Box::pin(async move {
            let found = target.current(session, &if_match).await?;
            found.ok_or_else(|| target.missing())?;
            let delete = target.collection.delete_one(target.predicate());
            delete.session(session).await.map_err(failure)?;
            Reply::json(StatusCode::OK, &serde_json::json!({ "deleted": 1 }))
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
    fn a_merge_patch_is_operators() {
        let patch = doc! {"a": 1, "b": {"c": Bson::Null, "d": {"e": 2}}, "f": Bson::Null, "g": [1]};
        assert_eq!(
            merge(patch).unwrap(),
            doc! {"$set": {"a": 1, "b.d.e": 2, "g": [1]}, "$unset": {"b.c": "", "f": ""}}
        );
        assert!(merge(doc! {"$set": {"a": 1}}).is_err());
        assert!(merge(doc! {"a.b": 1}).is_err());
    }

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
