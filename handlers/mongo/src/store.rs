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
//! The insert comes first: who comes second with the same key meets a write conflict
//! while the first works, and a duplicate once it has committed. A refusal that is
//! kept aborts the effect, then inserts its outcome alone.

use std::sync::Arc;
use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use moka::future::Cache;
use mongodb::options::{Acknowledgment, ReadConcern, TransactionOptions, WriteConcern};
use mongodb::{Client, ClientSession, Collection, Database};
use postern_common::idempotency::{Decided, Kept, Keyed, Ledger, Standing};
use postern_common::{Failure, Reply};
use postern_contract::idempotency::TTL_SECONDS;
use postern_contract::{Code, TenantId, WorkspaceId};

use crate::failure::{failure, is_conflict, is_duplicate, is_there_already, is_unknown_commit};
use crate::family::Place;
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

/// A workspace's database. Its name is in lower case: names of databases that differ in
/// case only cannot stand side by side.
pub(crate) fn database(client: &Client, workspace: WorkspaceId) -> Database {
    let id = workspace.to_string().to_ascii_lowercase();
    client.database(&id.replace("wks_", "ws_"))
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
    Ok(())
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

fn records(database: &Database) -> Collection<Document> {
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

fn options(max_time: Duration) -> TransactionOptions {
    TransactionOptions::builder()
        .write_concern(durable())
        .read_concern(ReadConcern::snapshot())
        .max_commit_time(max_time)
        .build()
}

/// A mutation in a workspace's database, at most once a key.
pub(crate) async fn mutate(
    ledger: &Arc<Ledger>,
    kept: &KeptBytes,
    place: &Place,
    keyed: Option<Keyed>,
    correlation_id: &str,
    foreseen: Option<Reply>,
    work: impl Work,
) -> Result<Reply, Failure> {
    let is_keyed = keyed.is_some();
    let attempt = Arc::new(Attempt {
        ledger: Arc::clone(ledger),
        kept: kept.clone(),
        database: place.database.clone(),
        max_time: place.max_time,
        keyed: keyed.clone(),
        correlation_id: correlation_id.to_owned(),
        foreseen,
        work: Box::new(work),
    });
    let once = move || -> BoxFuture<'static, Result<Decided, Failure>> {
        let attempt = Arc::clone(&attempt);
        Box::pin(async move { retry::mutation(is_keyed, || attempt.once()).await })
    };
    ledger.run_in_store(keyed, once).await
}

struct Attempt {
    ledger: Arc<Ledger>,
    kept: KeptBytes,
    database: Database,
    max_time: Duration,
    keyed: Option<Keyed>,
    correlation_id: String,
    /// The answer if nothing is in the way, where that is known before.
    foreseen: Option<Reply>,
    work: Box<dyn Work>,
}

impl Attempt {
    /// A transaction that is given up in the middle of an operation, because the request's
    /// time is over or the operation's, is ended on the server with its session.
    async fn once(&self) -> Result<Decided, Failure> {
        let mut session = Session::start(self.database.client()).await?;
        let ended = self.transaction(session.open()?).await;
        let given_up = |failure: &Failure| failure.code() == Code::StatementTimeout;
        if !ended.as_ref().is_err_and(given_up) {
            session.done();
        }
        ended
    }

    async fn transaction(&self, session: &mut ClientSession) -> Result<Decided, Failure> {
        let faults = self.ledger.faults();
        session
            .start_transaction()
            .with_options(options(self.max_time))
            .await
            .map_err(failure)?;
        let Some(keyed) = &self.keyed else {
            let reply = self.effect(session).await?;
            commit(session).await?;
            return Ok(Decided { reply, kept: None });
        };
        faults.at("before-record").await;
        // Nobody sees the outcome before the effect: they commit together.
        let foreseen = match &self.foreseen {
            Some(reply) => Some(self.sealed(keyed, reply).await?),
            None => None,
        };
        let insert = records(&self.database)
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
        let reply = match self.effect(session).await {
            Ok(reply) => reply,
            Err(refusal) if refusal.is_kept() => return self.refused(keyed, &refusal).await,
            Err(refusal) => return Err(refusal),
        };
        faults.at("after-effect").await;
        let sealed = match foreseen {
            Some(sealed) => sealed,
            None => self.write_outcome(keyed, &reply, session).await?,
        };
        faults.at("before-commit").await;
        commit(session).await?;
        faults.at("after-commit").await;
        Ok(decided(reply, sealed))
    }

    async fn write_outcome(
        &self,
        keyed: &Keyed,
        reply: &Reply,
        session: &mut ClientSession,
    ) -> Result<Vec<u8>, Failure> {
        let sealed = self.sealed(keyed, reply).await?;
        let outcome = doc! { "$set": { "outcome": binary(&sealed) } };
        let written = records(&self.database)
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
    async fn effect(&self, session: &mut ClientSession) -> Result<Reply, Failure> {
        let ended = (self.work)(session).await;
        match &ended {
            Ok(_) => {}
            // The server still works at it, and would make the abort wait.
            Err(failure) if failure.code() == Code::StatementTimeout => {}
            Err(_) => drop(session.abort_transaction().await),
        }
        ended
    }

    /// A verdict on the data: its outcome stands alone. Who loses the insert answers
    /// as the winner did.
    async fn refused(&self, keyed: &Keyed, refusal: &Failure) -> Result<Decided, Failure> {
        let reply = Reply::refusal(refusal, &self.correlation_id);
        let sealed = self.sealed(keyed, &reply).await?;
        let insert = records(&self.database)
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
        let records = records(&self.database);
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
        self.ledger.replay(keyed, standing)
    }

    /// The outcome as it is kept: without its body where the workspace keeps too much.
    async fn sealed(&self, keyed: &Keyed, reply: &Reply) -> Result<Vec<u8>, Failure> {
        let sealed = self.ledger.seal(keyed, reply)?;
        let quota = u64::try_from(self.ledger.quota()).unwrap_or_default();
        let kept = self.kept.of(&self.database).await;
        Ok(if kept.saturating_add(sealed.whole.len() as u64) <= quota {
            sealed.whole
        } else {
            sealed.without_body
        })
    }
}

/// Collections that were there a moment ago, so that not every insert asks for its own.
#[derive(Clone)]
pub(crate) struct Known(Cache<(String, String), ()>);

/// A collection that is dropped through other handlers is taken to be there for so long;
/// an insert then makes it again.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Collections remembered.
const KNOWN: u64 = 100_000;

impl Known {
    pub(crate) fn new() -> Self {
        let cache = Cache::builder().max_capacity(KNOWN).time_to_live(KNOWN_FOR);
        Self(cache.build())
    }

    fn key(database: &Database, name: &str) -> (String, String) {
        (database.name().to_owned(), name.to_owned())
    }

    pub(crate) fn holds(&self, database: &Database, name: &str) -> bool {
        self.0.contains_key(&Self::key(database, name))
    }

    pub(crate) async fn add(&self, database: &Database, name: &str) {
        self.0.insert(Self::key(database, name), ()).await;
    }

    pub(crate) async fn remove(&self, database: &Database, name: &str) {
        self.0.invalidate(&Self::key(database, name)).await;
    }
}

/// How many bytes of records each workspace keeps, as the server counted them a moment
/// ago: asked for once in a while, not with every write.
#[derive(Clone)]
pub(crate) struct KeptBytes(Cache<String, u64>);

/// A tenant may be over its quota by what it writes in this time.
const COUNTED_FOR: Duration = Duration::from_secs(5);
/// Workspaces remembered.
const COUNTED: u64 = 10_000;

impl KeptBytes {
    pub(crate) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(COUNTED)
            .time_to_live(COUNTED_FOR);
        Self(cache.build())
    }

    /// 0 where the server does not say.
    async fn of(&self, database: &Database) -> u64 {
        let count = async {
            let stats = database.run_command(doc! { "collStats": RECORDS }).await;
            let size = stats.ok().and_then(|stats| match stats.get("size") {
                Some(Bson::Int32(size)) => u64::try_from(*size).ok(),
                Some(Bson::Int64(size)) => u64::try_from(*size).ok(),
                Some(Bson::Double(size)) => Some(*size as u64),
                _ => None,
            });
            size.unwrap_or_default()
        };
        self.0.get_with_by_ref(database.name(), count).await
    }
}

async fn commit(session: &mut ClientSession) -> Result<(), Failure> {
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

fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    })
}

fn scope(keyed: &Keyed) -> Bson {
    binary(&keyed.scope)
}

fn record(keyed: &Keyed, sealed: Option<&[u8]>) -> Document {
    let now = DateTime::now().timestamp_millis();
    let ttl = i64::try_from(TTL_SECONDS * 1_000).unwrap_or(i64::MAX);
    let mut record = doc! {
        "_id": scope(keyed),
        "fingerprint": binary(&keyed.fingerprint),
        "expiresAt": DateTime::from_millis(now.saturating_add(ttl)),
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
