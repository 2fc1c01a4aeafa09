//! The sealed context: what the runner tells a handler about a request it let
//! pass, in one header.
//!
//! ```text
//! X-Postern-Context: v2.<kid>.<base64url(message tag)>
//! tag = HMAC-SHA-256(key, "v2.<kid>." message)
//! ```
//!
//! The runner fills a [`View`] and [seals](SealingKeys::seal_view) it for one family; the
//! handler [opens](OpeningKeys::open) it as a [`Context`] with that family's key, which is derived
//! from a master key the handler does not hold (HKDF, RFC 5869). A context is valid from
//! [−5](NOT_BEFORE_SLACK) to [+60 s](VALIDITY) of its issue, and binds route, method and
//! every path parameter: the handler compares them with its own reading.

mod keys;
mod message;
mod seal;
mod view;

pub use postern_contract::key_file::KeyFileError;

pub use keys::{OpeningKeys, SealingKeys};
pub use message::{Claim, Context, PathParam, RateLimit};
pub use seal::{MAX_HEADER_LEN, NOT_BEFORE_SLACK, OpenError, VALIDITY};
pub use view::{RateLimitView, TokenFields, TokenView, View};
