//! A mutation: two flights, record and effect in one transaction.
//!
//! ```text
//! 1  begin → plain INSERT of the record → savepoint → role and settings → statement
//!    → SET CONSTRAINTS ALL IMMEDIATE
//! 2  back to our role → outcome into the record → commit
//!    (a refusal by the data: back to the savepoint → outcome → commit)
//! ```
//! A duplicate of the record fails, and everything behind it in the flight with it.

use futures::join;
use postern_common::idempotency::{Decided, Kept, Keyed, Ledger};
use postern_common::{Failure, Reply};
use postern_contract::idempotency::TTL_SECONDS;
use postern_contract::{Code, TenantId};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::session::{Role, Session};
use super::{Database, Rows, first_of, records, run};
use crate::catalog::{Catalog, load};
use crate::errors::{Doing, Fault};
use crate::sql::Sql;

/// How long the INSERT of a record waits for another transaction with the same key.
const RECORD_WAIT: &str = "100ms";

/// Who changes something, and how it is kept.
pub(crate) struct Change<'a> {
    /// The records' keys and bounds.
    pub(crate) ledger: &'a Ledger,
    /// The record; none: the request had no key.
    pub(crate) keyed: Option<&'a Keyed>,
    /// Whose it is.
    pub(crate) session: &'a Session,
    /// For the envelope of a kept refusal.
    pub(crate) correlation_id: &'a str,
}

/// What is to be done behind the savepoint.
#[derive(Debug)]
pub(crate) enum Work {
    /// A statement on rows, and one beside it that tells more of what it found.
    Rows(Box<Sql>, Option<Sql>),
    /// Definitions, as the owner of the tables; a plan's quota of tables before it.
    Tables {
        /// The statements.
        definitions: String,
        /// How many tables the tenant may have, where this makes one more.
        quota: Option<i64>,
    },
    /// Nothing: the data needs no asking.
    Refused(Failure),
}

/// What the work gave.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// The statement's rows.
    pub(crate) rows: Rows,
    /// Those of the one beside it.
    pub(crate) beside: Rows,
    /// The schema after definitions.
    pub(crate) catalog: Option<Catalog>,
}

/// Why an attempt did not decide anything.
pub(crate) enum Undecided {
    /// For good, or until the next attempt.
    Failed(Failure),
    /// The schema may have changed since it was read.
    Stale(Fault),
}

impl From<Failure> for Undecided {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Database {
    /// One attempt. `answer` makes the reply of what the work gave, or refuses it.
    pub(crate) async fn change(
        &self,
        change: &Change<'_>,
        work: Work,
        doing: Doing<'_>,
        answer: &(dyn Fn(Changed) -> Result<Reply, Failure> + Send + Sync),
    ) -> Result<Decided, Undecided> {
        let told = |fault: Fault| Undecided::Failed(fault.told(doing));
        change.ledger.faults().at("before-record").await;
        let lease = self.lease(change.session.tenant).await.map_err(told)?;
        let client = lease.client();
        let worked = match work {
            Work::Refused(failure) => {
                let (begun, recorded) = join!(self.begin(client, change), record(client, change));
                match first_of([begun.err(), recorded.err()]) {
                    Some(fault) => Err(fault),
                    None => client
                        .batch_execute("SAVEPOINT work")
                        .await
                        .map(|()| Err(failure))
                        .map_err(Fault::from),
                }
            }
            Work::Rows(main, beside) => self
                .rows(client, change, &main, beside.as_ref())
                .await
                .map(Ok),
            Work::Tables { definitions, quota } => {
                self.tables(client, change, &definitions, quota).await
            }
        };
        let refused = match worked {
            Ok(Ok(changed)) => {
                if changed.rows.are_long() {
                    lease.has_grown();
                }
                change.ledger.faults().at("after-effect").await;
                match answer(changed) {
                    Ok(reply) => return self.end(lease, change, Ok(reply)).await,
                    Err(failure) => failure,
                }
            }
            Ok(Err(failure)) => failure,
            Err(fault) if is_duplicate_record(&fault, change) => {
                return self.replay(lease, change).await;
            }
            Err(Fault::TooLarge(bound)) => {
                lease.has_grown();
                return Err(told(Fault::TooLarge(bound)));
            }
            Err(fault) if fault.state() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                // The record's, or a row's: the record's INSERT is the only one so impatient.
                roll_back(&lease).await;
                return Err(match record_stands(&fault) {
                    true => Undecided::Failed(Ledger::in_progress()),
                    false => told(fault),
                });
            }
            Err(fault) if fault.smells_of_change() => {
                roll_back(&lease).await;
                return Err(Undecided::Stale(fault));
            }
            Err(fault) => fault.told(doing),
        };
        if refused.is_kept() {
            return self.end(lease, change, Err(refused)).await;
        }
        roll_back(&lease).await;
        Err(Undecided::Failed(refused))
    }

    async fn begin(&self, client: &Client, change: &Change<'_>) -> Result<(), Fault> {
        let statement = self.bounds.statement.as_millis();
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = '{statement}ms'; \
             SET LOCAL idle_in_transaction_session_timeout = '{}ms'; SET LOCAL lock_timeout = '{RECORD_WAIT}'",
            change.ledger.deadline().as_millis()
        );
        Ok(client.batch_execute(&begin).await?)
    }

    fn savepoint(&self) -> String {
        let statement = self.bounds.statement.as_millis();
        format!("SET LOCAL lock_timeout = '{statement}ms'; SAVEPOINT work")
    }

    /// The first flight.
    async fn rows(
        &self,
        client: &Client,
        change: &Change<'_>,
        main: &Sql,
        beside: Option<&Sql>,
    ) -> Result<Changed, Fault> {
        let savepoint = self.savepoint();
        let beside = async {
            match beside {
                Some(sql) => run(client, sql, self.bounds.max_answer).await,
                None => Ok(Rows::default()),
            }
        };
        // In this order: each is sent when it is first polled.
        let (begun, recorded, saved, entered, main, beside, checked) = join!(
            self.begin(client, change),
            record(client, change),
            client.batch_execute(&savepoint),
            change
                .session
                .enter(client, Role::Data, self.bounds.statement),
            run(client, main, self.bounds.max_answer),
            beside,
            client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE"),
        );
        match (main, beside) {
            (Ok(rows), Ok(beside))
                if begun.is_ok()
                    && recorded.is_ok()
                    && saved.is_ok()
                    && entered.is_ok()
                    && checked.is_ok() =>
            {
                Ok(Changed {
                    rows,
                    beside,
                    catalog: None,
                })
            }
            (main, beside) => {
                let faults = [
                    begun.err(),
                    recorded.err(),
                    saved.err().map(Fault::from),
                    entered.err().map(Fault::from),
                    main.err(),
                    beside.err(),
                    checked.err().map(Fault::from),
                ];
                Err(first_of(faults).unwrap_or_else(|| Fault::internal("a flight failed")))
            }
        }
    }

    /// Definitions: not so many that flights matter.
    async fn tables(
        &self,
        client: &Client,
        change: &Change<'_>,
        definitions: &str,
        quota: Option<i64>,
    ) -> Result<Result<Changed, Failure>, Fault> {
        self.begin(client, change).await?;
        record(client, change).await?;
        let (used, limit) = match quota {
            Some(limit) => (
                records::tables_of(client, change.session.tenant).await?,
                limit,
            ),
            None => (0, i64::MAX),
        };
        client.batch_execute(&self.savepoint()).await?;
        if used >= limit {
            return Ok(Err(Failure::new(
                Code::QuotaExceeded,
                format!("the plan has {limit} tables and {used} are in use"),
            )));
        }
        let statement = self.bounds.statement;
        change.session.enter(client, Role::Owner, statement).await?;
        client.batch_execute(definitions).await?;
        client
            .batch_execute("SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE NONE")
            .await?;
        let session = change.session;
        let catalog = load(client, &session.schema, &session.role(Role::Data)).await?;
        Ok(Ok(Changed {
            catalog: Some(catalog),
            ..Changed::default()
        }))
    }

    /// How many tables a tenant has.
    pub(crate) async fn tables_of(&self, tenant: TenantId) -> Result<i64, Fault> {
        let lease = self.lease(tenant).await?;
        let counting = records::tables_of(lease.client(), tenant);
        let counted = tokio::time::timeout(self.bounds.statement, counting).await;
        let tables = counted.map_err(|_| Fault::Away("tables are counted for too long".into()))?;
        lease.settle();
        Ok(tables?)
    }

    /// The second flight.
    async fn end(
        &self,
        lease: super::pool::Lease,
        change: &Change<'_>,
        ended: Result<Reply, Failure>,
    ) -> Result<Decided, Undecided> {
        let told = |fault: Fault| Undecided::Failed(fault.told(Doing::default()));
        let client = lease.client();
        let (back, reply) = match ended {
            Ok(reply) => ("SET LOCAL ROLE NONE", reply),
            Err(failure) => (
                "ROLLBACK TO SAVEPOINT work",
                Reply::refusal(&failure, change.correlation_id),
            ),
        };
        let sealed = match change.keyed {
            Some(keyed) => Some((keyed, change.ledger.seal(keyed, &reply)?)),
            None => None,
        };
        change.ledger.faults().at("before-commit").await;
        let finish = async {
            match &sealed {
                Some((keyed, sealed)) => {
                    records::finish(client, keyed, sealed, change.ledger.quota()).await
                }
                None => Ok(true),
            }
        };
        let (back, finished, committed) = join!(
            client.batch_execute(back),
            finish,
            client.batch_execute("COMMIT")
        );
        if committed.is_ok() {
            lease.settle();
        }
        // What is behind a failure was rolled back, whatever COMMIT says.
        let whole = match (back, finished, committed) {
            (Ok(()), Ok(whole), Ok(())) => whole,
            (back, finished, committed) => {
                let faults = [back.err(), finished.err(), committed.err()];
                let fault = first_of(faults.map(|error| error.map(Fault::from)));
                return Err(told(
                    fault.unwrap_or_else(|| Fault::internal("a commit failed")),
                ));
            }
        };
        change.ledger.faults().at("after-commit").await;
        let kept = sealed.map(|(_, sealed)| Kept {
            sealed: if whole {
                sealed.whole
            } else {
                sealed.without_body
            },
            remaining: std::time::Duration::from_secs(TTL_SECONDS),
        });
        Ok(Decided { reply, kept })
    }

    /// The key has been used.
    async fn replay(
        &self,
        lease: super::pool::Lease,
        change: &Change<'_>,
    ) -> Result<Decided, Undecided> {
        let told = |fault: Fault| Undecided::Failed(fault.told(Doing::default()));
        let Some(keyed) = change.keyed else {
            return Err(told(Fault::internal("a record without a key")));
        };
        let client = lease.client();
        client
            .batch_execute("ROLLBACK")
            .await
            .map_err(|error| told(error.into()))?;
        let standing = records::find(client, keyed)
            .await
            .map_err(|error| told(error.into()))?;
        lease.settle();
        Ok(change.ledger.replay(keyed, standing)?)
    }
}

async fn record(client: &Client, change: &Change<'_>) -> Result<(), Fault> {
    match change.keyed {
        Some(keyed) => {
            let inserted = records::insert(client, keyed).await;
            inserted.map_err(|error| Fault::Recorded(Box::new(error.into())))
        }
        None => Ok(()),
    }
}

/// Ends the transaction; where that fails the connection is cleaned or closed.
async fn roll_back(lease: &super::pool::Lease) {
    if lease.client().batch_execute("ROLLBACK").await.is_ok() {
        lease.settle();
    }
}

fn record_stands(fault: &Fault) -> bool {
    matches!(fault, Fault::Recorded(_))
}

fn is_duplicate_record(fault: &Fault, change: &Change<'_>) -> bool {
    change.keyed.is_some()
        && record_stands(fault)
        && fault.state() == Some(&SqlState::UNIQUE_VIOLATION)
}
