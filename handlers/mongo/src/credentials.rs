//! `POST …/credentials`: a database user for a while, who reads views.
//!
//! A view shows a collection's documents without the tenant's fields, behind the wall;
//! the user has `find` on views and on nothing else. When it ends is written down before
//! it is made, so no crash leaves a user without an end; the sweep removes what is due,
//! and what belongs to a workspace that is not served any more.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use mongodb::{Client, Collection, IndexModel};
use postern_common::idempotency::{Attempt, Effect};
use postern_common::{Call, Failure, Reply};
use postern_contract::Code;
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::json;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::body;
use crate::collections::VIEWS;
use crate::failure::{failure, is_there_already, number, too_slow};
use crate::family::{Mongo, Place};
use crate::retry;
use crate::store::{self, HOME};
use crate::wall::{At, Refused, barrier, collection};

const DEFAULT_TTL_S: i64 = 3_600;
const MAX_TTL_S: i64 = 86_400;
const MAX_COLLECTIONS: usize = 100;
/// Users of one workspace at once.
const MAX_LIVE: u64 = 100;
/// `UserAlreadyExists`, `RoleAlreadyExists` are 51003 and 51002; not found 11 and 31.
const THERE: [i32; 2] = [51_002, 51_003];
const GONE: [i32; 2] = [11, 31];

struct New {
    app: Arc<Mongo>,
    place: Place,
    user: String,
    collections: Vec<String>,
    ttl: Duration,
}

/// `{collections: […], ttlSeconds?}`
pub(crate) async fn create(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    call.query()?.finish()?;
    let (sent, fields) = body::object(&mut call).await?;
    let (collections, ttl) = read(&fields)?;
    let keyed = call.keyed(&sent)?;
    // The same for a retry, which may find what a crash left.
    let mark = match &keyed {
        Some(keyed) => keyed
            .scope
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        None => Alphanumeric
            .sample_string(&mut rand::rng(), 32)
            .to_ascii_lowercase(),
    };
    let new = New {
        app: Arc::clone(&app),
        user: format!("postern_{mark}"),
        place,
        collections,
        ttl,
    };
    app.ledger
        .run_outside(keyed, call.caller.correlation_id(), new)
        .await
}

fn read(fields: &Document) -> Result<(Vec<String>, Duration), Refused> {
    let root = At::root("body");
    if let Some(other) = fields
        .keys()
        .find(|name| !["collections", "ttlSeconds"].contains(&name.as_str()))
    {
        return Err(root
            .field(other)
            .refused("is not known here; known are collections, ttlSeconds"));
    }
    let at = root.field("collections");
    let names = match fields.get("collections") {
        Some(Bson::Array(names)) if (1..=MAX_COLLECTIONS).contains(&names.len()) => names,
        _ => return Err(at.refused(format!("must name 1 to {MAX_COLLECTIONS} collections"))),
    };
    let mut collections = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let at = at.index(index);
        let name = name
            .as_str()
            .ok_or_else(|| at.refused("must be a string"))?;
        collections.push(
            collection(name)
                .map_err(|rule| at.refused(rule))?
                .to_owned(),
        );
    }
    let at = root.field("ttlSeconds");
    let ttl = match fields.get("ttlSeconds") {
        None => DEFAULT_TTL_S,
        Some(Bson::Int32(seconds)) if (60..=MAX_TTL_S).contains(&i64::from(*seconds)) => {
            i64::from(*seconds)
        }
        Some(_) => return Err(at.refused(format!("must be a whole number from 60 to {MAX_TTL_S}"))),
    };
    Ok((
        collections,
        Duration::from_secs(u64::try_from(ttl).unwrap_or_default()),
    ))
}

fn endings(client: &Client) -> Collection<Document> {
    let options = mongodb::options::CollectionOptions::builder()
        .write_concern(crate::store::durable())
        .build();
    client
        .database(HOME)
        .collection_with_options("credential", options)
}

impl New {
    async fn make(&self) -> Result<Reply, Failure> {
        let database = &self.place.database;
        for name in &self.collections {
            self.place.need(name).await?;
            // The barrier: what the user asks of the view meets its documents only.
            let [matched, unset] = self.place.wall.head();
            let pipeline = vec![matched, unset, barrier()];
            let view = doc! { "create": format!("{VIEWS}{name}"), "viewOn": name, "pipeline": pipeline.clone() };
            match database.run_command(view).await {
                // One of an earlier form is brought up to date.
                Err(error) if is_there_already(&error) => {
                    let view = doc! { "collMod": format!("{VIEWS}{name}"), "viewOn": name, "pipeline": pipeline };
                    database.run_command(view).await.map_err(failure)?;
                }
                Err(error) => return Err(failure(error)),
                Ok(_) => {}
            }
        }
        let ttl = i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX);
        let expires_at =
            DateTime::from_millis(DateTime::now().timestamp_millis().saturating_add(ttl));
        let ending = doc! { "$set": { "database": database.name(), "expiresAt": expires_at } };
        let by_name = doc! { "_id": &self.user };
        endings(&self.app.client)
            .update_one(by_name, ending)
            .upsert(true)
            .await
            .map_err(failure)?;
        // Its own is among them: who comes at once with others may be refused, but none is
        // above the bound.
        let of_workspace = doc! { "database": database.name() };
        let live = endings(&self.app.client)
            .count_documents(of_workspace)
            .await
            .map_err(failure)?;
        if live > MAX_LIVE {
            self.app.end(&self.user, database.name()).await?;
            let message = format!(
                "the workspace has {MAX_LIVE} credentials already; each ends by itself at its time"
            );
            return Err(Failure::new(Code::QuotaExceeded, message));
        }

        let views: Vec<Document> = self
            .collections
            .iter()
            .map(|name| doc! { "resource": { "db": database.name(), "collection": format!("{VIEWS}{name}") }, "actions": ["find"] })
            .collect();
        let password = Alphanumeric.sample_string(&mut rand::rng(), 40);
        let none: [&str; 0] = [];
        let role = doc! { "privileges": views, "roles": none.as_slice() };
        self.create_or_update("Role", role).await?;
        let user =
            doc! { "pwd": &password, "roles": [{ "role": &self.user, "db": database.name() }] };
        self.create_or_update("User", user).await?;
        let expires_at = expires_at
            .try_to_rfc3339_string()
            .map_err(Failure::internal)?;
        let views: Vec<_> = self
            .collections
            .iter()
            .map(|name| format!("{VIEWS}{name}"))
            .collect();
        Reply::json(
            StatusCode::CREATED,
            &json!({
                "username": self.user,
                "password": password,
                "database": database.name(),
                "authSource": database.name(),
                "views": views,
                "expiresAt": expires_at,
            }),
        )
    }

    /// What a crash left is brought up to date.
    async fn create_or_update(&self, what: &str, options: Document) -> Result<(), Failure> {
        let run = async |verb: &str| {
            let mut command = doc! { format!("{verb}{what}"): &self.user };
            command.extend(options.clone());
            self.place.database.run_command(command).await
        };
        match run("create").await {
            Ok(_) => Ok(()),
            Err(error) if number(&error).is_some_and(|code| THERE.contains(&code)) => {
                run("update").await.map(|_| ()).map_err(failure)
            }
            Err(error) => Err(failure(error)),
        }
    }
}

impl Effect for New {
    fn bring_about(&self, _: Attempt) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(retry::read(|| self.make()))
    }

    fn note<'t>(&'t self, _: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}

/// What looks for the users of a workspace finds them by this; can be repeated.
///
/// # Errors
/// The server's.
pub(crate) async fn provision(client: &Client) -> Result<(), mongodb::error::Error> {
    let by_database = IndexModel::builder().keys(doc! { "database": 1 }).build();
    endings(client).create_index(by_database).await?;
    Ok(())
}

impl Mongo {
    /// Removes users whose time is over or whose workspace is, `every` so often, until `stop`.
    pub async fn sweep(&self, every: Duration, stop: CancellationToken) {
        let sweeps = async {
            loop {
                tokio::time::sleep(every).await;
                if let Err(error) = self.end_credentials().await {
                    tracing::warn!(%error, "credentials were not swept");
                }
            }
        };
        stop.run_until_cancelled(sweeps).await;
    }

    /// All that are due: one that cannot be ended is left for the next time, and those
    /// behind it are not.
    async fn end_credentials(&self) -> Result<(), Failure> {
        let due = doc! { "expiresAt": { "$lte": DateTime::now() } };
        let due = match self.closed().await {
            Ok(closed) => doc! { "$or": [due, { "database": { "$in": closed } }] },
            Err(error) => {
                tracing::warn!(%error, "credentials of workspaces that are not active stay");
                due
            }
        };
        let mut due = endings(&self.client).find(due).await.map_err(failure)?;
        while let Some(ended) = due.try_next().await.map_err(failure)? {
            let (Ok(user), Ok(database)) = (ended.get_str("_id"), ended.get_str("database")) else {
                continue;
            };
            let end = tokio::time::timeout(self.bounds.max_time, self.end(user, database));
            if let Err(error) = end.await.unwrap_or_else(|_| Err(too_slow())) {
                tracing::warn!(%error, user, database, "credentials that are over were not removed");
            }
        }
        Ok(())
    }

    /// The databases with users whose workspaces are not served any more.
    async fn closed(&self) -> Result<Vec<String>, Failure> {
        let endings = endings(&self.client);
        let databases = endings.distinct("database", doc! {}).await;
        let databases = databases.map_err(failure)?;
        let workspaces = databases.iter().filter_map(Bson::as_str);
        let workspaces: Vec<_> = workspaces.filter_map(store::workspace).collect();
        let closed = self.quotas.closed(&workspaces).await?;
        let name = |workspace| store::database(&self.client, workspace).name().to_owned();
        Ok(closed.into_iter().map(name).collect())
    }

    /// Ends a user, who may be gone or never have been.
    async fn end(&self, user: &str, database: &str) -> Result<(), Failure> {
        for command in ["dropUser", "dropRole"] {
            let drop = doc! { command: user };
            match self.client.database(database).run_command(drop).await {
                Err(error) if !number(&error).is_some_and(|code| GONE.contains(&code)) => {
                    return Err(failure(error));
                }
                _ => {}
            }
        }
        let by_name = doc! { "_id": user };
        let forgotten = endings(&self.client).delete_one(by_name).await;
        forgotten.map(|_| ()).map_err(failure)
    }
}
