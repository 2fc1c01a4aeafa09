//! `no-route`: the answer to what no route of the gateway matches. Last in the chain of
//! the catch-all route; `headers` gives the same answers within a family's paths.

use postern_contract::path::PathError;
use postern_contract::{Code, Detail, Match};
use schemars::JsonSchema;
use serde::Deserialize;

use super::preflight::is_preflight;
use crate::{Flow, Plugin, Reply, Request};

/// Answers 405 or 404, by the routes table.
pub struct NoRoute;

/// `no-route` has no settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoRouteConfig {}

impl Plugin for NoRoute {
    const NAME: &'static str = "no-route";
    type Config = NoRouteConfig;

    async fn on_request(&self, _: &Self::Config, request: &mut Request<'_>) -> Flow {
        if is_preflight(request) {
            return Flow::Pass;
        }
        Flow::Stop(match request.route() {
            // The table has it and the gateway does not: it is not served here.
            Ok(Match::Found(..) | Match::NotFound) => not_found(request),
            Ok(Match::MethodNotAllowed(allow)) => not_allowed(request, allow),
            Err(error) => no_text(error),
        })
    }
}

/// 404: no route has such a path.
pub(super) fn not_found(request: &Request<'_>) -> Reply {
    Reply::refuse(
        Code::RouteNotFound,
        format!("no route {} {}", request.method(), path(request)),
    )
}

/// 405: the path has other methods.
pub(super) fn not_allowed(request: &Request<'_>, allow: &[&'static str]) -> Reply {
    let allow = allow.join(", ");
    let message = format!(
        "{} does not take {}: use {allow}",
        path(request),
        request.method()
    );
    Reply::refuse(Code::MethodNotAllowed, message).with_header("Allow", allow)
}

/// 400: a path that is no text.
pub(super) fn no_text(error: PathError) -> Reply {
    Reply::refuse(Code::ValidationError, error.to_string())
        .with_details(vec![Detail::new("path", error.to_string())])
}

/// The path for a message, cut to a length that suits one.
fn path(request: &Request<'_>) -> String {
    const SHOWN: usize = 200;
    let path = String::from_utf8_lossy(request.path());
    match path.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", path.get(..cut).unwrap_or_default()),
        None => path.into_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::Registry;
    use crate::testkit::{self, Outcome};

    async fn judge(method: &str, path: &str) -> Outcome {
        let chain = Registry::new()
            .with(NoRoute)
            .chain([("no-route", "{}")])
            .unwrap();
        testkit::request(method, path).judge(&chain).await
    }

    #[tokio::test]
    async fn the_table_decides_which_answer() {
        let nowhere = judge("GET", "/nowhere").await;
        assert_eq!(
            (nowhere.status(), nowhere.code()),
            (Some(404), Some(Code::RouteNotFound))
        );
        assert_eq!(nowhere.message(), Some("no route GET /nowhere"));
        let other = judge("PUT", "/v1/tenants").await;
        assert_eq!(
            (other.status(), other.code()),
            (Some(405), Some(Code::MethodNotAllowed))
        );
        assert_eq!(other.header("allow"), Some("POST, GET, HEAD"));
        assert_eq!(
            judge("GET", "/v1/tenants").await.code(),
            Some(Code::RouteNotFound),
            "not served here"
        );
        assert_eq!(
            judge("GET", "/v1/\0").await.code(),
            Some(Code::ValidationError)
        );
        let long = judge("GET", &format!("/{}", "ä".repeat(5_000))).await;
        assert!(long.message().unwrap().len() < 500);
    }
}
