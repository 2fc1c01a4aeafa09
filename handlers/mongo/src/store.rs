//! Databases of workspaces, and the transaction in which a record and its effect
//! commit together (`docs/idempotency.md`).
//!
//! ```text
//! start → insert the record → the effect → the outcome into the record → commit
//! ```
//!
//! Where the answer is known before the effect (an insert, a delete) the record is
//! inserted with its outcome, and a round trip less is made.
//!
//! A collection that is missing comes to be with its first document, in the same
//! transaction: what is refused leaves none, and nothing has to be taken back.
//!
//! The insert of the record comes first: who comes second with the same key meets a write conflict
//! while the first works, and a duplicate once it has committed. A refusal that is
//! kept aborts the effect, then inserts its outcome alone.

use std::sync::Arc;
use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use mongodb::options::{Acknowledgment, ReadConcern, TransactionOptions, WriteConcern};
use mongodb::{Client, ClientSession, Collection, Database};
use postern_common::idempotency::{Decided, Kept, Keyed, Ledger, Standing};
use postern_common::{Failure, Reply};
use postern_contract::idempotency::TTL_SECONDS;
use postern_contract::{Code, TenantId, WorkspaceId};

use crate::collections::{self, Room};
use crate::credentials;
use crate::failure::{failure, is_conflict, is_duplicate, is_there_already, is_unknown_commit};
use crate::family::{Mongo, Place};
use crate::read::Session;
use crate::retry::{self, Again, MAYBE_DONE};

/// Where a workspace's records are; clients' collections cannot have the name.
pub(crate) const RECORDS: &str = "postern.record";

/// What a family does in the transaction. It may run more than once, each time in a
/// fresh one.
pub(crate) trait Work:
    for<'s> Fn(&'s mut ClientSession) -> BoxFuture<'s, Result<Reply, Failure>> + Send + Sync + 'static
{
}
impl<F> Work for F where
    F: for<'s> Fn(&'s mut ClientSession) -> BoxFuture<'s, Result<Reply, Failure>>
        + Send
        + Sync
        + 'static
{
}

/// What a mutation needs of its collection.
#[derive(Clone, Debug)]
pub(crate) enum Needs {
    /// Nothing: one that is missing has no documents.
    Nothing,
    /// That it is there.
    There(String),
    /// That it is there, or that the plan has room for one more.
    Room(String),
}

/// A workspace's database. Its name is in lower case: names of databases that differ in
/// case only cannot stand side by side.
pub(crate) fn database(client: &Client, workspace: WorkspaceId) -> Database {
    let id = workspace.to_string().to_ascii_lowercase();
    client.database(&id.replace("wks_", "ws_"))
}

/// The workspace whose database has this name.
pub(crate) fn workspace(database: &str) -> Option<WorkspaceId> {
    let id = database.strip_prefix("ws_")?.to_ascii_uppercase();
    format!("wks_{id}").parse().ok()
}

/// The database of what is ours and no workspace's.
pub(crate) const HOME: &str = "postern";

fn places(client: &Client) -> Collection<Document> {
    let options = mongodb::options::CollectionOptions::builder()
        .write_concern(durable())
        .build();
    client
        .database(HOME)
        .collection_with_options("workspace", options)
}

/// The databases of a tenant's workspaces.
///
/// # Errors
/// The server's.
pub(crate) async fn databases(client: &Client, tenant: &str) -> Result<Vec<String>, Failure> {
    let places = places(client);
    let found: Vec<Document> = places
        .find(doc! { "tenant": tenant })
        .await
        .map_err(failure)?
        .try_collect()
        .await
        .map_err(failure)?;
    let name = |place: &Document| place.get_str("_id").map(str::to_owned).ok();
    Ok(found.iter().filter_map(name).collect())
}

/// Makes what every workspace's database has; can be repeated.
///
/// # Errors
/// The server's.
pub async fn provision(
    client: &Client,
    tenant: TenantId,
    workspace: WorkspaceId,
) -> Result<(), mongodb::error::Error> {
    let database = database(client, workspace);
    let place = doc! { "$set": { "tenant": tenant.to_string() } };
    let by_name = doc! { "_id": database.name() };
    places(client)
        .update_one(by_name, place)
        .upsert(true)
        .await?;
    match database.create_collection(RECORDS).await {
        Err(error) if !is_there_already(&error) => return Err(error),
        _ => {}
    }
    let expiring = mongodb::IndexModel::builder()
        .keys(doc! { "expiresAt": 1 })
        .options(
            mongodb::options::IndexOptions::builder()
                .expire_after(Duration::ZERO)
                .build(),
        )
        .build();
    records(&database).create_index(expiring).await?;
    credentials::provision(client).await
}

/// Destroys a workspace's database; can be repeated.
///
/// # Errors
/// The server's.
pub async fn purge(client: &Client, workspace: WorkspaceId) -> Result<(), mongodb::error::Error> {
    let database = database(client, workspace);
    database
        .run_command(doc! { "dropAllUsersFromDatabase": 1 })
        .await?;
    database
        .run_command(doc! { "dropAllRolesFromDatabase": 1 })
        .await?;
    database.drop().await?;
    places(client)
        .delete_one(doc! { "_id": database.name() })
        .await?;
    Ok(())
}

/// The records of a workspace.
pub(crate) fn records(database: &Database) -> Collection<Document> {
    let options = mongodb::options::CollectionOptions::builder()
        .write_concern(durable())
        .build();
    database.collection_with_options(RECORDS, options)
}

/// On the disks of a majority: what was acknowledged survives any crash.
pub(crate) fn durable() -> WriteConcern {
    WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .build()
}

/// Begins a transaction that is durable once it is committed.
///
/// # Errors
/// The server's.
pub(crate) async fn begin(
    session: &mut ClientSession,
    reads: ReadConcern,
    max_time: Duration,
) -> Result<(), Failure> {
    let options = TransactionOptions::builder()
        .write_concern(durable())
        .read_concern(reads)
        .max_commit_time(max_time)
        .build();
    let begun = session.start_transaction().with_options(options).await;
    begun.map_err(failure)
}

/// A mutation in a workspace's database, at most once a key.
pub(crate) async fn mutate(
    app: &Arc<Mongo>,
    place: &Place,
    keyed: Option<Keyed>,
    correlation_id: &str,
    needs: Needs,
    foreseen: Option<Reply>,
    work: impl Work,
) -> Result<Reply, Failure> {
    let is_keyed = keyed.is_some();
    let attempt = Arc::new(Attempt {
        app: Arc::clone(app),
        place: place.clone(),
        keyed: keyed.clone(),
        correlation_id: correlation_id.to_owned(),
        needs,
        foreseen,
        work: Box::new(work),
    });
    let once = move || -> BoxFuture<'static, Result<Decided, Failure>> {
        let attempt = Arc::clone(&attempt);
        Box::pin(async move { retry::mutation(is_keyed, || attempt.once()).await })
    };
    app.ledger.run_in_store(keyed, once).await
}

struct Attempt {
    app: Arc<Mongo>,
    place: Place,
    keyed: Option<Keyed>,
    correlation_id: String,
    needs: Needs,
    /// The answer if nothing is in the way, where that is known before.
    foreseen: Option<Reply>,
    work: Box<dyn Work>,
}

impl Attempt {
    /// A transaction that is given up in the middle of an operation, because the request's
    /// time is over or the operation's, is ended on the server with its session.
    async fn once(&self) -> Result<Decided, Failure> {
        let mut session = Session::start(&self.app.client).await?;
        let ended = self.transaction(session.open()?).await;
        let given_up = |failure: &Failure| failure.code() == Code::StatementTimeout;
        if !ended.as_ref().is_err_and(given_up) {
            session.done();
        }
        ended
    }

    async fn transaction(&self, session: &mut ClientSession) -> Result<Decided, Failure> {
        let faults = self.app.ledger.faults();
        begin(session, ReadConcern::snapshot(), self.place.max_time).await?;
        let Some(keyed) = &self.keyed else {
            let (reply, room) = self.effect(session).await?;
            self.commit(session, room).await?;
            return Ok(Decided { reply, kept: None });
        };
        faults.at("before-record").await;
        // Nobody sees the outcome before the effect: they commit together.
        let foreseen = match &self.foreseen {
            Some(reply) => Some(self.sealed(keyed, reply).await?),
            None => None,
        };
        let insert = records(&self.place.database)
            .insert_one(record(keyed, foreseen.as_deref()))
            .session(&mut *session)
            .await;
        if let Err(error) = insert {
            // The session's end would do it too, but later.
            drop(session.abort_transaction().await);
            return match error {
                error if is_duplicate(&error) => self.found(keyed).await,
                error if is_conflict(&error) => Err(Ledger::in_progress()),
                error => Err(failure(error)),
            };
        }
        faults.at("after-record").await;
        let (reply, room) = match self.effect(session).await {
            Ok(done) => done,
            Err(refusal) if refusal.is_kept() => return self.refused(keyed, &refusal).await,
            Err(refusal) => return Err(refusal),
        };
        faults.at("after-effect").await;
        let sealed = match foreseen {
            Some(sealed) => sealed,
            None => self.write_outcome(keyed, &reply, session).await?,
        };
        faults.at("before-commit").await;
        self.commit(session, room).await?;
        faults.at("after-commit").await;
        Ok(decided(reply, sealed))
    }

    async fn commit(&self, session: &mut ClientSession, room: Option<Room>) -> Result<(), Failure> {
        commit(session).await?;
        if let Some(room) = room {
            room.taken(&self.app, &self.place).await;
        }
        Ok(())
    }

    async fn write_outcome(
        &self,
        keyed: &Keyed,
        reply: &Reply,
        session: &mut ClientSession,
    ) -> Result<Vec<u8>, Failure> {
        let sealed = self.sealed(keyed, reply).await?;
        let outcome = doc! { "$set": { "outcome": binary(&sealed) } };
        let written = records(&self.place.database)
            .update_one(doc! { "_id": scope(keyed) }, outcome)
            .session(&mut *session)
            .await;
        if let Err(error) = written {
            drop(session.abort_transaction().await);
            return Err(failure(error));
        }
        Ok(sealed)
    }

    /// The family's work; a refusal ends the transaction.
    async fn effect(&self, session: &mut ClientSession) -> Result<(Reply, Option<Room>), Failure> {
        let ended = self.work(session).await;
        match &ended {
            Ok(_) => {}
            // The server still works at it, and would make the abort wait.
            Err(failure) if failure.code() == Code::StatementTimeout => {}
            Err(_) => drop(session.abort_transaction().await),
        }
        ended
    }

    /// Only here it is asked for its collection: a key that was done is told what it did,
    /// whatever became of the collection or the plan.
    async fn work(&self, session: &mut ClientSession) -> Result<(Reply, Option<Room>), Failure> {
        let missing = match &self.needs {
            Needs::Nothing => None,
            Needs::There(name) => {
                self.place.need(name).await?;
                None
            }
            Needs::Room(name) => Some(name),
        };
        let missing = match missing {
            Some(name) if collections::is_missing(&self.app, &self.place, name).await? => {
                Some(name)
            }
            _ => None,
        };
        let reply = (self.work)(session).await?;
        // At the end: who has the tenant's turn has only the commit before it.
        let room = match missing {
            Some(name) => collections::room(&self.app, &self.place, name).await?,
            None => None,
        };
        Ok((reply, room))
    }

    /// A verdict on the data: its outcome stands alone. Who loses the insert answers
    /// as the winner did.
    async fn refused(&self, keyed: &Keyed, refusal: &Failure) -> Result<Decided, Failure> {
        let reply = Reply::refusal(refusal, &self.correlation_id);
        let sealed = self.sealed(keyed, &reply).await?;
        let insert = records(&self.place.database)
            .insert_one(record(keyed, Some(&sealed)))
            .await;
        match insert {
            Ok(_) => Ok(decided(reply, sealed)),
            Err(error) if is_duplicate(&error) => self.found(keyed).await,
            Err(error) => Err(failure(error)),
        }
    }

    /// The key was used before.
    async fn found(&self, keyed: &Keyed) -> Result<Decided, Failure> {
        let records = records(&self.place.database);
        let by_scope = doc! { "_id": scope(keyed) };
        let found = records.find_one(by_scope).await.map_err(failure)?;
        let standing = found.as_ref().map(standing).transpose()?;
        if standing
            .as_ref()
            .is_some_and(|standing| standing.remaining.is_zero())
        {
            // The server removes what expired once a minute only.
            let expired = doc! { "_id": scope(keyed), "expiresAt": { "$lte": DateTime::now() } };
            records.delete_one(expired).await.map_err(failure)?;
        }
        self.app.ledger.replay(keyed, standing)
    }

    /// The outcome as it is kept: without its body where the tenant keeps too much.
    async fn sealed(&self, keyed: &Keyed, reply: &Reply) -> Result<Vec<u8>, Failure> {
        let ledger = &self.app.ledger;
        let sealed = ledger.seal(keyed, reply)?;
        let quota = u64::try_from(ledger.quota()).unwrap_or_default();
        let kept = self.app.kept.of(&self.app.client, self.place.tenant).await;
        Ok(if kept.saturating_add(sealed.whole.len() as u64) <= quota {
            sealed.whole
        } else {
            sealed.without_body
        })
    }
}

/// Commits, again where it is not known whether it did.
///
/// # Errors
/// The server's; 504 where the outcome stays unknown.
pub(crate) async fn commit(session: &mut ClientSession) -> Result<(), Failure> {
    let mut again = Again::new();
    loop {
        match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            // To commit again what is committed does nothing.
            Err(error) if is_unknown_commit(&error) && again.wait().await => {
                tracing::warn!(%error, "a commit is repeated");
            }
            Err(error) if is_unknown_commit(&error) => {
                tracing::error!(%error, "a commit's outcome is not known");
                let message = "whether the request took effect is not known; retry it with the same Idempotency-Key";
                return Err(Failure::new(Code::BackendUnavailable, message).with_status(MAYBE_DONE));
            }
            Err(error) => return Err(failure(error)),
        }
    }
}

fn decided(reply: Reply, sealed: Vec<u8>) -> Decided {
    let remaining = Duration::from_secs(TTL_SECONDS);
    Decided {
        reply,
        kept: Some(Kept { sealed, remaining }),
    }
}

pub(crate) fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    })
}

fn scope(keyed: &Keyed) -> Bson {
    binary(&keyed.scope)
}

/// When a record of now is removed.
pub(crate) fn expires_at() -> DateTime {
    let now = DateTime::now().timestamp_millis();
    let ttl = i64::try_from(TTL_SECONDS * 1_000).unwrap_or(i64::MAX);
    DateTime::from_millis(now.saturating_add(ttl))
}

fn record(keyed: &Keyed, sealed: Option<&[u8]>) -> Document {
    let mut record = doc! {
        "_id": scope(keyed),
        "fingerprint": binary(&keyed.fingerprint),
        "expiresAt": expires_at(),
    };
    if let Some(sealed) = sealed {
        record.insert("outcome", binary(sealed));
    }
    record
}

fn standing(record: &Document) -> Result<Standing, Failure> {
    let fingerprint = record
        .get_binary_generic("fingerprint")
        .map_err(Failure::internal)?;
    let expires_at = record
        .get_datetime("expiresAt")
        .map_err(Failure::internal)?;
    let left = expires_at.timestamp_millis() - DateTime::now().timestamp_millis();
    Ok(Standing {
        fingerprint: fingerprint.clone(),
        outcome: record.get_binary_generic("outcome").ok().cloned(),
        remaining: Duration::from_millis(u64::try_from(left).unwrap_or_default()),
    })
}
