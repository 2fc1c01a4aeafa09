//! `/v1/mongo/:workspaceId/collections`: within the tenant's plan.
//!
//! No transaction takes what is done here. So it is `started` first (the ledger's record,
//! in the control-plane database), then done in steps that can be repeated; a retry after
//! a crash goes by the names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use http::header::LOCATION;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use postern_common::idempotency::{Attempt, Effect};
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply};
use postern_contract::Code;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::body;
use crate::failure::{failure, is_refusal, is_there_already};
use crate::family::{Mongo, Place};
use crate::retry;
use crate::turns::Turn;
use crate::validator::{self, Index};
use crate::wall::{At, RESERVED_COLLECTION, collection};

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

/// A collection that is to be made.
struct New {
    app: Arc<Mongo>,
    place: Place,
    name: String,
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
        app: Arc::clone(&app),
        place,
        name,
        validator,
        indexes: indexes.unwrap_or_default(),
    };
    app.ledger
        .run_outside(keyed, call.caller.correlation_id(), new)
        .await
}

impl New {
    async fn make(&self, attempt: Attempt) -> Result<Reply, Failure> {
        let made = make(&self.app, &self.place, &self.name, self.validator.clone()).await?;
        // After a crash it may be there already, by the same key's hand: then it is as asked for.
        let ours = made || attempt == Attempt::Again && self.is_as_asked().await?;
        if !ours {
            let message = format!("there is a collection {} already", self.name);
            return Err(Failure::new(Code::DuplicateKey, message));
        }
        let models: Vec<IndexModel> = self.indexes.iter().map(model).collect();
        if !models.is_empty() {
            let collection = self.place.database.collection::<Document>(&self.name);
            let indexes = collection.create_indexes(models);
            if let Err(error) = indexes.max_time(self.app.bounds.max_time).await {
                if is_refusal(&error) {
                    unmake(&self.app, &self.place, &self.name).await?;
                }
                return Err(failure(error));
            }
        }
        let made = json!({
            "name": self.name,
            "validator": self.validator.as_ref().map(validator::shown),
            "indexes": self.indexes.iter().map(Index::shown).collect::<Vec<_>>(),
        });
        let location = format!(
            "/v1/mongo/{}/collections/{}/documents",
            self.place.workspace, self.name
        );
        Ok(Reply::json(StatusCode::CREATED, &made)?.with_header(LOCATION, &location))
    }

    /// Whether the collection that is there has this validator.
    async fn is_as_asked(&self) -> Result<bool, Failure> {
        let there = self.place.specification(&self.name).await?;
        Ok(there.is_some_and(|there| there.options.validator == self.validator))
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
    fn bring_about(&self, attempt: Attempt) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(repeated(attempt, |attempt| self.make(attempt)))
    }

    fn note<'t>(&'t self, _: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}

/// A collection that is to go.
struct Drop {
    app: Arc<Mongo>,
    place: Place,
    name: String,
}

/// `DELETE collections/:col`, with all its documents.
pub(crate) async fn drop(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let name = place.collection(&call)?.name().to_owned();
    call.query()?.finish()?;
    let sent = call.body().await?;
    let keyed = call.keyed(&sent)?;
    let gone = Drop {
        app: Arc::clone(&app),
        place,
        name,
    };
    app.ledger
        .run_outside(keyed, call.caller.correlation_id(), gone)
        .await
}

impl Effect for Drop {
    fn bring_about(&self, attempt: Attempt) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(repeated(attempt, |attempt| self.carry_out(attempt)))
    }

    fn note<'t>(&'t self, _: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}

impl Drop {
    async fn carry_out(&self, attempt: Attempt) -> Result<Reply, Failure> {
        // After a crash it may be gone already, by the same key's hand.
        if attempt == Attempt::First {
            self.place.need(&self.name).await?;
        }
        let turn = turn(&self.app, &self.place).await?;
        self.app
            .known
            .remove(&self.place.database, &self.name)
            .await;
        for name in [format!("{VIEWS}{}", self.name), self.name.clone()] {
            self.place
                .database
                .collection::<Document>(&name)
                .drop()
                .await
                .map_err(failure)?;
        }
        // Once more: an insert meanwhile may have found it there.
        self.app
            .known
            .remove(&self.place.database, &self.name)
            .await;
        turn.used(used(&self.app, &self.place).await?).await;
        Reply::json(StatusCode::OK, &json!({ "deleted": 1 }))
    }
}

/// Brings something about that is reconciled by name: where the server was away in the
/// middle of it, it is looked at and gone on with.
pub(crate) async fn repeated<F>(
    attempt: Attempt,
    bring_about: impl Fn(Attempt) -> F,
) -> Result<Reply, Failure>
where
    F: Future<Output = Result<Reply, Failure>>,
{
    let begun = AtomicBool::new(attempt == Attempt::Again);
    let next = || match begun.swap(true, Ordering::Relaxed) {
        true => Attempt::Again,
        false => Attempt::First,
    };
    retry::read(|| bring_about(next())).await
}

/// Makes a collection that is not there yet, if the plan has room for one more; whether it
/// was made.
///
/// # Errors
/// `QUOTA_EXCEEDED`; the server's.
pub(crate) async fn make_missing(app: &Mongo, place: &Place, name: &str) -> Result<bool, Failure> {
    if app.known.holds(&place.database, name) {
        return Ok(false);
    }
    let made = retry::read(|| async {
        Ok(!place.has(name).await? && make(app, place, name, None).await?)
    });
    let made = made.await?;
    app.known.add(&place.database, name).await;
    Ok(made)
}

/// Makes a collection, if the plan has room for one more; `false`: it is there.
async fn make(
    app: &Mongo,
    place: &Place,
    name: &str,
    validator: Option<Document>,
) -> Result<bool, Failure> {
    let turn = turn(app, place).await?;
    // Somebody may have made it while we waited.
    if place.has(name).await? {
        return Ok(false);
    }
    let used = used(app, place).await?;
    if let Some(limit) = turn.limit()
        && used >= limit
    {
        let message = format!("the plan's {limit} collections are used up");
        return Err(Failure::new(Code::QuotaExceeded, message));
    }
    let create = place.database.create_collection(name);
    let create = match validator {
        Some(validator) => create.validator(validator),
        None => create,
    };
    match create.await {
        Err(error) if is_there_already(&error) => return Ok(false),
        Err(error) => return Err(failure(error)),
        Ok(()) => {}
    }
    turn.used(used.saturating_add(1)).await;
    Ok(true)
}

async fn turn(app: &Mongo, place: &Place) -> Result<Turn, Failure> {
    app.turns.wait(place.tenant, &*app.quotas).await
}

/// How a change ended that had to make its collection first: one that was refused leaves
/// none behind. Where its outcome is open the collection stays.
pub(crate) async fn settled(
    app: &Arc<Mongo>,
    place: &Place,
    name: &str,
    made: bool,
    ended: Result<Reply, Failure>,
) -> Result<Reply, Failure> {
    let refused = match &ended {
        Ok(reply) => !reply.status.is_success(),
        Err(failure) => failure.verdict().status < 500,
    };
    if made
        && refused
        && let Err(error) = unmake(app, place, name).await
    {
        tracing::info!(%error, "an empty collection stays after a refused change");
    }
    ended
}

/// Takes back a collection that a request made and then was refused. What others wrote
/// into it meanwhile stays.
///
/// # Errors
/// The server's.
pub(crate) async fn unmake(app: &Arc<Mongo>, place: &Place, name: &str) -> Result<(), Failure> {
    let (app, place, name) = (Arc::clone(app), place.clone(), name.to_owned());
    // In a task: who leaves in the middle would leave what others wrote aside.
    let task = tokio::spawn(async move { take_back(&app, &place, &name).await });
    task.await.map_err(Failure::internal)?
}

/// No command drops a collection only if it is empty. So it gets another name first, which
/// waits for whoever is writing; then nobody finds it, and what it holds can be looked at.
async fn take_back(app: &Mongo, place: &Place, name: &str) -> Result<(), Failure> {
    let turn = turn(app, place).await?;
    let collection = |name: &str| place.database.collection::<Document>(name);
    let is_empty = async |name: &str| {
        let first = collection(name).find_one(doc! {}).await;
        first.map(|first| first.is_none()).map_err(failure)
    };
    if !is_empty(name).await? {
        return Ok(());
    }
    app.known.remove(&place.database, name).await;
    let aside = format!("{RESERVED_COLLECTION}.refused.{}", ObjectId::new());
    let full = |name: &str| format!("{}.{name}", place.database.name());
    let limit = i64::try_from(place.max_time.as_millis()).unwrap_or(i64::MAX);
    let rename = doc! { "renameCollection": full(name), "to": full(&aside), "maxTimeMS": limit };
    let admin = app.client.database("admin");
    admin.run_command(rename).await.map_err(failure)?;
    app.known.remove(&place.database, name).await;
    if !is_empty(&aside).await? {
        let back = doc! { "$merge": { "into": name, "whenMatched": "keepExisting" } };
        collection(&aside)
            .aggregate([back])
            .await
            .map_err(failure)?;
    }
    collection(&aside).drop().await.map_err(failure)?;
    turn.used(used(app, place).await?).await;
    Ok(())
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
