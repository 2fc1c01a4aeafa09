//! The claim store: one value for both kinds, with bounded waits.
//!
//! ```text
//! call → breaker (is the store worth asking?) → time-out → PostgreSQL or Redis, one round trip
//! ```
//!
//! Both kinds mean the same by claim, extend, done and release; one suite runs over
//! both. A store that does not answer is asked by one caller a second until it does
//! again; the others are told at once.

mod breaker;
mod postgres;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use postern_postgres_url::complaint;
use postern_redis::{Authority, Servers};
use sqlx::postgres::PgPool;

use breaker::Breaker;
use postgres::Postgres;
use redis::Redis;

/// What makes the store's schema in `PostgreSQL`; run by the control plane's
/// migrations. Redis needs none.
pub const SCHEMA: &str = include_str!("../schema.sql");

/// How long a claim runs before it lapses, unless its handler extends it.
pub const LEASE: Duration = Duration::from_secs(5);

/// Who holds a claim: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub [u8; 16]);

impl Holder {
    /// A holder that nobody else is.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn random() -> Result<Self, ClaimError> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ClaimError::NoRandomness)?;
        Ok(Self(bytes))
    }
}

/// What became of an attempt to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Claimed for [`LEASE`]: go on.
    New(Holder),
    /// Somebody else's, whatever the payload.
    Running,
    /// Finished.
    Done {
        /// Of the request that finished it.
        fingerprint: [u8; 32],
        /// Sealed; none where it was too large to copy: let the request go on, the record has it.
        outcome: Option<Vec<u8>>,
    },
}

/// Why the store gave no answer. The caller goes on without a claim, or refuses.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The connection broke, or `PostgreSQL` refused.
    #[error("the claim store failed: {}", told(.0))]
    Postgres(#[from] sqlx::Error),
    /// The connection broke, or Redis refused.
    #[error("the claim store failed: {0}")]
    Redis(#[from] ::redis::RedisError),
    /// It took longer than this.
    #[error("the claim store did not answer within {0:?}")]
    Slow(Duration),
    /// It did not answer others just now.
    #[error("the claim store is down and was not asked")]
    Down,
    /// The system gave none.
    #[error("no randomness from the system")]
    NoRandomness,
}

fn told(error: &sqlx::Error) -> String {
    complaint(error).unwrap_or_else(|| error.to_string())
}

/// Why a URL names no claim store. Never shows the URL: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// No form of ours.
    #[error(
        "is none of postgres://USER:PASSWORD@HOST/DATABASE, redis://HOST:PORT, rediss://, redis-cluster://HOST:PORT,HOST:PORT and rediss-cluster://"
    )]
    Form,
    /// A `PostgreSQL` that cannot be spoken to as it says.
    #[error(transparent)]
    Postgres(#[from] postern_postgres_url::UrlError),
    /// Whoever names one means that it counts.
    #[error(
        "authority is for rediss…: who vouches for a PostgreSQL is sslrootcert=FILE of its URL"
    )]
    Authority,
}

/// The claims of one deployment. Clones share connections and the breaker.
#[derive(Clone, Debug)]
pub struct ClaimStore(Arc<Guarded>);

#[derive(Debug)]
struct Guarded {
    store: Store,
    breaker: Breaker,
    patience: Duration,
}

/// The kinds of stores there are.
#[derive(Debug)]
enum Store {
    Postgres(Postgres),
    Redis(Box<Redis>),
}

impl ClaimStore {
    /// As [`Self::connect_trusting`], over TLS with whom the system trusts.
    ///
    /// # Errors
    /// As there.
    pub fn connect(url: &str, connections: u32, patience: Duration) -> Result<Self, UrlError> {
        Self::connect_trusting(url, None, connections, patience)
    }

    /// The store that a URL names, by its scheme: `postgres://` or `postgresql://`, or
    /// one of [`postern_redis`]'s, for whose certificate `authority` vouches. It is
    /// connected to when it is first asked; no call takes longer than `patience`. At most
    /// `connections` to `PostgreSQL`; Redis takes one, shared by all calls. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the URL is none of these, or its TLS cannot be had.
    pub fn connect_trusting(
        url: &str,
        authority: Option<&Authority>,
        connections: u32,
        patience: Duration,
    ) -> Result<Self, UrlError> {
        let scheme = url.split_once("://").ok_or(UrlError::Form)?.0;
        let store = match scheme {
            "postgres" | "postgresql" if authority.is_some() => return Err(UrlError::Authority),
            "postgres" | "postgresql" => {
                Store::Postgres(Postgres::connect(url, connections, patience)?)
            }
            _ => {
                let servers = Servers::new(url, authority, patience).map_err(|_| UrlError::Form)?;
                Store::Redis(Box::new(Redis::new(servers)))
            }
        };
        Ok(Self::guarded(store, patience))
    }

    /// A store in a database that is used for other things, too.
    #[must_use]
    pub fn over(pool: PgPool, patience: Duration) -> Self {
        Self::guarded(Store::Postgres(Postgres::over(pool)), patience)
    }

    fn guarded(store: Store, patience: Duration) -> Self {
        Self(Arc::new(Guarded {
            store,
            breaker: Breaker::default(),
            patience,
        }))
    }

    /// Brings a `PostgreSQL` store's schema up to date. Processes that start together
    /// wait for each other.
    ///
    /// # Errors
    /// When the store does not answer, or the role may not make a schema.
    pub async fn migrate(&self) -> Result<(), ClaimError> {
        match &self.0.store {
            Store::Postgres(store) => Ok(store.migrate().await?),
            Store::Redis(_) => Ok(()),
        }
    }

    /// Claims a scope, or tells who was there first.
    ///
    /// # Errors
    /// When the store does not answer: the caller decides whether to go on without a claim.
    pub async fn claim(&self, scope: &[u8; 32]) -> Result<Claim, ClaimError> {
        let holder = Holder::random()?;
        match &self.0.store {
            Store::Postgres(store) => self.ask(store.claim(scope, holder)).await,
            Store::Redis(store) => self.ask(store.claim(scope, holder)).await,
        }
    }

    /// Keeps a running claim for another `lease`. Whether it was still held.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn extend(
        &self,
        scope: &[u8; 32],
        holder: Holder,
        lease: Duration,
    ) -> Result<bool, ClaimError> {
        match &self.0.store {
            Store::Postgres(store) => self.ask(store.extend(scope, holder, lease)).await,
            Store::Redis(store) => self.ask(store.extend(scope, holder, lease)).await,
        }
    }

    /// Copies a committed outcome, over whatever claim stands there: the record is the truth.
    /// `remaining` is how long the record is still valid.
    ///
    /// # Errors
    /// When the store does not answer; the claim then lapses and the record speaks.
    pub async fn done(
        &self,
        scope: &[u8; 32],
        fingerprint: &[u8; 32],
        outcome: Option<&[u8]>,
        remaining: Duration,
    ) -> Result<(), ClaimError> {
        match &self.0.store {
            Store::Postgres(store) => {
                self.ask(store.done(scope, fingerprint, outcome, remaining))
                    .await
            }
            Store::Redis(store) => {
                self.ask(store.done(scope, fingerprint, outcome, remaining))
                    .await
            }
        }
    }

    /// Gives a running claim up, so that a retry need not wait for the lease's end.
    ///
    /// # Errors
    /// When the store does not answer; the claim then lapses.
    pub async fn release(&self, scope: &[u8; 32], holder: Holder) -> Result<(), ClaimError> {
        match &self.0.store {
            Store::Postgres(store) => self.ask(store.release(scope, holder)).await,
            Store::Redis(store) => self.ask(store.release(scope, holder)).await,
        }
    }

    /// Whether the store answers: a release of what nobody holds.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), ClaimError> {
        self.release(&[0; 32], Holder([0; 16])).await
    }

    /// Removes lapsed claims, a bounded number. How many there were: as many as
    /// the bound means that there may be more. Redis does so by itself.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sweep(&self) -> Result<u64, ClaimError> {
        match &self.0.store {
            Store::Postgres(store) => self.ask(store.sweep()).await,
            Store::Redis(_) => Ok(0),
        }
    }

    /// One call of the store: not while it is down, and not for longer than `patience`.
    async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, ClaimError>>,
    ) -> Result<T, ClaimError> {
        let Guarded {
            store,
            breaker,
            patience,
        } = &*self.0;
        if !breaker.admits() {
            return Err(ClaimError::Down);
        }
        match tokio::time::timeout(*patience, call).await {
            Ok(Ok(answer)) => {
                breaker.answered();
                Ok(answer)
            }
            Ok(Err(error)) => {
                breaker.failed();
                Err(error)
            }
            Err(_) => {
                breaker.failed();
                if let Store::Redis(store) = store {
                    store.forget_connection();
                }
                Err(ClaimError::Slow(*patience))
            }
        }
    }
}
