//! The wire format of Apache APISIX's external-plugin RPC, protocol version
//! 0.6.1 (`ext-plugin-proto`), for both of its ends.
//!
//! Bytes from a socket go into a [`frame::Decoder`], which cuts them into
//! frames. What a frame holds is read in place by [`read`], checked as it goes; answers are written by a [`write::Writer`] into a
//! buffer it keeps, frame header included. [`message`] holds the same messages as
//! owned values, for those who are in no hurry (the stand-in gateway, tests,
//! `explain`), read with the library's verifier and the generated code.
//!
//! Nothing here reads or writes a socket, and nothing trusts its input: every
//! byte sequence either decodes or gives a [`DecodeError`], the work is bounded
//! by the frame's length, and memory follows bytes that have arrived.
//!
//! Text is bytes throughout. A gateway passes on what a client sent, UTF-8 or
//! not, and whoever needs text decides what to do with the rest.

pub mod frame;
pub mod message;
mod method;
pub mod read;
mod rewrite;
pub mod verify;
mod view;
pub mod write;

#[allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    dead_code,
    reason = "written by flatc; `proto/wire/generate --check` holds it to the schema"
)]
#[rustfmt::skip]
#[path = "generated/ext-plugin_generated.rs"]
mod generated;

pub use frame::{FrameError, FrameType};
pub use method::{Method, UnnamedMethod};
pub use verify::DecodeError;
pub use write::TooLarge;

/// What an error frame says (`A6.Err.Code`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The call could not be understood.
    BadRequest,
    /// The runner cannot answer now.
    ServiceUnavailable,
    /// The runner does not know the call's configuration token. APISIX then
    /// forgets all of its tokens and prepares again, three times at most.
    ConfTokenNotFound,
}

/// Who sent a frame. A type of frame means another message from each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// APISIX, or what stands in for it: calls, and answers to extra-info requests.
    Gateway,
    /// The plugin runner: answers to calls, and extra-info requests.
    Runner,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Runner => "runner",
        })
    }
}
