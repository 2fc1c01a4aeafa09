//! The file `policy.toml`.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Everything in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) direction: Vec<Direction>,
    pub(super) licences: Licences,
    pub(super) ban: Vec<Ban>,
}

/// Which of our folders the crates of one folder may use.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Direction {
    pub(super) folder: String,
    pub(super) may: Vec<String>,
    /// What their tests may use besides, and besides `tests`.
    #[serde(default)]
    pub(super) tests_may: Vec<String>,
    pub(super) why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Licences {
    pub(super) allowed: Vec<String>,
}

/// A crate that may not be in the graph.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ban {
    pub(super) name: String,
    pub(super) why: String,
    /// Crates that are known to bring it, and are worth it.
    #[serde(default)]
    pub(super) allowed_through: Vec<String>,
}

impl Policy {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(root.join("tests/tasks/policy.toml"))
            .context("cannot read tests/tasks/policy.toml")?;
        toml::from_str(&text).context("tests/tasks/policy.toml is not right")
    }
}

/// Whether `path` is `folder` or lies in it.
pub(super) fn lies_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
