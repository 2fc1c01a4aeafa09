//! `/v1/mongo/:workspaceId/collections/:col/documents`

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use mongodb::Collection;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use postern_common::{Call, Failure, Reply};

use crate::arguments::{Arguments, Count};
use crate::failure::failure;
use crate::family::{Mongo, Place};
use crate::read::{self, Written};
use crate::render::{self, Form};
use crate::wall::{At, Projection, Sort, TENANT, WORKSPACE, document};
use crate::{body, collections, keyset};

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
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let pipeline = page(&arguments, &sort, &matched, behind);
    let (written, total) = tokio::try_join!(
        read::write(&collection, pipeline, limit, arguments.form, &app.bounds),
        count(&app, &collection, matched, arguments.count),
    )?;
    if written.count == 0 && arguments.skip == 0 && arguments.cursor.is_none() {
        place.need(collection.name()).await?;
    }
    Ok(answer(&app, &arguments, written, total, &list))
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
    pipeline.push(match &arguments.projection {
        Projection::All => doc! { "$unset": [WORKSPACE] },
        Projection::Exclude(paths) => {
            let hidden: Vec<&str> = [WORKSPACE]
                .into_iter()
                .chain(paths.iter().map(String::as_str))
                .collect();
            doc! { "$unset": hidden }
        }
        shown @ Projection::Include { .. } => {
            let mut shown = shown.to_bson();
            shown.insert(TENANT, 1);
            doc! { "$project": shown }
        }
    });
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
            collection
                .count_documents(matched)
                .max_time(app.bounds.max_time)
                .await
        }
        // The database is the workspace's own: nobody else's documents are counted.
        Count::Estimated => {
            collection
                .estimated_document_count()
                .max_time(app.bounds.max_time)
                .await
        }
    };
    total.map(Some).map_err(failure)
}

fn answer(
    app: &Mongo,
    arguments: &Arguments,
    written: Written,
    total: Option<u64>,
    list: &str,
) -> Reply {
    let keys = written
        .keys
        .filter(|_| written.more)
        .and_then(|keys| match Bson::try_from(keys) {
            Ok(Bson::Array(keys)) => keyset::position(keys),
            _ => None,
        });
    let next = keys.map(|position| app.cursors.seal(list, &position));
    let next = next.filter(|next| next.len() <= postern_common::page::MAX_CURSOR);
    let next = next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    let total = total.map_or_else(|| "null".to_owned(), |total| total.to_string());
    let mut body = Vec::with_capacity(written.json.len() + 160);
    body.extend_from_slice(b"{\"data\":[");
    body.extend_from_slice(&written.json);
    let tail = format!(
        "],\"pagination\":{{\"limit\":{},\"skip\":{},\"total\":{total},\"hasMore\":{},\"nextCursor\":{next}}}}}",
        arguments.limit, arguments.skip, written.more
    );
    body.extend_from_slice(tail.as_bytes());
    Reply::bytes(StatusCode::OK, JSON, body)
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
    // Outside the transaction: one that makes a collection locks the whole database.
    collections::make_missing(&app, &place, collection.name()).await?;
    let location = match documents.as_slice() {
        [only] => only.get("_id").map(|id| {
            let collection = collection.name();
            format!(
                "/v1/mongo/{}/collections/{collection}/documents/{}",
                place.workspace,
                id_text(id)
            )
        }),
        _ => None,
    };
    app.mutate(&call, &place, &sent, move |session| {
        let (documents, collection) = (Arc::clone(&documents), collection.clone());
        let location = location.clone();
        Box::pin(async move {
            let insert = collection.insert_many(documents.iter()).ordered(true);
            insert.session(session).await.map_err(failure)?;
            created(&documents, form, location)
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

/// An id as a path has it, so that [`crate::wall::id`] reads the same again.
pub(crate) fn id_text(id: &Bson) -> String {
    let text = match id {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        Bson::Double(number) => serde_json::to_string(number).unwrap_or_default(),
        Bson::Binary(binary) => match binary.to_uuid() {
            Ok(uuid) => uuid.to_string(),
            Err(_) => String::new(),
        },
        Bson::String(text) if crate::wall::id(text) == *id => text.clone(),
        Bson::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        _ => String::new(),
    };
    utf8_percent_encode(&text, SEGMENT).to_string()
}

/// All but what a segment of a path may hold (RFC 3986, 3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
