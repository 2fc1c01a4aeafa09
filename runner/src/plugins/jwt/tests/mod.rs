//! Tokens through a chain, with keys made by aws-lc and issuers over real HTTP.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]

mod bearer;
mod claims;
mod heirs;
mod introspection;
mod issuer;
mod issuers;
mod outage;
mod revocations;
mod rotation;
mod settings;
mod signatures;
mod signer;
mod templates;

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Jwt, seconds};
use crate::chain::Chain;
use crate::legacy::Legacies;
use crate::testkit::{self, Outcome, Simulated};
use crate::{Flow, Plugin, Registry, Request};
use issuer::Issuer;
use signer::{OTHER, RSA, Signer};

/// Shows whom `jwt` found.
struct Show;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct ShowConfig {}

impl Plugin for Show {
    const NAME: &'static str = "show";
    type Config = ShowConfig;

    async fn on_request(&self, _: &ShowConfig, request: &mut Request<'_>) -> Flow {
        let shown = request
            .facts
            .identity
            .as_ref()
            .map(|who| format!("{who:?}"));
        if let Some(shown) = shown {
            request.set_header("x-identity", shown);
        }
        Flow::Next
    }
}

/// A runner that trusts these issuers, and ends with the test.
struct Runner {
    registry: Registry,
    legacies: Legacies,
    stop: CancellationToken,
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn jwt(settings: Value) -> Jwt {
    Jwt::new(serde_json::from_value(settings).unwrap()).unwrap()
}

/// On a busy machine a fetch takes long: who does not say so waits for it.
fn runner(issuers: &[Value], mut fetch: Value) -> Runner {
    let fetches = fetch.as_object_mut().unwrap();
    fetches.entry("waitMs").or_insert(json!(5000));
    Runner::of(jwt(json!({"issuers": issuers, "fetch": fetch})))
}

impl Runner {
    fn of(jwt: Jwt) -> Self {
        let mut registry = jwt.register(Registry::new()).with(Show);
        let legacies = registry.take_legacies();
        let stop = CancellationToken::new();
        registry.start_tasks(&stop);
        Self {
            registry,
            legacies,
            stop,
        }
    }

    fn trusting(issuer: &Issuer) -> Self {
        runner(&[issuer.settings()], json!({}))
    }

    fn chain(&self, config: &str) -> Chain {
        self.registry
            .chain([("jwt", config), ("show", "{}")])
            .unwrap()
    }

    async fn judge(&self, token: &str) -> Outcome {
        judge(&self.chain("{}"), token).await
    }

    /// Until the token is judged so.
    async fn becomes(&self, token: &str, expected: impl Fn(&Outcome) -> bool) -> Outcome {
        let judged = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let outcome = self.judge(token).await;
                if expected(&outcome) {
                    return outcome;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        judged.await.unwrap()
    }
}

async fn judge(chain: &Chain, token: &str) -> Outcome {
    bearing(token).judge(chain).await
}

fn bearing(token: &str) -> Simulated {
    let request = testkit::request("GET", "/v1/platform/info");
    request.header("Authorization", format!("Bearer {token}"))
}

fn edit(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}
