//! Finding the route of a request: a tree of segments, literals before
//! parameters before tails. Look-up is linear in the path's segments.

use std::borrow::Cow;

use http::Method;

use super::{Route, RouteTable, Segment};
use crate::path::{PathError, decoded_segments, raw_segments};

/// The path's parameters, decoded, in the order of the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params<'p>(Vec<(&'static str, Cow<'p, str>)>);

impl<'p> Params<'p> {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| &**value)
    }

    /// Name and value, in the order of the template.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value))
    }

    /// The same at once.
    #[must_use]
    pub fn as_slice(&self) -> &[(&'static str, Cow<'p, str>)] {
        &self.0
    }

    /// Parameters that own their text.
    #[must_use]
    pub fn into_owned(self) -> Params<'static> {
        Params(
            self.0
                .into_iter()
                .map(|(name, value)| (name, Cow::Owned(value.into_owned())))
                .collect(),
        )
    }
}

/// What the table says of a request.
#[derive(Clone, Debug)]
pub enum Match<'p> {
    /// This route.
    Found(&'static Route, Params<'p>),
    /// The path exists under these methods only (`Allow`).
    MethodNotAllowed(Vec<&'static str>),
    /// No route has such a path.
    NotFound,
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Few in each place: going over them is faster than hashing one.
    literals: Vec<(String, Tree)>,
    param: Option<Box<Tree>>,
    tail: Vec<usize>,
    /// Routes that end here, by index.
    here: Vec<usize>,
}

impl Tree {
    pub(super) fn insert(&mut self, route: &Route, index: usize) -> Result<(), String> {
        let mut node = self;
        for segment in &route.segments {
            node = match segment {
                Segment::Literal(text) => node.literal(text),
                Segment::Param(_) => node.param.get_or_insert_default(),
                Segment::Tail(_) => {
                    node.tail.push(index);
                    return Ok(());
                }
            };
        }
        node.here.push(index);
        Ok(())
    }

    /// The subtree behind a literal, made if there is none.
    fn literal(&mut self, text: &str) -> &mut Tree {
        let known = self.literals.iter().position(|(known, _)| known == text);
        let at = known.unwrap_or_else(|| {
            self.literals.push((text.to_owned(), Tree::default()));
            self.literals.len() - 1
        });
        #[expect(
            clippy::indexing_slicing,
            reason = "it is there, or was just put there"
        )]
        &mut self.literals[at].1
    }

    /// Goes over the routes whose templates fit, most literal first, until one is `wanted`.
    fn fitting<T>(
        &self,
        segments: &[Cow<'_, str>],
        wanted: &mut impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let Some((first, rest)) = segments.split_first() else {
            return self.here.iter().copied().find_map(wanted);
        };
        let literal = self.literals.iter().find(|(text, _)| text == first);
        if let Some((_, next)) = literal
            && let Some(found) = next.fitting(rest, wanted)
        {
            return Some(found);
        }
        // An empty segment is no value: `/v1/tenants/` is not `/v1/tenants/:tenantId`.
        if let Some(next) = self.param.as_ref().filter(|_| !first.is_empty())
            && let Some(found) = next.fitting(rest, wanted)
        {
            return Some(found);
        }
        if self.tail.is_empty() || segments.iter().any(|s| matches!(&**s, "" | "." | "..")) {
            return None;
        }
        self.tail.iter().copied().find_map(wanted)
    }
}

impl RouteTable {
    /// Finds the route of a request whose path was decoded by the gateway.
    ///
    /// # Errors
    /// When the path cannot be read as text.
    pub fn find<'p>(
        &'static self,
        method: &Method,
        path: &'p [u8],
    ) -> Result<Match<'p>, PathError> {
        Ok(self.find_segments(method, decoded_segments(path)?))
    }

    /// Finds the route of a request by the path as the client sent it.
    ///
    /// # Errors
    /// When the path cannot be read as text.
    pub fn find_raw<'p>(
        &'static self,
        method: &Method,
        path: &'p str,
    ) -> Result<Match<'p>, PathError> {
        Ok(self.find_segments(method, raw_segments(path)?))
    }

    fn find_segments<'p>(&'static self, method: &Method, segments: Vec<Cow<'p, str>>) -> Match<'p> {
        let wanted = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let route = |index| self.routes.get(index);
        let of_method = |route: &&Route| route.method == *wanted;
        let mut found = |index| route(index).filter(of_method);
        if let Some(route) = self.tree.fitting(&segments, &mut found) {
            return Match::Found(route, params(route, segments));
        }
        let mut allow: Vec<&'static str> = Vec::new();
        let mut note = |index| {
            let route = route(index)?;
            let also = (route.method == Method::GET).then_some("HEAD");
            for method in std::iter::once(route.method.as_str()).chain(also) {
                if !allow.contains(&method) {
                    allow.push(method);
                }
            }
            None::<()>
        };
        self.tree.fitting(&segments, &mut note);
        if allow.is_empty() {
            Match::NotFound
        } else {
            Match::MethodNotAllowed(allow)
        }
    }
}

fn params<'p>(route: &'static Route, segments: Vec<Cow<'p, str>>) -> Params<'p> {
    let mut params = Vec::with_capacity(segments.len());
    let mut segments = segments.into_iter();
    for segment in &route.segments {
        match segment {
            Segment::Literal(_) => drop(segments.next()),
            Segment::Param(name) => {
                params.extend(segments.next().map(|value| (name.as_str(), value)))
            }
            Segment::Tail(name) => {
                let rest: Vec<_> = segments.by_ref().collect();
                params.push((name.as_str(), Cow::Owned(rest.join("/"))));
            }
        }
    }
    Params(params)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::routes;

    fn id(method: Method, path: &str) -> String {
        match routes().find(&method, path.as_bytes()).unwrap() {
            Match::Found(route, params) => {
                let values: Vec<_> = params
                    .iter()
                    .map(|(name, value)| format!(" {name}={value}"))
                    .collect();
                format!("{}{}", route.id, values.concat())
            }
            Match::MethodNotAllowed(allow) => format!("405 {}", allow.join(", ")),
            Match::NotFound => "404".into(),
        }
    }

    #[test]
    fn every_route_finds_itself() {
        for route in routes().all() {
            let path = route.path.replace([':', '*'], "x-");
            match routes().find(&route.method, path.as_bytes()).unwrap() {
                Match::Found(found, _) => assert_eq!(found.id, route.id),
                other => panic!("{}: {other:?}", route.id),
            }
        }
    }

    #[test]
    fn paths() {
        assert_eq!(id(Method::GET, "/v1/tenants"), "tenants.list");
        assert_eq!(
            id(Method::HEAD, "/v1/tenants/tnt_1"),
            "tenants.get tenantId=tnt_1"
        );
        assert_eq!(id(Method::GET, "/v1/tenants/"), "404");
        assert_eq!(id(Method::PUT, "/v1/tenants"), "405 POST, GET, HEAD");
        assert_eq!(id(Method::GET, "/v1/nothing"), "404");
        assert_eq!(
            id(Method::PUT, "/v1/storage/w/objects/a/b c"),
            "storage.objects.put workspaceId=w path=a/b c"
        );
        assert_eq!(id(Method::PUT, "/v1/storage/w/objects/a/../b"), "404");
        assert_eq!(
            id(Method::GET, "/v1/storage/w/objects"),
            "storage.objects.list workspaceId=w"
        );
    }

    #[test]
    fn an_encoded_slash_is_read_in_two_ways() {
        let raw = "/v1/tenants/a%2Fusage";
        let Match::Found(handler, _) = routes().find_raw(&Method::GET, raw).unwrap() else {
            panic!()
        };
        assert_eq!(handler.id, "tenants.get");
        assert_eq!(
            id(Method::GET, "/v1/tenants/a/usage"),
            "tenants.usage tenantId=a"
        );
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        assert_eq!(
            routes().find(&Method::GET, b"/v1/\xff").unwrap_err(),
            PathError::NotUtf8
        );
        assert_eq!(
            routes().find_raw(&Method::GET, "/v1/%ff").unwrap_err(),
            PathError::NotUtf8
        );
        assert_eq!(
            routes().find_raw(&Method::GET, "/v1/%00").unwrap_err(),
            PathError::Nul
        );
        assert_eq!(
            routes().find(&Method::GET, b"v1").unwrap_err(),
            PathError::NotAbsolute
        );
    }
}
