//! Idempotency claims. `docs/idempotency.md` has the protocol.
//!
//! A **claim** is a lock and a copy in the runner's store: it keeps most
//! duplicates from ever reaching a handler. The **record**, which handlers
//! commit with the effect, is the truth; losing every claim costs speed only.
//! So the table in PostgreSQL is unlogged, Redis needs no persistence, a claim that
//! nobody finishes lapses, and a handler may write `done` over whatever stands there.
//!
//! An [`Outcome`] is what both keep of an answer, [sealed](OutcomeKeys) at rest.

mod outcome;
mod store;

pub use outcome::{BODY_LIMIT, Body, Outcome, OutcomeError, OutcomeKeys};
pub use postern_contract::key_file::KeyFileError;
pub use postern_redis::{Authority, AuthorityError};
pub use store::{Claim, ClaimError, ClaimStore, Holder, LEASE, SCHEMA, UrlError};
