//! `/v1/mongo/:workspaceId/collections/:col/documents`

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use bytes::Bytes;
use futures::stream::{self, Stream};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use mongodb::Collection;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use postern_common::page::CursorKeys;
use postern_common::{Call, Failure, Reply};

use crate::arguments::{Arguments, Count};
use crate::failure::failure_in;
use crate::family::{Mongo, Place};
use crate::read::{Asked, Reading, Session};
use crate::render::{self, Form};
use crate::store::Needs;
use crate::wall::{At, Sort, TENANT, document};
use crate::{body, keyset, retry};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Documents in one insert.
const MAX_DOCUMENTS: usize = 10_000;

/// `GET`: a page of the documents that a filter names.
pub(crate) async fn list(app: Arc<Mongo>, call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let collection = place.collection(&call)?;
    let arguments = Arguments::read(call.query()?)?;
    let sort = keyset::total(&arguments.sort);
    let matched = place.wall.and(&arguments.filter);
    // A cursor is good for the same documents in the same order.
    let list = format!(
        "mongo {} {} {matched} {}",
        place.workspace,
        collection.name(),
        sort.to_bson()
    );
    let behind = behind(&app, &arguments, &sort, &list)?;
    let pipeline = page(&arguments, &sort, &matched, behind);
    let asked = Asked {
        limit: usize::try_from(arguments.limit).unwrap_or(usize::MAX),
        form: arguments.form,
        bounds: app.bounds,
        argument: "filter",
    };
    let begin = retry::read(|| async {
        let mut reading = Reading::start(&collection, pipeline.clone(), asked).await?;
        let mut json = b"{\"data\":[".to_vec();
        let ended = reading.write(CHUNK, &mut json).await?;
        Ok((reading, json, ended))
    });
    let how = arguments.count;
    let count = retry::read(|| count(&app, &collection, matched.clone(), how));
    // The count is waited for: what is in its way can still be told.
    let ((reading, mut json, ended), total) = tokio::try_join!(begin, count)?;
    if reading.count == 0 && arguments.skip == 0 && arguments.cursor.is_none() {
        place.need(collection.name()).await?;
    }
    let tail = Tail {
        cursors: app.cursors.clone(),
        limit: arguments.limit,
        skip: arguments.skip,
        total,
        list,
    };
    if ended {
        tail.write(&reading, &mut json)?;
        return Ok(Reply::bytes(StatusCode::OK, JSON, json));
    }
    Ok(Reply::flowing(
        StatusCode::OK,
        JSON,
        json,
        rest(reading, tail),
    ))
}

/// Bytes that are written before they are sent. A list that is not longer is an answer
/// like any other, with its length and an ETag; a longer one flows.
const CHUNK: usize = 64 << 10;

/// The rest of a list, a chunk whenever the client has taken the one before.
fn rest(reading: Reading, tail: Tail) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    stream::try_unfold(Some((reading, tail)), |flow| async {
        let Some((mut reading, tail)) = flow else {
            return Ok(None);
        };
        let mut json = Vec::with_capacity(CHUNK + CHUNK / 4);
        if reading.write(CHUNK, &mut json).await? {
            tail.write(&reading, &mut json)?;
            return Ok(Some((Bytes::from(json), None)));
        }
        Ok(Some((Bytes::from(json), Some((reading, tail)))))
    })
}

/// What stands behind the documents of a page.
struct Tail {
    cursors: CursorKeys,
    limit: u32,
    skip: u32,
    total: Option<u64>,
    list: String,
}

impl Tail {
    fn write(&self, reading: &Reading, json: &mut Vec<u8>) -> Result<(), Failure> {
        let more = reading.cut.is_some();
        let keys = if more { reading.keys()? } else { None };
        let keys = keys.and_then(|keys| match Bson::try_from(keys) {
            Ok(Bson::Array(keys)) => keyset::position(keys),
            _ => None,
        });
        let next = keys.map(|position| self.cursors.seal(&self.list, &position));
        let next = next.filter(|next| next.len() <= postern_common::page::MAX_CURSOR);
        let next = next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
        let total = self
            .total
            .map_or_else(|| "null".to_owned(), |total| total.to_string());
        let tail = format!(
            "],\"pagination\":{{\"limit\":{},\"skip\":{},\"total\":{total},\"hasMore\":{more},\"nextCursor\":{next}}}}}",
            self.limit, self.skip
        );
        json.extend_from_slice(tail.as_bytes());
        Ok(())
    }
}

/// The condition that a cursor stands for.
fn behind(
    app: &Mongo,
    arguments: &Arguments,
    sort: &Sort,
    list: &str,
) -> Result<Option<Document>, Failure> {
    let Some(cursor) = &arguments.cursor else {
        return Ok(None);
    };
    let wrong = |reason: String| Failure::invalid_field("cursor", reason);
    if arguments.skip > 0 {
        return Err(wrong("goes without skip".to_owned()));
    }
    let position = app.cursors.open(list, cursor).map_err(wrong)?;
    let behind = keyset::behind(sort, &position);
    behind
        .map(Some)
        .ok_or_else(|| wrong("is of an earlier form; begin anew".to_owned()))
}

/// The order's keys travel in the tenant's field, which is never shown: no name has to
/// be kept free for them.
fn page(
    arguments: &Arguments,
    sort: &Sort,
    matched: &Document,
    behind: Option<Document>,
) -> Vec<Document> {
    let mut matched = matched.clone();
    if let Some(behind) = behind {
        matched = doc! { "$and": [matched, behind] };
    }
    let keys: Vec<String> = sort.0.iter().map(|(path, _)| format!("${path}")).collect();
    let mut pipeline = vec![
        doc! { "$match": matched },
        doc! { "$sort": sort.to_bson() },
        doc! { "$skip": i64::from(arguments.skip) },
        doc! { "$limit": i64::from(arguments.limit) + 1 },
        doc! { "$addFields": { TENANT: keys } },
    ];
    pipeline.push(arguments.projection.keeping(TENANT));
    pipeline
}

async fn count(
    app: &Mongo,
    collection: &Collection<Document>,
    matched: Document,
    how: Count,
) -> Result<Option<u64>, Failure> {
    let total = match how {
        Count::None => return Ok(None),
        Count::Exact => {
            let mut session = Session::start(collection.client()).await?;
            let counted = collection
                .count_documents(matched)
                .max_time(app.bounds.max_time)
                .session(session.open()?)
                .await;
            session.done();
            counted
        }
        // The database is the workspace's own: nobody else's documents are counted.
        Count::Estimated => {
            collection
                .estimated_document_count()
                .max_time(app.bounds.max_time)
                .await
        }
    };
    total.map(Some).map_err(|error| failure_in("filter", error))
}

/// `POST`: one document or an array of them, all or none.
pub(crate) async fn insert(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let collection = place.collection(&call)?;
    let mut query = call.query()?;
    let form = crate::arguments::form(&mut query);
    query.finish()?;
    let (sent, value) = body::read(&mut call).await?;
    let documents = Arc::new(inserted(&place, value)?);
    let name = collection.name().to_owned();
    let location = match documents.as_slice() {
        [only] => only.get("_id").and_then(id_text).map(|id| {
            let workspace = place.workspace;
            format!("/v1/mongo/{workspace}/collections/{name}/documents/{id}")
        }),
        _ => None,
    };
    // What is answered is known before: the record is written once, with its outcome.
    let reply = created(&documents, form, location)?;
    let (here, needs, told) = (place.clone(), Needs::Room(name), reply.clone());
    app.mutate(&call, &place, &sent, needs, Some(told), move |session| {
        let (documents, collection) = (Arc::clone(&documents), collection.clone());
        let (reply, place) = (reply.clone(), here.clone());
        Box::pin(async move {
            let insert = collection.insert_many(documents.iter()).ordered(true);
            place.timed(insert.session(session)).await?;
            Ok(reply)
        })
    })
    .await
}

/// The documents of an insert, checked and marked.
fn inserted(place: &Place, sent: Bson) -> Result<Vec<Document>, Failure> {
    let sent = match sent {
        Bson::Array(items) if items.is_empty() || items.len() > MAX_DOCUMENTS => {
            return Err(Failure::invalid_field(
                "body",
                format!("must have 1 to {MAX_DOCUMENTS} documents"),
            ));
        }
        Bson::Array(items) => items,
        one => vec![one],
    };
    let many = sent.len() > 1;
    let root = At::root("body");
    let mut documents = Vec::with_capacity(sent.len());
    for (index, value) in sent.into_iter().enumerate() {
        let item = root.index(index);
        let at = if many { &item } else { &root };
        let Bson::Document(mut fields) = value else {
            return Err(at.refused("must be an object").into());
        };
        document(&fields, at)?;
        if !fields.contains_key("_id") {
            // In front, where a reader looks for it.
            let mut whole = doc! { "_id": ObjectId::new() };
            whole.extend(fields);
            fields = whole;
        }
        documents.push(place.wall.mark(fields));
    }
    Ok(documents)
}

fn created(documents: &[Document], form: Form, location: Option<String>) -> Result<Reply, Failure> {
    let mut body = b"{\"data\":[".to_vec();
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let raw = RawDocumentBuf::from_document(document).map_err(Failure::internal)?;
        render::document(&raw, form, &mut body)?;
    }
    body.extend_from_slice(format!("],\"inserted\":{}}}", documents.len()).as_bytes());
    let reply = Reply::bytes(StatusCode::CREATED, JSON, body);
    Ok(match location {
        Some(location) => reply.with_header(LOCATION, &location),
        None => reply,
    })
}

/// An id as a path has it, so that [`crate::wall::id`] reads the same again; none where no
/// path leads to it.
pub(crate) fn id_text(id: &Bson) -> Option<String> {
    let reads_back = |text: &String| crate::wall::id(text) == *id;
    let text = match id {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        Bson::Double(number) => {
            Some(serde_json::Value::from(*number).to_string()).filter(reads_back)?
        }
        Bson::Binary(binary) => binary.to_uuid().ok()?.to_string(),
        // Gateways and clients take these for something else, encoded or not.
        Bson::String(text) if text.contains(['/', '\\']) || text.contains(char::is_control) => {
            return None;
        }
        Bson::String(text) => {
            let bare = !["", ".", ".."].contains(&text.as_str()) && reads_back(text);
            let quoted = || serde_json::Value::from(text.as_str()).to_string();
            let shown = if bare { text.clone() } else { quoted() };
            Some(shown).filter(|shown| reads_back(shown) && !shown.contains('\\'))?
        }
        _ => return None,
    };
    Some(utf8_percent_encode(&text, SEGMENT).to_string())
}

/// All but what a segment of a path may hold (RFC 3986, 3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use percent_encoding::percent_decode_str;

    use super::*;

    #[test]
    fn a_location_leads_back_or_is_none() {
        let text = |text: &str| Bson::String(text.to_owned());
        for (id, path) in [
            (Bson::Int32(42), "42"),
            (Bson::Double(2.5), "2.5"),
            (text("a b"), "a%20b"),
            (text("42"), "%2242%22"),
            (text(""), "%22%22"),
            (text(".."), "%22..%22"),
            (text("\"42\""), ""),
        ] {
            let shown = id_text(&id).unwrap_or_default();
            assert_eq!(shown, path);
            if !shown.is_empty() {
                let decoded = percent_decode_str(&shown).decode_utf8().unwrap();
                assert_eq!(crate::wall::id(&decoded), id);
            }
        }
        for id in [
            Bson::Double(f64::NAN),
            Bson::Double(f64::INFINITY),
            Bson::Decimal128("0.1".parse().unwrap()),
            text("a/b"),
            text("a\\b"),
            text("a\0b"),
        ] {
            assert_eq!(id_text(&id), None, "{id}");
        }
    }
}
