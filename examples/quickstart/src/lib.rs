//! The one-command run of Postern, in two halves.
//!
//! [`issuer`] is a development identity issuer: it stands where Keycloak stands
//! in production and speaks the same three endpoints. The binary `dev-issuer`
//! serves it.
//!
//! [`launcher`] starts PostgreSQL, the issuer, the handlers and the gateway
//! (which starts the runner), loads the demo through the API itself, and stops
//! all of it again. The binary `postern-quickstart` is its command line, and
//! the script `run` beside this crate checks the machine and builds first.

pub mod issuer;
pub mod launcher;
