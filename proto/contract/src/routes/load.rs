//! `routes.toml` → [`RouteTable`]: every mistake in the file is found here.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde::Deserialize;

use super::{Access, Family, Profile, Route, RouteTable, Segment, find::Tree};

/// What is wrong with a routes table.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not TOML, or not of the table's form.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A row that cannot be.
    #[error("route {id}: {reason}")]
    Route {
        /// Which.
        id: String,
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: BTreeMap<String, Profile>,
    route: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Row {
    id: String,
    method: String,
    path: String,
    family: Family,
    #[serde(default)]
    access: Access,
    scope: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    capability: Option<String>,
    profile: String,
    body_limit: Option<String>,
    media_types: Option<Vec<String>>,
    idempotent: Option<bool>,
}

const DEFAULT_BODY_LIMIT: u64 = 256 << 10;

impl RouteTable {
    /// Reads a table.
    ///
    /// # Errors
    /// When the text is not of the form, a row contradicts itself, or two rows
    /// answer the same request.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let File { mut profile, route } = toml::from_str(text)?;
        for (name, profile) in &mut profile {
            profile.name.clone_from(name);
        }
        let mut ids = BTreeSet::new();
        let mut routes = Vec::with_capacity(route.len());
        for row in route {
            let id = row.id.clone();
            let fail = |reason: String| LoadError::Route {
                id: id.clone(),
                reason,
            };
            if !ids.insert(row.id.clone()) {
                return Err(fail("the id stands twice".into()));
            }
            routes.push(row.check(&profile).map_err(fail)?);
        }
        let mut tree = Tree::default();
        for (index, route) in routes.iter().enumerate() {
            tree.insert(route, index)
                .map_err(|reason| LoadError::Route {
                    id: route.id.clone(),
                    reason,
                })?;
        }
        Ok(Self {
            routes,
            profiles: profile,
            tree,
        })
    }
}

impl Row {
    fn check(self, profiles: &BTreeMap<String, Profile>) -> Result<Route, String> {
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|e| e.to_string())?;
        let segments = segments(&self.path)?;
        let profile = profiles
            .get(&self.profile)
            .ok_or_else(|| format!("no profile {:?}", self.profile))?
            .clone();
        if self.access == Access::Public && (self.scope.is_some() || !self.roles.is_empty()) {
            return Err("a public route has neither scope nor roles".into());
        }
        if self.access == Access::Token && self.scope.is_none() {
            return Err("a route by token names its scope".into());
        }
        let has_workspace = segments.contains(&Segment::Param("workspaceId".into()));
        if self.capability.is_some() && !has_workspace {
            return Err("a capability needs :workspaceId in the path".into());
        }
        let body_limit = self
            .body_limit
            .as_deref()
            .map_or(Ok(DEFAULT_BODY_LIMIT), bytes)?;
        let mutation = matches!(self.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE");
        Ok(Route {
            id: self.id,
            method,
            path: self.path,
            segments,
            family: self.family,
            access: self.access,
            scope: self.scope,
            roles: self.roles,
            capability: self.capability,
            profile,
            body_limit,
            media_types: self
                .media_types
                .unwrap_or_else(|| vec!["application/json".into()]),
            idempotent: self.idempotent.unwrap_or(mutation),
        })
    }
}

fn segments(path: &str) -> Result<Vec<Segment>, String> {
    let rest = path
        .strip_prefix('/')
        .ok_or("the path starts with a slash")?;
    let segments: Vec<_> = rest
        .split('/')
        .map(|segment| match segment.split_at_checked(1) {
            Some((":", name)) => Segment::Param(name.into()),
            Some(("*", name)) => Segment::Tail(name.into()),
            _ => Segment::Literal(segment.into()),
        })
        .collect();
    let tail = segments.iter().position(|s| matches!(s, Segment::Tail(_)));
    match tail {
        Some(at) if at + 1 != segments.len() => Err("a tail stands last".into()),
        _ => Ok(segments),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    units
        .into_iter()
        .find_map(|(unit, shift)| {
            text.strip_suffix(unit)?
                .parse::<u64>()
                .ok()?
                .checked_shl(shift)
        })
        .ok_or_else(|| format!("{text:?} is not a size in KiB, MiB or GiB"))
}
