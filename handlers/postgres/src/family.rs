//! The family's state and routes, and what every route does alike: the session, the
//! catalog, another try when the catalog was a moment old.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::RETRY_AFTER;
use postern_common::idempotency::{Decided, Keyed, Ledger};
use postern_common::page::CursorKeys;
use postern_common::{Call, Failure, Reply, Router, no_workspace};
use postern_contract::{Code, TenantId};
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::catalog::{Catalog, Catalogs, Live, Table};
use crate::cluster::Follow;
use crate::errors::{Doing, Fault};
use crate::execute::{self, Bounds, Change, Changed, Database, Session, Undecided, Work};
use crate::plan::{Planner, Unplanned};
use crate::{rows, rpc, tables};

/// What a tenant's plan allows, and where its use is written.
pub trait Quotas: Send + Sync {
    /// How many tables a tenant may have; none: no limit.
    fn tables(&self, tenant: TenantId) -> BoxFuture<'_, Result<Option<i64>, Failure>>;
    /// A tenant has so many tables now.
    fn used(&self, tenant: TenantId, tables: i64) -> BoxFuture<'_, ()>;
}

/// The state behind the routes.
pub struct Postgres {
    pub(crate) db: Database,
    pub(crate) catalogs: Catalogs,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) cursors: CursorKeys,
    pub(crate) quotas: Arc<dyn Quotas>,
}

/// How often a request is planned, while the schema changes under it: each time it did.
const PLANS: u32 = 20;
/// What one sweep may take.
const SWEEPING: Duration = Duration::from_secs(60);

/// A mutation that can be carried out.
pub(crate) struct Planned {
    /// What is done.
    pub(crate) work: Work,
    /// On which table, for messages.
    pub(crate) table: Option<Arc<Table>>,
    /// Whether rows are removed.
    pub(crate) removes: bool,
    /// The answer of what it gave.
    pub(crate) answer: Answer,
}

/// Makes the answer of what a mutation gave, or refuses it.
pub(crate) type Answer = Box<dyn Fn(Changed) -> Result<Reply, Failure> + Send + Sync>;

/// Why a read gave nothing.
pub(crate) enum Stop {
    Unplanned(Unplanned),
    Fault(Fault, Option<Arc<Table>>),
}

impl From<Unplanned> for Stop {
    fn from(why: Unplanned) -> Self {
        Self::Unplanned(why)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Fault(failure.into(), None)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault, None)
    }
}

impl Stop {
    fn may_be_stale(&self) -> bool {
        match self {
            Self::Unplanned(_) => true,
            Self::Fault(fault, _) => fault.smells_of_change(),
        }
    }

    fn told(self) -> Failure {
        match self {
            Self::Unplanned(why) => why.into(),
            Self::Fault(fault, table) => fault.told(Doing {
                table: table.as_deref(),
                ..Doing::default()
            }),
        }
    }
}

impl Postgres {
    /// The family over a data cluster, whose login role is a member of its workspaces'
    /// roles and of nothing else. No connection is made yet.
    ///
    /// # Errors
    /// The pool cannot be made of these bounds.
    pub fn new(
        address: Address,
        bounds: Bounds,
        ledger: Arc<Ledger>,
        cursors: CursorKeys,
        quotas: Arc<dyn Quotas>,
    ) -> Result<Self, Failure> {
        let db = Database::new(address, bounds).map_err(|fault| fault.told(Doing::default()))?;
        Ok(Self {
            db,
            catalogs: Catalogs::new(),
            ledger,
            cursors,
            quotas,
        })
    }

    /// Every route of the family, on one screen.
    #[must_use]
    pub fn router(self: &Arc<Self>) -> Router {
        Router::default()
            .route("postgres.rows.list", self, rows::list)
            .route("postgres.rows.insert", self, rows::insert)
            .route("postgres.rows.update", self, rows::update)
            .route("postgres.rows.delete", self, rows::delete)
            .route("postgres.row.get", self, rows::get)
            .route("postgres.row.update", self, rows::update_one)
            .route("postgres.row.delete", self, rows::delete_one)
            .route("postgres.tables.list", self, tables::list)
            .route("postgres.tables.create", self, tables::create)
            .route("postgres.tables.get", self, tables::get)
            .route("postgres.tables.alter", self, tables::alter)
            .route("postgres.tables.drop", self, tables::drop_table)
            .route("postgres.rpc", self, rpc::call)
    }

    /// Follows changes of schemas, until `stop`: told over `direct`, a connection that no
    /// pooler stands in; else, and while it is away, by looking.
    pub async fn follow(&self, direct: Option<Address>, every: Duration, stop: CancellationToken) {
        let follow = Follow {
            db: &self.db,
            catalogs: &self.catalogs,
            every,
        };
        stop.run_until_cancelled(follow.run(direct)).await;
    }

    /// Removes expired records, `every` so often, until `stop`.
    pub async fn sweep(&self, every: Duration, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            self.db.measure();
            let swept = async {
                let lease = self.db.lease_for_upkeep().await?;
                while execute::sweep(lease.client()).await? {}
                lease.settle();
                Ok::<_, Fault>(())
            };
            match tokio::time::timeout(SWEEPING, swept).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no records were swept"),
                Err(_) => tracing::warn!("records are left to the next sweep: time is up"),
            }
        }
    }

    /// Whose request it is.
    pub(crate) fn session(&self, call: &Call) -> Result<Session, Failure> {
        let (tenant, workspace) = call.workspace()?;
        Ok(Session::new(tenant, workspace, call.caller.subject()))
    }

    /// A planner over this catalog.
    pub(crate) fn planner<'c>(&self, catalog: &'c Catalog) -> Planner<'c> {
        Planner {
            catalog,
            max_rows: self.db.bounds.max_rows,
        }
    }

    /// The workspace's catalog.
    pub(crate) async fn catalog(&self, session: &Session) -> Result<Live, Failure> {
        let live = self
            .catalogs
            .get(&self.db, session)
            .await
            .map_err(|fault| fault.told(Doing::default()))?;
        // The runner has judged whose the workspace is; here it is written beside the data.
        let tenant = session.tenant.to_string();
        if live.catalog.tenant.as_ref().is_some_and(|of| *of != tenant) {
            return Err(no_workspace(&session.workspace.to_string()));
        }
        if live.catalog.exists() {
            Ok(live)
        } else {
            Err(Failure::new(
                Code::WorkspaceProvisioning,
                "the workspace's database is being made; retry in a moment",
            )
            .with_header(RETRY_AFTER, "1"))
        }
    }

    /// Reads with the catalog, and again if that was old.
    pub(crate) async fn reading<T, R: Future<Output = Result<T, Stop>> + Send>(
        &self,
        session: &Session,
        read: impl Fn(Arc<Catalog>) -> R + Send,
    ) -> Result<T, Failure> {
        let mut live = self.catalog(session).await?;
        let mut tries = 0;
        loop {
            let stop = match read(Arc::clone(&live.catalog)).await {
                Ok(done) => return Ok(done),
                Err(stop) => stop,
            };
            let sure = matches!(&stop, Stop::Fault(fault, _) if fault.misses_a_name());
            tries += 1;
            match stop.may_be_stale() && tries < PLANS {
                true => match self.newer(session, &live, sure).await {
                    Some(new) => live = new,
                    None => return Err(stop.told()),
                },
                false => return Err(stop.told()),
            }
        }
    }

    async fn newer(&self, session: &Session, old: &Live, sure: bool) -> Option<Live> {
        let newer = self.catalogs.suspect(&self.db, session, old, sure).await;
        newer.unwrap_or_else(|error| {
            tracing::warn!(%error, "a schema could not be read again");
            None
        })
    }

    /// Carries out a mutation at most once a key, in a task that outlives the client.
    pub(crate) async fn mutate(
        self: &Arc<Self>,
        call: &Call,
        session: Session,
        body: &[u8],
        plan: impl Fn(&Catalog) -> Result<Planned, Unplanned> + Send + Sync + 'static,
    ) -> Result<Reply, Failure> {
        let keyed = call.keyed(body)?;
        let mutation = Arc::new(Mutation {
            app: Arc::clone(self),
            session,
            keyed: keyed.clone(),
            correlation_id: call.caller.correlation_id().to_owned(),
            plan,
        });
        self.ledger
            .run_in_store(keyed, move || {
                let mutation = Arc::clone(&mutation);
                Box::pin(async move { mutation.attempt().await })
            })
            .await
    }
}

struct Mutation<P> {
    app: Arc<Postgres>,
    session: Session,
    keyed: Option<Keyed>,
    correlation_id: String,
    plan: P,
}

impl<P: Fn(&Catalog) -> Result<Planned, Unplanned>> Mutation<P> {
    async fn attempt(&self) -> Result<Decided, Failure> {
        let app = &self.app;
        let mut live = app.catalog(&self.session).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let again = tries < PLANS;
            let planned = match (self.plan)(&live.catalog) {
                Ok(planned) => planned,
                Err(why) => {
                    if again && let Some(new) = app.newer(&self.session, &live, false).await {
                        live = new;
                        continue;
                    }
                    refused(why.into())
                }
            };
            let change = Change {
                ledger: &app.ledger,
                keyed: self.keyed.as_ref(),
                session: &self.session,
                correlation_id: &self.correlation_id,
            };
            let doing = Doing {
                table: planned.table.as_deref(),
                removes: planned.removes,
                defines: matches!(planned.work, Work::Tables { .. }),
            };
            match app
                .db
                .change(&change, planned.work, doing, &planned.answer)
                .await
            {
                Ok(decided) => return Ok(decided),
                Err(Undecided::Failed(failure)) => return Err(failure),
                Err(Undecided::Stale(fault)) => {
                    let sure = fault.misses_a_name();
                    if again && let Some(new) = app.newer(&self.session, &live, sure).await {
                        live = new;
                        continue;
                    }
                    return Err(fault.told(doing));
                }
            }
        }
    }
}

/// What cannot be planned is refused behind the record: a key that was used replays its
/// answer all the same.
fn refused(failure: Failure) -> Planned {
    Planned {
        work: Work::Refused(failure),
        table: None,
        removes: false,
        answer: Box::new(|_| Err(Failure::internal("there was nothing to answer"))),
    }
}
