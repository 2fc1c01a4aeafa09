//! The rules of `headers`, each with what passes and what does not.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use postern_contract::Code;

use super::{Headers, HeadersSettings};
use crate::Registry;
use crate::testkit::{self, Outcome, Simulated};

async fn judge_with(request: Simulated, config: &str) -> Outcome {
    let registry = Registry::new().with(Headers::new(HeadersSettings::default()).unwrap());
    request
        .judge(&registry.chain([("headers", config)]).unwrap())
        .await
}

async fn judge(request: Simulated) -> Outcome {
    judge_with(request, "{}").await
}

fn get(path: &str) -> Simulated {
    testkit::request("GET", path).header("X-API-Version", "2024-01-01")
}

/// A mutation that lacks nothing.
fn mutation(method: &str, path: &str) -> Simulated {
    let request = testkit::request(method, path).header("X-API-Version", "2024-01-01");
    request.header("Idempotency-Key", "k1")
}

fn with_body(request: Simulated, media_type: &str) -> Simulated {
    request
        .header("Content-Length", "2")
        .header("Content-Type", media_type)
}

async fn refused(request: Simulated, status: u16, code: Code) -> Outcome {
    let outcome = judge(request).await;
    assert_eq!(
        (outcome.status(), outcome.code()),
        (Some(status), Some(code)),
        "{outcome}"
    );
    outcome
}

#[tokio::test]
async fn ninety_headers_are_too_many() {
    let with =
        |count: usize| (1..count).fold(get("/v1/tenants"), |r, n| r.header(&format!("x-{n}"), "v"));
    assert!(judge(with(89)).await.goes_on());
    refused(with(90), 431, Code::HeadersTooLarge).await;
    let many = (1..100).fold(get("/v1/tenants"), |request, _| {
        request.header("x-same", "v")
    });
    refused(many, 431, Code::HeadersTooLarge).await;
}

#[tokio::test]
async fn only_routes_of_the_table() {
    refused(get("/v1/tenants/a/b/c"), 404, Code::RouteNotFound).await;
    let other = refused(mutation("PUT", "/v1/tenants"), 405, Code::MethodNotAllowed).await;
    assert_eq!(other.header("allow"), Some("POST, GET, HEAD"));
    refused(get("/v1/tenants/\0"), 400, Code::ValidationError).await;
    let preflight =
        testkit::request("OPTIONS", "/v1/tenants").header("Origin", "https://a.example");
    assert!(
        judge(preflight.header("Access-Control-Request-Method", "PUT"))
            .await
            .goes_on()
    );
}

#[tokio::test]
async fn versions() {
    let without = || testkit::request("GET", "/v1/tenants");
    refused(without(), 400, Code::ApiVersionMissing).await;
    let unsupported = refused(
        without().header("X-API-Version", "1999-01-01"),
        400,
        Code::ApiVersionUnsupported,
    )
    .await;
    assert!(unsupported.message().unwrap().contains("2024-01-01"));
    assert!(judge(testkit::request("GET", "/health")).await.goes_on());
    refused(
        testkit::request("GET", "/health").header("X-API-Version", "x"),
        400,
        Code::ApiVersionUnsupported,
    )
    .await;
    let none = HeadersSettings {
        api_versions: Vec::new(),
    };
    assert!(Headers::new(none).is_err());
    let echoed = refused(get("/v1/nowhere"), 404, Code::RouteNotFound).await;
    assert!(
        echoed.header("x-api-version").is_none(),
        "nobody has judged it yet"
    );
}

#[tokio::test]
async fn what_means_one_thing_stands_once() {
    let twice = |name: &str| get("/v1/tenants").header(name, "1").header(name, "1");
    for name in [
        "Authorization",
        "Content-Type",
        "Content-Length",
        "If-Range",
        "Host",
    ] {
        let outcome = refused(twice(name), 400, Code::HeaderRepeated).await;
        assert!(
            outcome
                .message()
                .unwrap()
                .contains(&name.to_ascii_lowercase())
        );
    }
    refused(
        get("/v1/tenants").header("x-api-version", "2024-01-01"),
        400,
        Code::HeaderRepeated,
    )
    .await;
    refused(twice("Idempotency-Key"), 400, Code::IdempotencyKeyInvalid).await;
    for list in ["Accept", "Prefer", "If-None-Match", "X-Forwarded-For"] {
        assert!(judge(twice(list)).await.goes_on(), "{list} is a list");
    }
}

#[tokio::test]
async fn bodies_are_of_the_routes_types() {
    let tenants = || mutation("POST", "/v1/tenants");
    for good in ["application/json", "Application/JSON; charset=utf-8"] {
        assert!(judge(with_body(tenants(), good)).await.goes_on(), "{good}");
    }
    for bad in ["text/csv", "json", "application/merge-patch+json", ""] {
        let outcome = refused(with_body(tenants(), bad), 415, Code::UnsupportedMediaType).await;
        assert!(
            outcome.message().unwrap().contains("application/json"),
            "{bad}"
        );
    }
    refused(
        tenants().header("Content-Length", "2"),
        415,
        Code::UnsupportedMediaType,
    )
    .await;
    refused(
        tenants().header("Transfer-Encoding", "chunked"),
        415,
        Code::UnsupportedMediaType,
    )
    .await;
    let packed = with_body(tenants(), "application/json");
    assert!(
        judge(packed.clone().header("Content-Encoding", "identity"))
            .await
            .goes_on()
    );
    refused(
        packed.header("Content-Encoding", "gzip"),
        415,
        Code::UnsupportedMediaType,
    )
    .await;

    let patch = with_body(
        mutation("PATCH", "/v1/tenants/t"),
        "application/merge-patch+json",
    );
    assert!(judge(patch).await.goes_on());
    assert!(
        judge(mutation("DELETE", "/v1/tenants/t").header("Content-Type", "text/plain"))
            .await
            .goes_on(),
        "no body"
    );
    let object = "/v1/storage/w/objects/a/b";
    assert!(
        judge(with_body(mutation("PUT", object), "video/mp4"))
            .await
            .goes_on()
    );
    assert!(
        judge(mutation("PUT", object).header("Content-Length", "2"))
            .await
            .goes_on()
    );
}

#[tokio::test]
async fn announced_lengths_are_held_to_the_routes_limit() {
    let of = |path: &str, length: &str| {
        mutation("POST", path)
            .header("Content-Type", "application/json")
            .header("Content-Length", length)
    };
    assert!(judge(of("/v1/tenants", "1048576")).await.goes_on());
    refused(of("/v1/tenants", "1048577"), 413, Code::BodyTooLarge).await;
    refused(of("/v1/auth/token", "262145"), 413, Code::BodyTooLarge).await;
    for bad in ["-1", "1,1", "0x10", "99999999999999999999999"] {
        refused(of("/v1/tenants", bad), 400, Code::ValidationError).await;
    }
}

#[tokio::test]
async fn idempotency_keys() {
    let with = |key: &str| get("/v1/tenants").header("Idempotency-Key", key);
    assert!(judge(with("no form for a read")).await.goes_on());
    let post = || testkit::request("POST", "/v1/tenants").header("X-API-Version", "2024-01-01");
    refused(post(), 400, Code::IdempotencyKeyMissing).await;
    assert!(
        judge(post().header("Idempotency-Key", "\"quoted\""))
            .await
            .goes_on()
    );
    for bad in ["", "with a blank", "\"open", &"k".repeat(256)] {
        refused(
            post().header("Idempotency-Key", bad),
            400,
            Code::IdempotencyKeyInvalid,
        )
        .await;
    }
    let optional = r#"{"idempotencyKey": {"required": false}}"#;
    assert!(judge_with(post(), optional).await.goes_on());
    let bad = judge_with(post().header("Idempotency-Key", ""), optional).await;
    assert_eq!(bad.code(), Some(Code::IdempotencyKeyInvalid));
    for exempt in ["/v1/auth/token", "/v1/mongo/w/collections/c/aggregate"] {
        let post = testkit::request("POST", exempt).header("X-API-Version", "2024-01-01");
        assert!(judge(post).await.goes_on(), "{exempt}");
    }
}
