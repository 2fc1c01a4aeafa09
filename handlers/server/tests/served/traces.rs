//! Traces, as a collector gets them.

use std::time::Duration;

use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use postern_harness::ports::Port;
use prost::Message as _;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Caller, Deployment, Request, Server, tenant};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector on a free port, and what it is sent.
async fn collector() -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(receive(stream, sender.clone()));
        }
    });
    (endpoint, received)
}

/// The exports of one connection.
async fn receive(stream: TcpStream, to: mpsc::UnboundedSender<ExportTraceServiceRequest>) {
    let mut stream = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if lower == "\r\n" {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let _ = to.send(ExportTraceServiceRequest::decode(body.as_slice()).unwrap());
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(ok).await.unwrap();
        }
        line.clear();
    }
}

async fn ends(server: &mut Server) {
    server.process.signal(Signal::TERM).unwrap();
    let ended = async || {
        let status = server.process.ended()?;
        anyhow::ensure!(status.is_some_and(|status| status.success()), "{status:?}");
        Ok(())
    };
    postern_harness::wait_for("the end", Duration::from_secs(10), ended)
        .await
        .unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn post(flags: &str) -> Request {
    Request::new(
        &Caller::platform("platform_admin"),
        Method::POST,
        "/v1/tenants",
    )
    .json(&tenant())
    .header("traceparent", &format!("00-{TRACE}-{PARENT}-{flags}"))
}

#[tokio::test]
async fn a_request_and_its_mutation_continue_the_gateways_trace() {
    let deployment = Deployment::new().await;
    let (endpoint, mut received) = collector().await;
    let more = json!({"otlp": {"endpoint": endpoint}});
    let mut server = deployment.serve_with("a", &more).await;
    for flags in ["01", "00"] {
        let reply = post(flags).send(&deployment, &server).await;
        reply.expect(201).unwrap();
    }
    // Sent before it ends, not only when a batch is due.
    ends(&mut server).await;
    let mut spans: Vec<Span> = Vec::new();
    while let Ok(export) = received.try_recv() {
        let scopes = export.resource_spans.into_iter();
        let scopes = scopes.flat_map(|resource| resource.scope_spans);
        spans.extend(scopes.flat_map(|scope| scope.spans));
    }
    // The second request's trace was not sampled.
    let of_trace = |span: &&Span| hex(&span.trace_id) == TRACE;
    let ours: Vec<_> = spans.iter().filter(of_trace).collect();
    let names: Vec<_> = ours.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["mutation", "tenants.create"], "{spans:#?}");
    assert_eq!(hex(&ours[1].parent_span_id), PARENT);
    assert_eq!(ours[0].parent_span_id, ours[1].span_id);
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let deployment = Deployment::new().await;
    let nobody = Port::free().unwrap();
    let more = json!({"otlp": {"endpoint": format!("http://{}/v1/traces", nobody.address())}});
    let mut server = deployment.serve_with("a", &more).await;
    for _ in 0..20 {
        let reply = post("01").send(&deployment, &server).await;
        reply.expect(201).unwrap();
    }
    ends(&mut server).await;
}
