//! `jwt` on a call: a token that is remembered, and one that is not.
//!
//! The plain chain beside it has everything that is before `jwt` in a route's chain and
//! can decide alone: its difference to the others is what `jwt` costs.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::proc;
use crate::report::Measurement;
use crate::rpc::process::{self, Subject};
use crate::rpc::world::World;
use crate::rpc::{Expect, Options, Runner, measure, program};

/// Tokens in turns where none is to be remembered: the runner has room for one.
const STRANGERS: u32 = 512;

/// Runs the bench.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for sockets and logs")?;
    let folder = folder.path();
    proc::pin(process::GENERATOR_CORE)?;
    let world = World::start(folder)?;
    let forgetful = world.with_jwt(folder, "forgetful", "cachedTokens", json!(1))?;
    let start = |config: &Path, name| {
        let args = [OsStr::new("--config"), config.as_os_str()];
        Subject::start(&program("postern-runner")?, &args, folder, name)
    };
    let conf = |names: &[&str]| -> Vec<_> {
        let plugin = |name: &&str| ((*name).to_owned(), "{}".to_owned());
        names.iter().map(plugin).collect()
    };
    let (plain, with_jwt) = (
        conf(&["correlation-id", "headers"]),
        conf(&["correlation-id", "headers", "jwt"]),
    );
    let (one, many) = (std::slice::from_ref(&world.token), world.tokens(STRANGERS)?);
    let null = Subject::start(&program("null-runner")?, &[], folder, "null")?;
    let runners = [
        Runner::new("null", null, &[], one, Expect::NoAction)?,
        Runner::new(
            "plain",
            start(&world.config, "plain")?,
            &plain,
            one,
            Expect::Pass,
        )?,
        Runner::new(
            "jwt-hit",
            start(&world.config, "hit")?,
            &with_jwt,
            one,
            Expect::Pass,
        )?,
        Runner::new(
            "jwt-miss",
            start(&forgetful, "miss")?,
            &with_jwt,
            &many,
            Expect::Pass,
        )?,
    ];
    eprintln!("{}", Measurement::HEAD);
    for &conns in &options.conns {
        measure(&runners, usize::from(conns), options)?;
    }
    Ok(())
}
