//! The runner from outside: the RPC, the processes, the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a failed unwrap is a failed test"
)]

mod cli;
mod load;
mod peers;
mod privileges;
mod process;
mod rpc;
mod supervisor;
