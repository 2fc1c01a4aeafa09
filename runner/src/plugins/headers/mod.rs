//! `headers`: what a request must look like before anybody asks who sent it.
//!
//! In order: few enough headers to see all of them; a route of the table; no single-value
//! header twice; an API version; a body that may be this long and of this type; an
//! idempotency key of the right form. All of it is read in place and costs no round trip.

mod media_type;
#[cfg(test)]
mod tests;

use http::Method;
use postern_contract::idempotency::IdempotencyKey;
use postern_contract::{Code, Match, Route, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::no_route::{no_text, not_allowed, not_found};
use super::preflight::is_preflight;
use crate::singles::Single;
use crate::{Flow, Plugin, Reply, Request};
use media_type::MediaType;

/// Checks presence and form of what every request brings.
pub struct Headers {
    versions: Vec<String>,
}

/// The section `headers` of the runner's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HeadersSettings {
    /// The dates that `X-API-Version` may have.
    pub api_versions: Vec<String>,
}

impl Default for HeadersSettings {
    fn default() -> Self {
        Self {
            api_versions: vec!["2024-01-01".into()],
        }
    }
}

/// What a route says about its headers; what they must be stands in the routes table.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HeadersConfig {
    /// Idempotency keys of the route.
    idempotency_key: IdempotencyKeyConfig,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct IdempotencyKeyConfig {
    /// Whether a mutation without `Idempotency-Key` is refused. One that comes is
    /// checked and honoured in any case.
    required: bool,
}

impl Default for IdempotencyKeyConfig {
    fn default() -> Self {
        Self { required: true }
    }
}

impl Headers {
    /// A plugin for a deployment that serves these API versions.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(settings: HeadersSettings) -> anyhow::Result<Self> {
        let versions = settings.api_versions;
        anyhow::ensure!(
            !versions.is_empty(),
            "plugins.headers.apiVersions: name at least one date"
        );
        Ok(Self { versions })
    }

    fn judge<'a>(
        &self,
        config: &HeadersConfig,
        request: &Request<'a>,
    ) -> Result<Option<&'a str>, Reply> {
        few_enough(request)?;
        let route = match request.route() {
            Ok(Match::Found(route, _)) => *route,
            Ok(Match::MethodNotAllowed(allow)) => return Err(not_allowed(request, allow)),
            Ok(Match::NotFound) => return Err(not_found(request)),
            Err(error) => return Err(no_text(error)),
        };
        none_repeated(request)?;
        let version = self.version(route, request)?;
        if route.is_mutation() {
            body(route, request)?;
        }
        if route.idempotent {
            idempotency_key(config, request)?;
        }
        Ok(version)
    }

    fn version<'a>(&self, route: &Route, request: &Request<'a>) -> Result<Option<&'a str>, Reply> {
        let supported = || self.versions.join(", ");
        let version = request.single(Single::ApiVersion).unwrap_or_default();
        match version.map(std::str::from_utf8) {
            Some(Ok(value)) if self.versions.iter().any(|v| v == value) => Ok(Some(value)),
            Some(_) => Err(Reply::refuse(
                Code::ApiVersionUnsupported,
                format!(
                    "X-API-Version is not supported: send one of {}",
                    supported()
                ),
            )),
            None if route.is_public() => Ok(None),
            None => Err(Reply::refuse(
                Code::ApiVersionMissing,
                format!("X-API-Version is missing: send one of {}", supported()),
            )),
        }
    }
}

impl Headers {
    fn decide(&self, config: &HeadersConfig, request: &mut Request<'_>) -> Flow {
        if is_preflight(request) {
            return Flow::Pass;
        }
        match self.judge(config, request) {
            Ok(version) => {
                request.facts.api_version = version.map(Into::into);
                Flow::Next
            }
            Err(refusal) => Flow::Stop(refusal),
        }
    }
}

impl Plugin for Headers {
    const NAME: &'static str = "headers";
    type Config = HeadersConfig;

    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        Some(self.decide(config, request))
    }
}

fn few_enough(request: &Request<'_>) -> Result<(), Reply> {
    let count = request.header_count();
    if count < header::MAX_HEADERS {
        return Ok(());
    }
    let message = format!(
        "{count} headers are too many: send fewer than {}",
        header::MAX_HEADERS
    );
    Err(Reply::refuse(Code::HeadersTooLarge, message))
}

fn none_repeated(request: &Request<'_>) -> Result<(), Reply> {
    let Some(name) = request.repeated() else {
        return Ok(());
    };
    // The key's own code says the same and names the form besides.
    let code = match name {
        header::IDEMPOTENCY_KEY => Code::IdempotencyKeyInvalid,
        _ => Code::HeaderRepeated,
    };
    let message = format!("{name} is there more than once: send it once");
    Err(Reply::refuse(code, message))
}

/// What is announced of a body, by Content-Length or chunks.
fn body(route: &Route, request: &Request<'_>) -> Result<(), Reply> {
    let length = match request.header("content-length").map(std::str::from_utf8) {
        None => None,
        Some(text) => match text.ok().and_then(|text| text.parse::<u64>().ok()) {
            Some(length) => Some(length),
            None => {
                let message = "Content-Length is no number: send the body's length in bytes";
                return Err(Reply::refuse(Code::ValidationError, message));
            }
        },
    };
    if length.is_some_and(|length| length > route.body_limit) {
        let message = format!(
            "the body is above this route's limit of {} bytes",
            route.body_limit
        );
        return Err(Reply::refuse(Code::BodyTooLarge, message));
    }
    let has_body = match length {
        Some(length) => length > 0,
        None => request.header("transfer-encoding").is_some(),
    };
    if has_body {
        media_type(route, request)
    } else {
        Ok(())
    }
}

fn media_type(route: &Route, request: &Request<'_>) -> Result<(), Reply> {
    if route.takes("*/*") {
        return Ok(());
    }
    let packed = |coding: &[u8]| !coding.trim_ascii().eq_ignore_ascii_case(b"identity");
    if request.header_values("content-encoding").any(packed) {
        let message = "packed bodies are not taken here: send the body without Content-Encoding";
        return Err(Reply::refuse(Code::UnsupportedMediaType, message)
            .with_header("Accept-Encoding", "identity"));
    }
    let what = match request.header("content-type").map(MediaType::parse) {
        None => "Content-Type is missing",
        Some(Some(sent)) if route.takes(sent.essence()) => return Ok(()),
        Some(Some(_)) => "this Content-Type is not taken here",
        Some(None) => "Content-Type is malformed",
    };
    let taken = route.media_types.join(", ");
    Err(
        Reply::refuse(Code::UnsupportedMediaType, format!("{what}: send {taken}")).with_header(
            if *request.method() == Method::PATCH {
                "Accept-Patch"
            } else {
                "Accept"
            },
            taken,
        ),
    )
}

fn idempotency_key(config: &HeadersConfig, request: &Request<'_>) -> Result<(), Reply> {
    let key = request.single(Single::IdempotencyKey).unwrap_or_default();
    match key.map(IdempotencyKey::parse) {
        Some(Ok(_)) => Ok(()),
        Some(Err(form)) => Err(Reply::refuse(
            Code::IdempotencyKeyInvalid,
            format!("Idempotency-Key {form}"),
        )),
        None if config.idempotency_key.required => Err(Reply::refuse(
            Code::IdempotencyKeyMissing,
            "Idempotency-Key is missing: send a new one for each new action and the same for its retries",
        )),
        None => Ok(()),
    }
}
