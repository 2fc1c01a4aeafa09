//! The sealed context: what the runner tells a handler about a request it let
//! pass, in one header.
//!
//! ```text
//! X-Postern-Context: v1.<kid>.<base64url(message)>.<base64url(HMAC-SHA-256)>
//! ```
//!
//! The runner fills a [`Context`] and [seals](SealingKeys::seal) it for one family; the
//! handler [opens](OpeningKeys::open) it with that family's key, which is derived
//! from a master key the handler does not hold (HKDF, RFC 5869). A context is valid from
//! [−5](NOT_BEFORE_SLACK) to [+60 s](VALIDITY) of its issue, and binds route, method and
//! every path parameter: the handler compares them with its own reading.

mod keys;
mod message;
mod seal;

pub use postern_contract::key_file::KeyFileError;

pub use keys::{OpeningKeys, SealingKeys};
pub use message::{Claim, Context, PathParam, RateLimit};
pub use seal::{MAX_HEADER_LEN, NOT_BEFORE_SLACK, OpenError, VALIDITY};
