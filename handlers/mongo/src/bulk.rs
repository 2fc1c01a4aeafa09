//! `POST …/bulk`: up to a thousand operations, all or none.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use http::StatusCode;
use mongodb::{ClientSession, Collection};
use postern_common::{Call, Failure, Reply};
use serde_json::{Value, json};

use crate::body;
use crate::family::{Mongo, Place};
use crate::store::Needs;
use crate::wall::{At, Budget, Filter, Refused, Update, document};

const MAX_OPERATIONS: usize = 1_000;
const KINDS: &str = "insertOne, updateOne, updateMany, deleteOne, deleteMany or replaceOne";

/// One operation, checked.
enum Operation {
    Insert(Document),
    Update {
        filter: Filter,
        update: Update,
        many: bool,
        upsert: bool,
    },
    Delete {
        filter: Filter,
        many: bool,
    },
    Replace {
        filter: Filter,
        replacement: Document,
        upsert: bool,
    },
}

/// `{"operations":[{"insertOne":{"document":…}}, …]}`
pub(crate) async fn bulk(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let collection = place.collection(&call)?;
    call.query()?.finish()?;
    let (sent, fields) = body::object(&mut call).await?;
    if let Some(other) = fields.keys().find(|name| *name != "operations") {
        return Err(Failure::invalid_field(
            other,
            "is not known here; known is operations",
        ));
    }
    let operations = Arc::new(read(&fields)?);
    let inserts = operations.iter().any(|operation| match operation {
        Operation::Insert(_) => true,
        Operation::Update { upsert, .. } | Operation::Replace { upsert, .. } => *upsert,
        Operation::Delete { .. } => false,
    });
    let name = collection.name().to_owned();
    let needs = if inserts {
        Needs::Room(name)
    } else {
        Needs::There(name)
    };
    let wall = place.clone();
    app.mutate(&call, &place, &sent, needs, None, move |session| {
        let (operations, collection, place) =
            (Arc::clone(&operations), collection.clone(), wall.clone());
        Box::pin(async move {
            let mut results = Vec::with_capacity(operations.len());
            for (index, operation) in operations.iter().enumerate() {
                let result = carry_out(operation, &place, &collection, session).await;
                results.push(result.map_err(|failure| at(index, failure))?);
            }
            Reply::json(StatusCode::OK, &json!({ "data": results }))
        })
    })
    .await
}

/// Says which operation failed; the others were undone.
fn at(index: usize, failure: Failure) -> Failure {
    match failure {
        Failure::Refused(mut refusal) => {
            let reason = std::mem::take(&mut refusal.message);
            refusal.message = format!("operations[{index}]: {reason}; nothing was changed");
            let field = format!("operations[{index}]");
            refusal
                .details
                .push(postern_contract::Detail::new(field, reason));
            Failure::Refused(refusal)
        }
        other => other,
    }
}

fn read(fields: &Document) -> Result<Vec<Operation>, Refused> {
    let at = At::root("operations");
    let Some(Bson::Array(operations)) = fields.get("operations") else {
        return Err(at.refused("must be an array"));
    };
    if operations.is_empty() || operations.len() > MAX_OPERATIONS {
        return Err(at.refused(format!("must have 1 to {MAX_OPERATIONS} items")));
    }
    let mut budget = Budget::for_many(operations.len());
    let mut read = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let at = at.index(index);
        let mut kinds = operation.as_document().into_iter().flatten();
        let (Some((kind, options)), None) = (kinds.next(), kinds.next()) else {
            return Err(at.refused(format!("must be an object with one of {KINDS}")));
        };
        let at = at.field(kind);
        let Bson::Document(options) = options else {
            return Err(at.refused("must be an object"));
        };
        read.push(operation_of(kind, options, &mut budget, &at)?);
    }
    Ok(read)
}

fn operation_of(
    kind: &str,
    options: &Document,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Operation, Refused> {
    let known: &[&str] = match kind {
        "insertOne" => &["document"],
        "updateOne" | "updateMany" => &["filter", "update", "upsert"],
        "deleteOne" | "deleteMany" => &["filter"],
        "replaceOne" => &["filter", "replacement", "upsert"],
        _ => return Err(at.refused(format!("is no operation; there are {KINDS}"))),
    };
    if let Some(other) = options.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(at
            .field(other)
            .refused(format!("is not known here; known are {}", known.join(", "))));
    }
    let object = |name: &str| match options.get(name) {
        Some(Bson::Document(object)) => Ok(object),
        Some(_) => Err(at.field(name).refused("must be an object")),
        None => Err(at.refused(format!("needs {name}"))),
    };
    let upsert = match options.get("upsert") {
        None => false,
        Some(Bson::Boolean(upsert)) => *upsert,
        Some(_) => return Err(at.field("upsert").refused("must be true or false")),
    };
    let filter = |budget: &mut Budget| {
        let at = at.field("filter");
        let filter = Filter::read(object("filter")?, budget, &at)?;
        if upsert {
            filter.upserts(&at)?;
        }
        Ok(filter)
    };
    Ok(match kind {
        "insertOne" => {
            let fields = object("document")?;
            document(fields, &at.field("document"))?;
            Operation::Insert(fields.clone())
        }
        "updateOne" | "updateMany" => Operation::Update {
            filter: filter(budget)?,
            update: Update::read(object("update")?, budget, &at.field("update"))?,
            many: kind == "updateMany",
            upsert,
        },
        "replaceOne" => {
            let replacement = object("replacement")?;
            document(replacement, &at.field("replacement"))?;
            Operation::Replace {
                filter: filter(budget)?,
                replacement: replacement.clone(),
                upsert,
            }
        }
        _ => Operation::Delete {
            filter: filter(budget)?,
            many: kind == "deleteMany",
        },
    })
}

async fn carry_out(
    operation: &Operation,
    place: &Place,
    collection: &Collection<Document>,
    session: &mut ClientSession,
) -> Result<Value, Failure> {
    let shown = |id: Option<Bson>| id.map(Bson::into_relaxed_extjson);
    match operation {
        Operation::Insert(fields) => {
            let mut whole = doc! { "_id": ObjectId::new() };
            whole.extend(fields.clone());
            let insert = collection.insert_one(place.wall.mark(whole));
            let done = place.timed(insert.session(session)).await?;
            Ok(json!({ "insertedId": done.inserted_id.into_relaxed_extjson() }))
        }
        Operation::Update {
            filter,
            update,
            many,
            upsert,
        } => {
            let (filter, update) = (place.wall.and(filter), update.to_bson());
            let change = if *many {
                collection.update_many(filter, update)
            } else {
                collection.update_one(filter, update)
            };
            let change = change.upsert(*upsert).session(session);
            let done = place.timed(change).await?;
            Ok(
                json!({ "matched": done.matched_count, "modified": done.modified_count, "upsertedId": shown(done.upserted_id) }),
            )
        }
        Operation::Replace {
            filter,
            replacement,
            upsert,
        } => {
            let replacement = place.wall.mark(replacement.clone());
            let replace = collection
                .replace_one(place.wall.and(filter), replacement)
                .upsert(*upsert);
            let done = place.timed(replace.session(session)).await?;
            Ok(
                json!({ "matched": done.matched_count, "modified": done.modified_count, "upsertedId": shown(done.upserted_id) }),
            )
        }
        Operation::Delete { filter, many } => {
            let filter = place.wall.and(filter);
            let delete = if *many {
                collection.delete_many(filter)
            } else {
                collection.delete_one(filter)
            };
            let done = place.timed(delete.session(session)).await?;
            Ok(json!({ "deleted": done.deleted_count }))
        }
    }
}
