//! `/health` and `/v1/platform`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use postern_contract::{Family, Match, routes};
use postern_harness::api::is_timestamp;
use postern_harness::token::{Token, unique};
use postern_harness::wait_for;
use serde_json::{Value, json};

use super::{ANY, SOON, stack};

#[tokio::test]
async fn health_is_told_to_anybody() -> Result<()> {
    let nobody = stack().await.anonymous();
    let health = nobody.get("/health").await?.expect(200)?;
    assert_eq!(health.text_at("/status")?, "ok");
    ensure!(is_timestamp(&health.text_at("/timestamp")?), "{health:?}");
    assert_eq!(
        health.json()?.as_object().map(serde_json::Map::len),
        Some(2)
    );
    let platform = nobody.get("/v1/platform/health").await?.expect(200)?;
    let backends = platform.at("/backends")?;
    let backends = backends.as_array().context("a list of backends")?;
    ensure!(!backends.is_empty(), "{platform:?}");
    for backend in backends {
        assert_eq!(backend["status"], "up", "{backend}");
        ensure!(
            backend["latencyMs"].is_number() && backend["name"].is_string(),
            "{backend}"
        );
    }
    Ok(())
}

/// The gateway hands `traceparent` on, and the handler's event names the trace.
#[tokio::test]
async fn a_trace_is_handed_on_and_logged() -> Result<()> {
    let stack = stack().await;
    let id = trace_id();
    let reply = stack.platform_admin().await?.get(ANY);
    let parent = format!("00-{id}-00f067aa0ba902b7-01");
    let reply = reply.set("traceparent", &parent).await?.expect(200)?;
    let correlation_id = reply.one("x-correlation-id")?;
    // Of a stack that runs elsewhere there is no log to look at.
    let Ok(folder) = stack.folder() else {
        return Ok(());
    };
    let log = folder.join("data/handlers.log");
    let event = wait_for("the request's event", SOON, async || {
        let log = std::fs::read_to_string(&log)?;
        let line = log.lines().find(|line| line.contains(correlation_id));
        let line = line.with_context(|| format!("{correlation_id} is in no line"))?;
        Ok(serde_json::from_str::<Value>(line)?)
    })
    .await?;
    assert_eq!(event["trace_id"], json!(id), "{event}");
    Ok(())
}

/// 32 hexadecimal digits that nobody else has.
fn trace_id() -> String {
    let bytes = unique().into_bytes();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let last: String = digits.chars().rev().take(32).collect();
    format!("{last:0>32}")
}

#[tokio::test]
async fn info_tells_versions_families_and_plans() -> Result<()> {
    let anybody = stack().await.client(&Token::platform("nobody")).await?;
    let info = anybody.get(ANY).await?.expect(200)?.json()?;
    ensure!(
        info["version"]
            .as_str()
            .is_some_and(|version| !version.is_empty()),
        "{info}"
    );
    assert_eq!(info["apiVersions"], json!(["2024-01-01"]));
    let families = info["families"].to_string();
    for family in ["platform", "tenants", "workspaces"] {
        ensure!(families.contains(family), "{families}");
    }
    let plans = info["plans"].as_array().context("a list of plans")?;
    let names: Vec<&str> = plans
        .iter()
        .filter_map(|plan| plan["id"].as_str())
        .collect();
    assert_eq!(names, ["starter", "growth", "regulated", "enterprise"]);
    assert_eq!(plans[0]["workspaces"], 3);
    assert_eq!(plans[3]["workspaces"], Value::Null);
    assert_eq!(plans[1]["capabilities"], json!(["identity"]));
    Ok(())
}

/// The description and the routes table: each operation of one is one of the other.
#[tokio::test]
async fn the_description_covers_every_route_that_is_served() -> Result<()> {
    let stack = stack().await;
    let admin = stack.platform_admin().await?;
    let document = admin
        .get("/v1/platform/openapi.json")
        .await?
        .expect(200)?
        .json()?;
    ensure!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.")),
        "{document}"
    );
    let paths = document["paths"].as_object().context("it has paths")?;
    let mut described = BTreeSet::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().context("a path has methods")? {
            described.insert((method.to_uppercase(), path.clone()));
            let responses = operation["responses"]
                .as_object()
                .context("an operation has responses")?;
            ensure!(
                responses.keys().any(|status| status.starts_with('2')),
                "{method} {path}"
            );
            ensure!(operation["operationId"].is_string(), "{method} {path}");
        }
    }
    let on = [Family::Platform, Family::Tenants, Family::Workspaces];
    let table: BTreeSet<_> = routes()
        .all()
        .iter()
        .filter(|route| on.contains(&route.family))
        .map(|route| {
            let template = |segment: &str| match segment.strip_prefix([':', '*']) {
                Some(name) => format!("{{{name}}}"),
                None => segment.to_owned(),
            };
            let path: Vec<String> = route.path.split('/').map(template).collect();
            (route.method.to_string(), path.join("/"))
        })
        .collect();
    assert_eq!(described, table);
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap_or_default();
        ensure!(
            document.pointer(pointer).is_some(),
            "{pointer} leads nowhere"
        );
    }
    Ok(())
}

/// Every route of the description, walked by somebody without a token.
#[tokio::test]
async fn nothing_but_what_is_public_answers_without_a_token() -> Result<()> {
    let stack = stack().await;
    for route in routes().all() {
        let nobody = stack.anonymous();
        let path = route.path.replace([':', '*'], "x-");
        let found = matches!(
            routes().find_raw(&route.method, &path),
            Ok(Match::Found(..))
        );
        ensure!(found, "{path} is no path of {}", route.id);
        let mut call = nobody.call(route.method.clone(), &path);
        if route.is_mutation() {
            let media_type = route.media_types[0].replace("*/*", "text/plain");
            call = call.json(&json!({})).set("content-type", &media_type);
        }
        let reply = call.await?;
        if route.is_public() {
            ensure!(
                reply.status == 200 || reply.status == 503,
                "{}: {reply:?}",
                route.id
            );
        } else {
            let refused = reply.refused(401, "TOKEN_MISSING");
            refused.with_context(|| route.id.clone())?;
        }
    }
    Ok(())
}
