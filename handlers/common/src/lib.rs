//! What every family of handlers shares: the way of a request from the socket to
//! the family's own code and back.
//!
//! | module | on a request's way |
//! |---|---|
//! | [`serve`] | connections, HTTP, compression, draining |
//! | [`chain`](Chain) | the order of things, on one screen |
//! | `unseal` | the sealed context becomes a [`Caller`] and its [`Scope`] |
//! | [`router`](Router) | route id → function |
//! | [`call`](Call), [`fields`], [`query`] | body, arguments and parameters, each with every complaint |
//! | [`control_plane`] | what families ask about tenants |
//! | [`idempotency`] | the transaction that a retry replays |
//! | [`etag`], [`page`] | validators, lists |
//! | [`reply`](Reply), [`failure`](Failure) | what is answered |
//! | [`telemetry`] | what an operator sees |

mod call;
mod caller;
mod chain;
pub mod control_plane;
pub mod etag;
pub mod failure;
pub mod faults;
pub mod fields;
pub mod idempotency;
pub mod keys;
pub mod page;
pub mod query;
mod reply;
mod router;
pub mod serve;
pub mod telemetry;
pub mod time;
mod unseal;

pub use call::{Call, no_workspace};
pub use caller::{Caller, PLATFORM_ROLES, Scope, TENANT_ROLES};
pub use chain::{Chain, Denial, DenialLog, Times};
pub use failure::{Failure, Refusal};
pub use reply::{Body, Reply};
pub use router::{Mismatch, Router};
