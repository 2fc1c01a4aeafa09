//! Checks on the graph of crates, as `cargo metadata` tells it.

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

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    workspace_root: String,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    license: Option<String>,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Metadata {
    /// The graph on this machine's kind of system: crates for others are never built here.
    fn read(root: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", &target])
            .current_dir(root)
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!(
                "cargo metadata: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        serde_json::from_slice(&output.stdout).context("cargo metadata said something new")
    }

    /// Our own crates: name and folder below the root.
    fn own(&self) -> BTreeMap<&str, (&Package, &str)> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
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

    /// Crates that something of ours reaches, with who uses each directly.
    fn reached(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let nodes: BTreeMap<&str, &Node> = self
            .resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node))
            .collect();
        let mut users: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut open: Vec<&str> = self.workspace_members.iter().map(String::as_str).collect();
        let mut seen: BTreeSet<&str> = open.iter().copied().collect();
        while let Some(id) = open.pop() {
            users.entry(id).or_default();
            for dependency in nodes.get(id).map_or(&[][..], |node| &node.dependencies) {
                users.entry(dependency).or_default().insert(id);
                if seen.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        users
    }

    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.packages
            .iter()
            .find(|package| package.id == id)
            .map_or(id, |package| &package.name)
    }
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
            let tests = dependency.kind.as_deref() == Some("dev") && lies_in(target, "tests");
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
    let metadata = Metadata::read(root)?;
    let allowed = Policy::read(root)?.licences.allowed;
    let reached = metadata.reached();
    Ok(metadata
        .packages
        .iter()
        .filter(|package| reached.contains_key(package.id.as_str()))
        .filter_map(|package| {
            let expression = package.license.as_deref().unwrap_or("");
            match licence::met(expression, &allowed) {
                Ok(true) => None,
                Ok(false) => Some(format!("{}: {expression:?} is not allowed", package.name)),
                Err(error) => Some(format!("{}: {expression:?}: {error}", package.name)),
            }
        })
        .collect())
}

/// No crate of the ban list is in the graph.
pub(super) fn bans(root: &Path) -> Result<Findings> {
    let metadata = Metadata::read(root)?;
    let policy = Policy::read(root)?;
    let reached = metadata.reached();
    let mut findings = Findings::new();
    for (id, users) in &reached {
        let Some(ban) = policy.ban.iter().find(|ban| ban.name == metadata.name(id)) else {
            continue;
        };
        for user in users.iter().map(|user| metadata.name(user)) {
            if !ban.allowed_through.iter().any(|allowed| allowed == user) {
                findings.push(format!("{user} brings {}: {}", ban.name, ban.why));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
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
    fn a_crate_is_reached_only_from_ours_and_knows_its_users() {
        let metadata = Metadata {
            packages: Vec::new(),
            workspace_members: vec!["own".to_owned()],
            workspace_root: String::new(),
            resolve: Resolve {
                nodes: [
                    ("own", &["a"][..]),
                    ("a", &["b"]),
                    ("b", &[]),
                    ("c", &["b"]),
                ]
                .map(|(id, uses)| Node {
                    id: id.to_owned(),
                    dependencies: uses.iter().map(|&name| name.to_owned()).collect(),
                })
                .into(),
            },
        };
        let reached = metadata.reached();
        assert_eq!(
            reached.keys().copied().collect::<Vec<_>>(),
            ["a", "b", "own"]
        );
        assert_eq!(reached.get("b"), Some(&BTreeSet::from(["a"])));
    }
}
