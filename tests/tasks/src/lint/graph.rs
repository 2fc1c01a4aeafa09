//! Checks on the graph of crates, as cargo tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::Findings;
use super::licence;
use super::policy::{Policy, lies_in};

/// The only place a dependency may be recorded to come from: a mirror's address
/// in the lock file would be asked for on every other machine.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Our own crates, as `cargo metadata` tells them.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    kind: Option<String>,
}

impl Metadata {
    fn read(root: &Path) -> Result<Self> {
        let arguments = ["metadata", "--format-version", "1", "--no-deps", "--locked"];
        serde_json::from_str(&cargo(root, &arguments)?).context("cargo metadata said something new")
    }

    /// Our own crates: name and folder below the root.
    fn own(&self) -> BTreeMap<&str, (&Package, &str)> {
        self.packages
            .iter()
            .filter_map(|package| {
                let folder = package
                    .manifest_path
                    .strip_prefix(&self.workspace_root)?
                    .trim_start_matches('/')
                    .strip_suffix("/Cargo.toml")?;
                Some((package.name.as_str(), (package, folder)))
            })
            .collect()
    }
}

/// A crate that is built here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Built {
    licence: String,
    /// Who uses it directly.
    users: BTreeSet<String>,
}

/// Every crate that a build on this machine takes in, by name. `cargo tree`
/// tells it; `cargo metadata` would also list what no chosen feature asks for.
fn built(root: &Path) -> Result<BTreeMap<String, Built>> {
    let arguments = [
        "tree",
        "--workspace",
        "--locked",
        "--prefix",
        "depth",
        "--format",
        "|{p}|{l}|",
    ];
    parse_tree(&cargo(root, &arguments)?)
}

/// Lines such as `2|serde v1.0.0 (proc-macro)|MIT OR Apache-2.0|`: a crate's
/// user is the last line that stood one step less deep.
fn parse_tree(tree: &str) -> Result<BTreeMap<String, Built>> {
    let mut built: BTreeMap<String, Built> = BTreeMap::new();
    let mut path: Vec<String> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.split('|');
        let (Some(depth), Some(package), Some(licence)) =
            (fields.next(), fields.next(), fields.next())
        else {
            bail!("cargo tree said something new: {line}");
        };
        let depth: usize = depth.parse().with_context(|| line.to_owned())?;
        let name = package.split(' ').next().unwrap_or_default().to_owned();
        path.truncate(depth);
        let entry = built.entry(name.clone()).or_default();
        entry.licence = licence.to_owned();
        entry.users.extend(path.last().cloned());
        path.push(name);
    }
    Ok(built)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("cargo's output is not text")
}

/// Every source in `Cargo.lock` is the public registry.
pub(super) fn lock_file(root: &Path) -> Result<Findings> {
    let text = std::fs::read_to_string(root.join("Cargo.lock")).context("no Cargo.lock")?;
    Ok(foreign_sources(&text))
}

fn foreign_sources(lock: &str) -> Findings {
    lock.lines()
        .filter_map(|line| line.strip_prefix("source = "))
        .map(|source| source.trim_matches('"'))
        .filter(|source| *source != REGISTRY)
        .map(|source| format!("Cargo.lock records the source {source}"))
        .collect()
}

/// Our crates use each other only along the arrows of the policy.
pub(super) fn directions(root: &Path) -> Result<Findings> {
    let metadata = Metadata::read(root)?;
    let policy = Policy::read(root)?;
    let own = metadata.own();
    let mut findings = Findings::new();
    for (name, (package, folder)) in &own {
        let Some(rule) = policy
            .direction
            .iter()
            .filter(|rule| lies_in(folder, &rule.folder))
            .max_by_key(|rule| rule.folder.len())
        else {
            findings.push(format!("{folder}: no rule says what {name} may use"));
            continue;
        };
        for dependency in &package.dependencies {
            let Some((_, target)) = own.get(dependency.name.as_str()) else {
                continue;
            };
            let tests = dependency.kind.as_deref() == Some("dev")
                && (lies_in(target, "tests")
                    || rule.tests_may.iter().any(|may| lies_in(target, may)));
            let itself = target == folder;
            if !(tests || itself || rule.may.iter().any(|may| lies_in(target, may))) {
                findings.push(format!("{folder} uses {target}, but {}", rule.why));
            }
        }
    }
    Ok(findings)
}

/// Every crate comes under a licence of the list.
pub(super) fn licences(root: &Path) -> Result<Findings> {
    let allowed = Policy::read(root)?.licences.allowed;
    Ok(built(root)?
        .iter()
        .filter_map(
            |(name, Built { licence, .. })| match licence::met(licence, &allowed) {
                Ok(true) => None,
                Ok(false) => Some(format!("{name}: {licence:?} is not allowed")),
                Err(error) => Some(format!("{name}: {licence:?}: {error}")),
            },
        )
        .collect())
}

/// No crate of the ban list is built.
pub(super) fn bans(root: &Path) -> Result<Findings> {
    let built = built(root)?;
    let mut findings = Findings::new();
    for ban in Policy::read(root)?.ban {
        for user in built
            .get(&ban.name)
            .map(|built| &built.users)
            .into_iter()
            .flatten()
        {
            if !ban.allowed_through.contains(user) {
                findings.push(format!("{user} brings {}: {}", ban.name, ban.why));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn a_mirror_in_the_lock_file_is_found() {
        let lock = format!("source = \"{REGISTRY}\"\nsource = \"registry+http://mirror/index\"\n");
        assert_eq!(
            foreign_sources(&lock),
            ["Cargo.lock records the source registry+http://mirror/index"]
        );
    }

    #[test]
    fn a_tree_tells_who_uses_what() {
        let tree = "0|own v1 (/x)|MIT|\n1|a v1|MIT|\n2|b v2|ISC|\n1|c v1|MIT|\n2|b v2|ISC| (*)\n\n";
        let built = parse_tree(tree).unwrap();
        let b = built.get("b").unwrap();
        assert_eq!(b.licence, "ISC");
        assert_eq!(b.users, ["a", "c"].map(str::to_owned).into());
        assert!(built.get("own").unwrap().users.is_empty());
        assert!(parse_tree("0 no").is_err());
    }
}
