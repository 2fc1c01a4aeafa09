//! `apisix-conf/apisix.yaml`: one route a family, and the catch-all.

use anyhow::{Context as _, Result};
use postern_contract::{Family, Route, routes};
use serde_json::{Value, json};

/// The handlers' file, which says where they listen unless the operator says otherwise.
const HANDLERS: &str = include_str!("../../../../handlers/server/postern-handlers.yaml");

/// The chain of every route of ours, in order; `ARCHITECTURE.md` has the reasons.
const CHAIN: [&str; 8] = [
    "correlation-id",
    "headers",
    "address-limit",
    "jwt",
    "rate-limit",
    "authorize",
    "idempotency",
    "context",
];

const HEAD: &str = "\
# Generated from proto/contract/routes.toml by `make generate`: edit the table,
# or the generator in tests/tasks/src/generate/apisix.rs.
#
# One route a family, and the catch-all that answers what no route matches.
# What a request needs (scope, roles, rate profile, media types) the runner
# finds in the same table; a plugin's `value` only tunes it.
# `postern-runner schema` shows what each value may hold, `postern-runner check
# apisix.yaml` finds mistakes before a deployment.
";

pub(super) fn render() -> Result<String> {
    let mut rows: Vec<Value> = Family::ALL.into_iter().map(family).collect();
    rows.push(catch_all());
    let file = json!({ "routes": rows, "upstreams": [upstream()?] });
    let yaml = serde_yaml_ng::to_string(&file)?;
    // APISIX reads the file only up to this mark, so that it never reads half of one.
    Ok(format!("{HEAD}{yaml}#END\n"))
}

fn family(family: Family) -> Value {
    let rows: Vec<&Route> = routes().of(family).collect();
    let has_body = rows.iter().any(|route| route.is_mutation());
    let mut plugins = json!({
        "cors": cors(),
        "ext-plugin-pre-req": pre_req(&CHAIN.map(|name| (name, json!({})))),
    });
    if let (true, Some(plugins)) = (has_body, plugins.as_object_mut()) {
        let limit = rows
            .iter()
            .filter(|route| route.is_mutation())
            .map(|route| route.body_limit)
            .max();
        plugins.insert(
            "client-control".into(),
            json!({ "max_body_size": limit.unwrap_or_default() }),
        );
        // Bodies stream: without this nginx reads a request whole before a handler sees it.
        // Not with `proxy-buffering`, which sends the request to another location of nginx:
        // there both of these are forgotten. `config.yaml` does without it.
        plugins.insert(
            "proxy-control".into(),
            json!({ "request_buffering": false }),
        );
    }
    json!({
        "id": family.as_str(),
        "name": family.as_str(),
        "uris": uris(&rows),
        "priority": 10,
        "upstream_id": "handlers",
        "plugins": plugins,
    })
}

/// The family's exact paths, and a wildcard where one has parameters.
fn uris(rows: &[&Route]) -> Vec<String> {
    let mut uris: Vec<String> = Vec::new();
    for route in rows {
        let uri = match route.path.split_once([':', '*']) {
            Some((before, _)) => format!("{before}*"),
            None => route.path.clone(),
        };
        if !uris.contains(&uri) {
            uris.push(uri);
        }
    }
    uris
}

fn catch_all() -> Value {
    let chain = [
        ("correlation-id", json!({ "missing": "generate" })),
        ("address-limit", json!({})),
        ("no-route", json!({})),
    ];
    json!({
        "id": "catch-all",
        "name": "catch-all",
        "uri": "/*",
        "priority": -10,
        "upstream_id": "handlers",
        "plugins": { "cors": cors(), "ext-plugin-pre-req": pre_req(&chain) },
    })
}

fn pre_req(chain: &[(&str, Value)]) -> Value {
    let conf: Vec<_> = chain
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value.to_string() }))
        .collect();
    json!({
        // Just after `cors` (4000): a refusal carries its headers, and a preflight never comes here.
        "_meta": { "priority": 3990 },
        "allow_degradation": false,
        "conf": conf,
    })
}

fn cors() -> Value {
    let expose = [
        "X-API-Version",
        "X-Correlation-Id",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-Idempotency-Replayed",
        "X-Idempotency-Body",
        "ETag",
        "Location",
        "Content-Range",
        "Preference-Applied",
    ];
    let allow = [
        "Authorization",
        "Content-Type",
        "X-API-Version",
        "X-Correlation-Id",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Prefer",
        "Range",
        "Range-Unit",
        "traceparent",
    ];
    json!({
        "allow_origins": "*",
        "allow_methods": "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS",
        "allow_headers": allow.join(","),
        "expose_headers": expose.join(","),
        "max_age": 600,
        "allow_credential": false,
    })
}

fn upstream() -> Result<Value> {
    let handlers: Value = serde_yaml_ng::from_str(HANDLERS)?;
    let listen = handlers.get("listen").and_then(Value::as_str);
    let listen = listen.context("postern-handlers.yaml has no listen")?;
    Ok(json!({
        "id": "handlers",
        "name": "handlers",
        "type": "roundrobin",
        "scheme": "http",
        "nodes": { listen: 1 },
        // A mutation is never sent twice by the gateway: retries are the client's, with its key.
        "retries": 0,
        "timeout": { "connect": 2, "send": 60, "read": 60 },
        "keepalive_pool": { "size": 320, "idle_timeout": 60, "requests": 1000 },
    }))
}
