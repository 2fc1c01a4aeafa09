//! `/v1/mongo/:workspaceId/collections`: within the tenant's plan.
//!
//! No transaction takes what is done here. So it is `started` first (the ledger's record,
//! in the control-plane database), then done in steps that can be repeated; a retry after
//! a crash goes by the names.

use std::sync::Arc;

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
use crate::failure::{failure, is_there_already};
use crate::family::{Mongo, Place};
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
        let there = self.place.has(&self.name).await?;
        if there && attempt == Attempt::First {
            let message = format!("there is a collection {} already", self.name);
            return Err(Failure::new(Code::DuplicateKey, message));
        }
        if !there {
            make(&self.app, &self.place, &self.name, self.validator.clone()).await?;
        }
        let models: Vec<IndexModel> = self.indexes.iter().map(model).collect();
        if !models.is_empty() {
            let collection = self.place.database.collection::<Document>(&self.name);
            collection.create_indexes(models).await.map_err(failure)?;
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
        Box::pin(self.make(attempt))
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
        Box::pin(async move {
            // After a crash it may be gone already, by the same key's hand.
            if attempt == Attempt::First {
                self.place.need(&self.name).await?;
            }
            for name in [format!("{VIEWS}{}", self.name), self.name.clone()] {
                self.place
                    .database
                    .collection::<Document>(&name)
                    .drop()
                    .await
                    .map_err(failure)?;
            }
            let used = used(&self.app, &self.place).await?;
            self.app.quotas.used(self.place.tenant, used).await;
            Reply::json(StatusCode::OK, &json!({ "deleted": 1 }))
        })
    }

    fn note<'t>(&'t self, _: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}

/// Makes a collection that is not there yet, if the plan has room for one more.
///
/// # Errors
/// `QUOTA_EXCEEDED`; the server's.
pub(crate) async fn make_missing(app: &Mongo, place: &Place, name: &str) -> Result<(), Failure> {
    if place.has(name).await? {
        return Ok(());
    }
    make(app, place, name, None).await
}

/// Makes a collection, if the plan has room for one more.
async fn make(
    app: &Mongo,
    place: &Place,
    name: &str,
    validator: Option<Document>,
) -> Result<(), Failure> {
    let used = used(app, place).await?;
    if let Some(limit) = app.quotas.collections(place.tenant).await?
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
        // Somebody made it at the same time, and counted it.
        Err(error) if is_there_already(&error) => return Ok(()),
        Err(error) => return Err(failure(error)),
        Ok(()) => {}
    }
    app.quotas.used(place.tenant, used.saturating_add(1)).await;
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
