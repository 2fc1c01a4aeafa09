//! `/v1/mongo/:workspaceId/collections`: within the tenant's plan.
//!
//! The record of what is done here is the control plane's, so it is `started` first, then
//! done so that it can be repeated: a mark in the workspace's database says what was done
//! under the key. A collection is made with its indexes and its mark in one transaction; one
//! that is dropped is marked first, by its own id, so that no repetition drops what others
//! have made anew under the name.

use std::sync::Arc;

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use http::header::LOCATION;
use mongodb::options::{IndexOptions, ReadConcern, ReturnDocument};
use mongodb::{ClientSession, IndexModel};
use postern_common::idempotency::{Attempt, Effect, Keyed};
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply};
use postern_contract::Code;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::body;
use crate::failure::{failure, number};
use crate::family::{Mongo, Place};
use crate::read::Session;
use crate::retry;
use crate::store::{begin, binary, commit, expires_at, records};
use crate::turns::Turn;
use crate::validator::{self, Index};
use crate::wall::{At, RESERVED_COLLECTION, collection};

/// What the server says of a collection that is not there, or not with this id:
/// `NamespaceNotFound`, `CollectionUUIDMismatch`.
const GONE: [i32; 2] = [26, 361];

/// Views that credentials read begin so; one a collection.
pub(crate) const VIEWS: &str = "postern.read.";

/// `GET`: the workspace's collections by name.
pub(crate) async fn list(app: Arc<Mongo>, call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let label = format!("mongo.collections {}", place.workspace);
    let mut query = call.query()?;
    let page = Page::read(&mut query, &app.cursors, &label);
    query.finish()?;
    let named = doc! { "type": "collection", "name": { "$not": { "$regex": format!("^({RESERVED_COLLECTION}|system\\.)") } } };
    let found = place
        .database
        .list_collections()
        .filter(named)
        .await
        .map_err(failure)?;
    let mut found: Vec<_> = found.try_collect().await.map_err(failure)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let after = page.after.clone().unwrap_or_default();
    let rows: Vec<Value> = found
        .into_iter()
        .filter(|spec| page.after.is_none() || spec.name > after)
        .take(usize::try_from(page.fetch()).unwrap_or(usize::MAX))
        .map(|spec| json!({ "name": spec.name, "validator": spec.options.validator.as_ref().map(validator::shown) }))
        .collect();
    let name = |row: &Value| {
        row.get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    page.answer(rows, &app.cursors, &label, name)
}

/// `GET collections/:col`: as it was made, and what its operator has added.
pub(crate) async fn get(app: Arc<Mongo>, call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let collection = place.collection(&call)?;
    call.query()?.finish()?;
    let found = place.need(collection.name()).await?;
    let indexes = collection.list_indexes().await.map_err(failure)?;
    let indexes: Vec<IndexModel> = indexes.try_collect().await.map_err(failure)?;
    let indexes = indexes.iter().map(Index::of);
    // Every collection has the one of `_id`.
    let indexes = indexes.filter(|index| !index.keys.keys().eq(["_id"]));
    Reply::json(
        StatusCode::OK,
        &json!({
            "name": found.name,
            "validator": found.options.validator.as_ref().map(validator::shown),
            "indexes": indexes.map(|index| index.shown()).collect::<Vec<_>>(),
        }),
    )
}

/// What is to be done to a collection, under a key.
struct Step {
    app: Arc<Mongo>,
    place: Place,
    name: String,
    /// The key's scope; without a key the request's own.
    mark: Vec<u8>,
}

impl Step {
    fn new(app: &Arc<Mongo>, place: Place, name: String, keyed: Option<&Keyed>) -> Self {
        let mark = keyed.map_or_else(
            || rand::random::<[u8; 32]>().to_vec(),
            |keyed| keyed.scope.to_vec(),
        );
        Self {
            app: Arc::clone(app),
            place,
            name,
            mark,
        }
    }

    /// The name of what says that this was done: no record has such a one.
    fn mark(&self, done: &str) -> Document {
        doc! { "_id": { done: binary(&self.mark) } }
    }

    async fn marked(&self, done: &str) -> Result<Option<Document>, Failure> {
        let marks = records(&self.place.database);
        marks.find_one(self.mark(done)).await.map_err(failure)
    }
}

/// A collection that is to be made.
struct New {
    step: Step,
    validator: Option<Document>,
    indexes: Vec<Index>,
}

/// `POST` `{name, validator?: {jsonSchema}, indexes?: [{keys, unique?, sparse?, expireAfterSeconds?}]}`
pub(crate) async fn create(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    call.query()?.finish()?;
    let (sent, fields) = body::object(&mut call).await?;
    let root = At::root("body");
    if let Some(other) = fields
        .keys()
        .find(|name| !["name", "validator", "indexes"].contains(&name.as_str()))
    {
        return Err(root
            .field(other)
            .refused("is not known here; known are name, validator, indexes")
            .into());
    }
    let at = root.field("name");
    let name = match fields.get("name") {
        Some(Bson::String(name)) => collection(name)
            .map_err(|rule| at.refused(rule))?
            .to_owned(),
        _ => return Err(at.refused("must be a string").into()),
    };
    let validator = fields
        .get("validator")
        .map(|value| validator::read(value, &root.field("validator")))
        .transpose()?;
    let indexes = fields
        .get("indexes")
        .map(|value| validator::indexes(value, &root.field("indexes")))
        .transpose()?;
    let keyed = call.keyed(&sent)?;
    let new = New {
        step: Step::new(&app, place, name, keyed.as_ref()),
        validator,
        indexes: indexes.unwrap_or_default(),
    };
    app.ledger
        .run_outside(keyed, call.caller.correlation_id(), new)
        .await
}

/// The mark of a collection that was made.
const MADE: &str = "made";

impl New {
    async fn make(&self) -> Result<Reply, Failure> {
        let Step {
            app, place, name, ..
        } = &self.step;
        match room(app, place, name).await? {
            Some(room) => {
                let mut session = Session::start(&app.client).await?;
                let made = self.in_transaction(session.open()?).await;
                // One that was given up in the middle is ended on the server with its session.
                if made.as_ref().err().map(Failure::code) != Some(Code::StatementTimeout) {
                    session.done();
                }
                made?;
                room.taken(app, place).await;
            }
            // By this key, before its answer was lost?
            None if self.step.marked(MADE).await?.is_some() => {}
            None => {
                let message = format!("there is a collection {name} already");
                return Err(Failure::new(Code::DuplicateKey, message));
            }
        }
        let made = json!({
            "name": name,
            "validator": self.validator.as_ref().map(validator::shown),
            "indexes": self.indexes.iter().map(Index::shown).collect::<Vec<_>>(),
        });
        let location = format!("/v1/mongo/{}/collections/{name}", place.workspace);
        Ok(Reply::json(StatusCode::CREATED, &made)?.with_header(LOCATION, &location))
    }

    async fn in_transaction(&self, session: &mut ClientSession) -> Result<(), Failure> {
        let place = &self.step.place;
        // The server makes collections in transactions with this concern only.
        begin(session, ReadConcern::local(), place.max_time).await?;
        let ended = async {
            let mut mark = self.step.mark(MADE);
            mark.insert("expiresAt", expires_at());
            let marks = records(&place.database);
            let mark = marks.insert_one(mark).session(&mut *session);
            place.timed(mark).await?;
            let create = place.database.create_collection(&self.step.name);
            let create = match &self.validator {
                Some(validator) => create.validator(validator.clone()),
                None => create,
            };
            place.timed(create.session(&mut *session)).await?;
            let models: Vec<IndexModel> = self.indexes.iter().map(model).collect();
            if !models.is_empty() {
                let collection = place.database.collection::<Document>(&self.step.name);
                let indexes = collection.create_indexes(models);
                place.timed(indexes.session(&mut *session)).await?;
            }
            Ok::<(), Failure>(())
        };
        if let Err(failure) = ended.await {
            if failure.code() != Code::StatementTimeout {
                // The session's end would do it too, but later.
                let _ = session.abort_transaction().await;
            }
            return Err(failure);
        }
        commit(session).await
    }
}

fn model(index: &Index) -> IndexModel {
    let options = IndexOptions::builder()
        .unique(index.unique)
        .sparse(index.sparse)
        .expire_after(index.expire_after)
        .build();
    IndexModel::builder()
        .keys(index.keys.clone())
        .options(options)
        .build()
}

impl Effect for New {
    fn bring_about(&self, _: Attempt) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(retry::read(|| self.make()))
    }

    fn note<'t>(&'t self, _: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}

/// A collection that is to go.
struct Drop(Step);

/// `DELETE collections/:col`, with all its documents.
pub(crate) async fn drop(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let name = place.collection(&call)?.name().to_owned();
    call.query()?.finish()?;
    let sent = call.body().await?;
    let keyed = call.keyed(&sent)?;
    let gone = Drop(Step::new(&app, place, name, keyed.as_ref()));
    app.ledger
        .run_outside(keyed, call.caller.correlation_id(), gone)
        .await
}

impl Effect for Drop {
    fn bring_about(&self, _: Attempt) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(retry::read(|| self.carry_out()))
    }

    fn note<'t>(&'t self, _: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}

/// The mark of a collection that is dropped, with its id.
const DROPPED: &str = "dropped";

impl Drop {
    async fn carry_out(&self) -> Result<Reply, Failure> {
        let Step {
            app, place, name, ..
        } = &self.0;
        let id = self.id().await?;
        let turn = turn(app, place).await?;
        app.known.remove(&place.database, name).await;
        self.remove(doc! { "drop": name, "collectionUUID": id })
            .await?;
        // Once more: an insert meanwhile may have found it there.
        app.known.remove(&place.database, name).await;
        // What credentials read: not where others have made the collection anew.
        if !place.has(name).await? {
            let view = format!("{VIEWS}{name}");
            self.remove(doc! { "drop": view }).await?;
        }
        turn.used(used(app, place).await?).await;
        Reply::json(StatusCode::OK, &json!({ "deleted": 1 }))
    }

    /// Drops, in an operation's time: it waits for every transaction on the collection, and
    /// others wait for this turn.
    async fn remove(&self, mut drop: Document) -> Result<(), Failure> {
        let place = &self.0.place;
        let time = i64::try_from(place.max_time.as_millis()).unwrap_or(i64::MAX);
        drop.insert("maxTimeMS", time);
        drop.insert("writeConcern", doc! { "w": "majority", "j": true });
        match place.database.run_command(drop).await {
            // It is gone, by this key's hand or another's.
            Err(error) if number(&error).is_some_and(|code| GONE.contains(&code)) => Ok(()),
            Err(error) => {
                let why = failure(error);
                if why.code() != Code::StatementTimeout {
                    return Err(why);
                }
                let message = "changes of the collection are under way and take long; retry with the same Idempotency-Key";
                Err(Failure::new(Code::StatementTimeout, message))
            }
            Ok(answer) if answer.contains_key("writeConcernError") => {
                let message = "whether the collection is gone for good is not known; retry with the same Idempotency-Key";
                Err(Failure::new(Code::BackendUnavailable, message))
            }
            Ok(_) => Ok(()),
        }
    }

    /// The server's id of the collection that the key drops: of the one that was there first.
    async fn id(&self) -> Result<Bson, Failure> {
        let place = &self.0.place;
        let dropped = match self.0.marked(DROPPED).await? {
            Some(dropped) => dropped,
            None => {
                let there = place.need(&self.0.name).await?;
                let id = there.info.uuid.map(Bson::Binary);
                let marks = records(&place.database);
                let fields = doc! { "collection": id, "expiresAt": expires_at() };
                marks
                    .find_one_and_update(self.0.mark(DROPPED), doc! { "$setOnInsert": fields })
                    .upsert(true)
                    .return_document(ReturnDocument::After)
                    .await
                    .map_err(failure)?
                    .unwrap_or_default()
            }
        };
        let id = dropped.get("collection").cloned();
        id.ok_or_else(|| Failure::internal("a collection without an id"))
    }
}

/// Whether a collection has to be made.
///
/// # Errors
/// The server's.
pub(crate) async fn is_missing(app: &Mongo, place: &Place, name: &str) -> Result<bool, Failure> {
    if app.known.holds(&place.database, name) {
        return Ok(false);
    }
    let there = place.has(name).await?;
    if there {
        app.known.add(&place.database, name).await;
    }
    Ok(!there)
}

/// Room for one more collection. It is kept for as long as this is, so what makes the
/// collection is committed before.
pub(crate) struct Room {
    turn: Turn,
    name: String,
    used: i64,
}

impl Room {
    /// The collection is there now.
    pub(crate) async fn taken(self, app: &Mongo, place: &Place) {
        app.known.add(&place.database, &self.name).await;
        self.turn.used(self.used.saturating_add(1)).await;
    }
}

/// Room for a collection, if the plan has it; none: the collection is there.
///
/// # Errors
/// `QUOTA_EXCEEDED`; the turn did not come; the server's.
pub(crate) async fn room(app: &Mongo, place: &Place, name: &str) -> Result<Option<Room>, Failure> {
    let turn = turn(app, place).await?;
    // Somebody may have made it while we waited.
    if place.has(name).await? {
        return Ok(None);
    }
    let used = used(app, place).await?;
    if let Some(limit) = turn.limit()
        && used >= limit
    {
        let message = format!("the plan's {limit} collections are used up");
        return Err(Failure::new(Code::QuotaExceeded, message));
    }
    Ok(Some(Room {
        turn,
        name: name.to_owned(),
        used,
    }))
}

async fn turn(app: &Mongo, place: &Place) -> Result<Turn, Failure> {
    app.turns.wait(place.tenant, &*app.quotas).await
}

/// How many collections the tenant has, in all its workspaces; ours are not counted.
async fn used(app: &Mongo, place: &Place) -> Result<i64, Failure> {
    let mut used = 0;
    for database in crate::store::databases(&app.client, &place.tenant.to_string()).await? {
        let names = app
            .client
            .database(&database)
            .list_collection_names()
            .await
            .map_err(failure)?;
        let own = names
            .iter()
            .filter(|name| !name.starts_with(RESERVED_COLLECTION) && !name.starts_with("system."));
        used += i64::try_from(own.count()).unwrap_or(i64::MAX);
    }
    Ok(used)
}
