//! Nothing is believed but what the runner sealed.

use std::time::Duration;

use http::{HeaderMap, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Caller, Deployment, Request, code, text};

#[tokio::test]
async fn without_a_context_nothing_is_told() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    for path in ["/health", "/v1/tenants", "/v1/nothing", "/v1/tenants/x%00"] {
        let mut headers = HeaderMap::new();
        headers.insert("x-auth-subject", "root".parse().unwrap());
        headers.insert("x-auth-roles", "superadmin".parse().unwrap());
        headers.insert("x-correlation-id", "corr-of-client".parse().unwrap());
        let reply = server
            .http
            .send(&Method::GET, &server.url(path), &headers, "".into())
            .await
            .unwrap();
        assert_eq!(code(&reply), (401, "CONTEXT_INVALID".into()), "{path}");
        assert_eq!(reply.header("x-correlation-id"), Some("corr-of-client"));
        assert_eq!(text(&reply, "/error/correlationId"), "corr-of-client");
    }
}

#[tokio::test]
async fn a_path_that_reads_in_two_ways_is_refused() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    for (judged, sent) in [
        ("/v1/tenants/a/usage", "/v1/tenants/a%2Fusage"),
        ("/v1/tenants/a", "/v1/workspaces/..%2F..%2Ftenants%2Fa"),
        ("/v1/tenants/a", "/v1/tenants//a"),
        ("/v1/workspaces/a", "/v1/tenants/a"),
        ("/v1/tenants/a", "/v1/tenants/b"),
    ] {
        let mut request = Request::new(&admin, Method::GET, sent);
        request.judged = Some(judged.into());
        let reply = request.send(&deployment, &server).await;
        assert_eq!(code(&reply), (400, "PATH_AMBIGUOUS".into()), "{sent}");
    }
}

#[tokio::test]
async fn two_contexts_are_none() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let request = Request::new(&admin, Method::GET, "/v1/tenants");
    let sealed = request.context(&deployment);
    let mut twice = request;
    twice.headers.push(("x-postern-context".into(), sealed));
    assert_eq!(
        code(&twice.send(&deployment, &server).await),
        (401, "CONTEXT_INVALID".into())
    );
}

#[tokio::test]
async fn an_answer_carries_what_the_runner_knew() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let reply = Request::new(
        &Caller::platform("superadmin"),
        Method::GET,
        "/v1/platform/info",
    )
    .send(&deployment, &server)
    .await;
    let reply = reply.expect(200).unwrap();
    for (name, value) in [
        ("x-correlation-id", "corr-of-test"),
        ("x-api-version", "2024-01-01"),
        ("x-ratelimit-limit", "240"),
        ("x-ratelimit-remaining", "59"),
        ("x-ratelimit-reset", "1700000000"),
        ("ratelimit", "\"tenant_control\";r=59;t=1;pk=:BwcHBwcHBwc=:"),
        (
            "ratelimit-policy",
            "\"tenant_control\";q=240;w=60;pk=:BwcHBwcHBwc=:",
        ),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert_eq!(reply.json().unwrap()["plans"][0]["id"], "starter");
}

#[tokio::test]
async fn two_hundred_headers_arrive() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let mut request = Request::new(&Caller::platform("superadmin"), Method::GET, "/v1/tenants");
    request
        .headers
        .extend((0..200).map(|n| (format!("x-filler-{n}"), "x".into())));
    request
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap();
}

#[tokio::test]
async fn bodies_have_a_limit_and_a_form() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let post = |body: &str| {
        let mut request = Request::new(&admin, Method::POST, "/v1/tenants").json(&json!({}));
        request.body = body.to_owned().into();
        request
    };
    let large = format!("{{\"slug\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(
        code(&post(&large).send(&deployment, &server).await),
        (413, "BODY_TOO_LARGE".into())
    );
    for body in [
        "",
        "null",
        "[]",
        "7",
        "{",
        &"[".repeat(100_000),
        "{\"slug\":\"\\u0000\"}",
        "\u{0}",
    ] {
        let reply = post(body).send(&deployment, &server).await;
        assert_eq!(code(&reply), (400, "VALIDATION_ERROR".into()), "{body:.20}");
    }
    let reply = post("{}").send(&deployment, &server).await.json().unwrap();
    assert_eq!(
        reply["error"]["details"].as_array().unwrap().len(),
        4,
        "{reply}"
    );
    let plain = post("{}")
        .header("content-type", "text/plain")
        .send(&deployment, &server)
        .await;
    assert_eq!(code(&plain), (415, "UNSUPPORTED_MEDIA_TYPE".into()));
}

#[tokio::test]
async fn keys_are_read_again() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let path = deployment.folder.path().join("context.keys");
    let good = std::fs::read_to_string(&path).unwrap();
    let ask = async || {
        let admin = Caller::platform("superadmin");
        Request::new(&admin, Method::GET, "/v1/tenants")
            .send(&deployment, &server)
            .await
            .status
    };
    assert_eq!(ask().await, 200);
    let other = good.replace("k1 ", "k9 ");
    let until = async |content: &str, status: u16| {
        std::fs::write(&path, content).unwrap();
        let seen = async || {
            let now = ask().await;
            anyhow::ensure!(now == status, "it is {now}");
            Ok(())
        };
        postern_harness::wait_for("the new keys", Duration::from_secs(10), seen)
            .await
            .unwrap();
    };
    until(&format!("{other}# rotated\n"), 401).await;
    until(&good, 200).await;
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let deployment = Deployment::new().await;
    let more = json!({"limits": {"idleMs": 300, "bodyMs": 300}});
    let server = deployment.serve_with("a", &more).await;
    let talk = async |sent: &str| {
        let mut stream = TcpStream::connect(server.ports[0].address()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), read)
            .await
            .expect("it is left open")
            .unwrap();
        answer
    };
    assert_eq!(
        talk("GET /health HTTP/1.1\r\nhost").await,
        "",
        "half a head"
    );
    let request = Request::new(
        &Caller::platform("platform_admin"),
        Method::POST,
        "/v1/tenants",
    );
    let context = request.context(&deployment);
    let half = format!(
        "POST /v1/tenants HTTP/1.1\r\nhost: h\r\nx-postern-context: {context}\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"slug\":"
    );
    let answer = talk(&half).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("took too long"),
        "{answer}"
    );
}
