//! Which route a request takes: `lua-resty-radixtree` in APISIX's default
//! `radixtree_host_uri` mode.
//!
//! A route for the request's host goes before one for all hosts, a whole name
//! before a wildcard. Within that, an exact path goes before a prefix and a long
//! prefix before a short one, whatever their priorities; `priority` decides
//! between routes of the same path.

use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::config::routes::Route;

/// A path a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This one only.
    Exact(Vec<u8>),
    /// All that begin so.
    Prefix(Vec<u8>),
}

impl Pattern {
    /// `/a` or `/a/*`.
    pub fn parse(uri: &str) -> Result<Self> {
        ensure!(uri.starts_with('/'), "uri {uri} does not begin with /");
        let bare = uri.strip_suffix('*');
        let text = bare.unwrap_or(uri);
        ensure!(
            !text.contains('*'),
            "uri {uri}: a `*` that is not its end is not imitated"
        );
        let bytes = text.as_bytes().to_vec();
        Ok(if bare.is_some() {
            Self::Prefix(bytes)
        } else {
            Self::Exact(bytes)
        })
    }

    fn takes(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix),
        }
    }

    /// Which goes first.
    fn rank(&self) -> (bool, usize) {
        match self {
            Self::Exact(exact) => (true, exact.len()),
            Self::Prefix(prefix) => (false, prefix.len()),
        }
    }
}

/// All routes, by path and host, in the order they are tried.
#[derive(Debug)]
pub struct Router(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    host: Option<String>,
    pattern: Pattern,
    route: Arc<Route>,
}

impl Entry {
    fn takes(&self, host: Option<&[u8]>, path: &[u8], method: &[u8]) -> bool {
        let host_fits = match (&self.host, host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wanted), Some(host)) => match wanted.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix.as_bytes()),
                None => host == wanted.as_bytes(),
            },
        };
        let methods = &self.route.methods;
        host_fits
            && self.pattern.takes(path)
            && (methods.is_empty() || methods.iter().any(|known| known.as_bytes() == method))
    }

    fn rank(&self) -> impl Ord {
        let host = self
            .host
            .as_ref()
            .map(|host| (!host.starts_with('*'), host.len()));
        (host, self.pattern.rank(), self.route.priority)
    }
}

impl Router {
    /// Orders the routes.
    #[must_use]
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let mut entries = Vec::new();
        for route in routes {
            let hosts: Vec<Option<String>> = match route.hosts.as_slice() {
                [] => vec![None],
                hosts => hosts.iter().cloned().map(Some).collect(),
            };
            for host in hosts {
                entries.extend(route.paths.iter().map(|pattern| Entry {
                    host: host.clone(),
                    pattern: pattern.clone(),
                    route: Arc::clone(route),
                }));
            }
        }
        entries.sort_by(|left, right| right.rank().cmp(&left.rank()));
        Self(entries)
    }

    /// The route of a request.
    #[must_use]
    pub fn find(&self, host: Option<&[u8]>, path: &[u8], method: &[u8]) -> Option<&Arc<Route>> {
        let found = self.0.iter().find(|entry| entry.takes(host, path, method));
        found.map(|entry| &entry.route)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use crate::config::routes::Table;

    #[test]
    fn routes_are_tried_in_apisix_order() {
        let table = Table::parse(
            "
routes:
  - {id: all, uri: '/*', priority: -10}
  - {id: long, uri: '/v1/tenants/*'}
  - {id: short, uri: '/v1/*', priority: 100}
  - {id: exact, uri: /v1/tenants/x, methods: [GET]}
  - {id: same, uri: '/v1/tenants/*', priority: 1, methods: [PUT]}
  - {id: host, uri: '/h/*', host: '*.example.com'}
  - {id: exacthost, uri: '/h/*', hosts: [a.example.com]}
#END",
            "1",
        )
        .unwrap();
        let find = |host: &str, path: &str, method: &str| {
            let found =
                table
                    .router
                    .find(Some(host.as_bytes()), path.as_bytes(), method.as_bytes());
            found.unwrap().id.clone()
        };
        assert_eq!(find("h", "/v1/tenants/x", "GET"), "exact");
        assert_eq!(find("h", "/v1/tenants/x", "POST"), "long");
        assert_eq!(find("h", "/v1/tenants/y", "PUT"), "same");
        assert_eq!(find("h", "/v1/other", "GET"), "short");
        assert_eq!(find("h", "/v1", "GET"), "all");
        assert_eq!(find("a.example.com", "/h/1", "GET"), "exacthost");
        assert_eq!(find("b.example.com", "/h/1", "GET"), "host");
        assert_eq!(find("example.org", "/h/1", "GET"), "all");
    }
}
