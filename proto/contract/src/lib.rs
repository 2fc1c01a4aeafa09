//! What both sides of the gateway must agree on.
//!
//! The runner judges a request before it is proxied, a handler carries it out:
//! whatever the two could read differently stands here once.
//!
//! | module | one place for |
//! |---|---|
//! | [`mod@routes`] | the routes table (`routes.toml`) and how a path is matched |
//! | [`code`] | the closed list of error codes with status, mend and whether the outcome is kept |
//! | [`envelope`] | the error body |
//! | [`id`] | tenant, workspace and audit ids |
//! | [`header`] | header names and the rules of their values |
//! | [`key_file`] | files of secret keys that rotate |
//! | [`idempotency`] | a key's form and scope, and the request's fingerprint |

pub mod code;
pub mod envelope;
pub mod header;
pub mod id;
pub mod idempotency;
pub mod key_file;
pub mod path;
pub mod routes;

pub use code::Code;
pub use envelope::{Detail, Envelope};
pub use id::{AuditId, TenantId, WorkspaceId};
pub use routes::{Family, Match, Params, Profile, Route, RouteTable, routes};
