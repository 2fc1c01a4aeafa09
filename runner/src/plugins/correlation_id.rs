//! `correlation-id`: every request has an id that ties its answer and the logs together.
//!
//! First in the chain, so that every refusal after it carries the client's own id. A
//! request whose id is missing or malformed is refused with a new one in the envelope.

use postern_contract::{Code, Match, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::preflight::is_preflight;
use crate::singles::Single;
use crate::{Flow, Plugin, Reply, Request};

/// Checks or makes the correlation id.
pub struct CorrelationId;

/// What a route says about its correlation ids.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CorrelationIdConfig {
    /// What becomes of a request without `X-Correlation-Id`. On public routes one is
    /// always generated.
    missing: Missing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Missing {
    /// 400 `CORRELATION_ID_MISSING`.
    #[default]
    Reject,
    /// It gets a new one.
    Generate,
}

impl CorrelationId {
    fn decide(&self, config: &CorrelationIdConfig, request: &mut Request<'_>) -> Flow {
        // A browser's preflight cannot carry one: it goes on to whoever answers CORS.
        if is_preflight(request) {
            return Flow::Pass;
        }
        match judge(request) {
            Ok(Some(id)) => request.facts.correlation_id = Some(id.into()),
            Ok(None) if config.missing == Missing::Generate || is_public(request) => {
                request.facts.correlation_id = Some(header::new_correlation_id().into());
            }
            Ok(None) => return refuse(Code::CorrelationIdMissing, "X-Correlation-Id is missing"),
            Err(why) => return refuse(Code::CorrelationIdInvalid, why),
        }
        Flow::Next
    }
}

impl Plugin for CorrelationId {
    const NAME: &'static str = "correlation-id";
    type Config = CorrelationIdConfig;

    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        Some(self.decide(config, request))
    }
}

fn judge<'a>(request: &Request<'a>) -> Result<Option<&'a str>, &'static str> {
    let Ok(value) = request.single(Single::CorrelationId) else {
        return Err("X-Correlation-Id is there more than once");
    };
    let Some(value) = value else {
        return Ok(None);
    };
    match std::str::from_utf8(value) {
        Ok(id) if header::is_correlation_id(value) => Ok(Some(id)),
        _ => Err("X-Correlation-Id is malformed"),
    }
}

fn is_public(request: &Request<'_>) -> bool {
    matches!(request.route(), Ok(Match::Found(route, _)) if route.is_public())
}

fn refuse(code: Code, what: &'static str) -> Flow {
    let form = "send one of 8 to 128 characters of A-Z a-z 0-9 . _ : -";
    Flow::Stop(Reply::refuse(code, format!("{what}: {form}")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::Registry;
    use crate::testkit::{self, Outcome, Simulated};

    async fn judge(request: Simulated, config: &str) -> Outcome {
        let chain = Registry::new()
            .with(CorrelationId)
            .chain([("correlation-id", config)])
            .unwrap();
        request.judge(&chain).await
    }

    fn request() -> Simulated {
        testkit::request("GET", "/v1/tenants")
    }

    #[tokio::test]
    async fn rules() {
        let good = request().header("X-Correlation-Id", "given-by-client");
        assert!(judge(good, "{}").await.goes_on());
        assert_eq!(
            judge(request(), "{}").await.code(),
            Some(Code::CorrelationIdMissing)
        );
        assert!(
            judge(request(), r#"{"missing": "generate"}"#)
                .await
                .goes_on()
        );
        assert!(
            judge(testkit::request("GET", "/health"), "{}")
                .await
                .goes_on()
        );
        for bad in [
            "",
            "short",
            "with a blank",
            "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
        ] {
            for config in ["{}", r#"{"missing": "generate"}"#] {
                let outcome = judge(request().header("X-Correlation-Id", bad), config).await;
                assert_eq!(outcome.code(), Some(Code::CorrelationIdInvalid), "{bad:?}");
                let new = outcome.header("x-correlation-id").unwrap();
                assert!(header::is_correlation_id(new.as_bytes()) && new != bad);
            }
        }
        let twice = request()
            .header("X-Correlation-Id", "one-of-two")
            .header("x-correlation-id", "two-of-two");
        assert_eq!(
            judge(twice, "{}").await.code(),
            Some(Code::CorrelationIdInvalid)
        );
    }

    #[tokio::test]
    async fn preflights_pass_and_other_options_do_not() {
        let options =
            || testkit::request("OPTIONS", "/v1/tenants").header("Origin", "https://a.example");
        let preflight = options().header("Access-Control-Request-Method", "POST");
        assert!(judge(preflight, "{}").await.goes_on());
        assert!(!judge(options(), "{}").await.goes_on());
        assert!(
            !judge(
                options().header("Access-Control-Request-Method", "a b"),
                "{}"
            )
            .await
            .goes_on()
        );
    }

    #[test]
    fn misspelt_settings_are_errors() {
        let registry = Registry::new().with(CorrelationId);
        for config in [
            r#"{"mising": "generate"}"#,
            r#"{"missing": "invent"}"#,
            "[]",
        ] {
            assert!(
                registry.chain([("correlation-id", config)]).is_err(),
                "{config}"
            );
        }
    }
}
