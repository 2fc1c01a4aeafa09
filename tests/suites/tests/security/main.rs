//! Every route of the table under attack: each row of `proto/contract/routes.toml` ×
//! each way to be refused, with the code that each must be refused with.
//!
//! Nothing here names a route. A case says what is wrong with a request ([`rules::Asked`]),
//! [`rules::verdict`] says by the table and the API's rules what it must be answered, and
//! [`walk`] sends the request of every route and shows those that were answered otherwise.
//! So a new row is walked without anybody adding it, and a control in each walk (the
//! same request with nothing wrong) holds that it is the wrong that is refused.
//!
//! Each cell is a subject and an address of its own: no limit is met.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod contexts;
mod headers;
mod identity;
mod paths;
mod rules;
mod spoofing;
mod upstream;
mod walk;
mod world;

use std::time::Duration;

/// How long a change may take until every process knows of it.
const SOON: Duration = Duration::from_secs(10);
