//! An upstream that is not one of our handlers: it tells each request's head back, so
//! that a test sees what `context` with `mode: headers` lets through.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use postern_harness::stack::Stack;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const MAX_HEAD: usize = 64 << 10;

/// Starts one on a port of its own, for as long as the test's runtime runs.
///
/// # Errors
/// No port is free.
pub async fn start() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(tell_back(stream));
        }
    });
    Ok(port)
}

/// Answers a request with its own head, as JSON text, and closes.
async fn tell_back(mut stream: TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "a head without end");
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = received(&head, "content-length");
    let length = length.first().and_then(|length| length.parse().ok());
    // What nobody reads would have the answer reset on its way.
    let mut body = (&mut stream).take(length.unwrap_or(0));
    tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
    let body = json!({ "head": head }).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// The gateway's routes with some families sent to the upstream at `port`, as an operator
/// would write them: the file and its text.
///
/// # Errors
/// The stack runs elsewhere, or its routes are not as they are generated.
pub fn rerouted(
    stack: &Stack,
    port: u16,
    chosen: impl Fn(&str) -> bool,
) -> Result<(PathBuf, String)> {
    let path = stack.folder()?.join("run/conf/apisix.yaml");
    let mut file: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&path)?)?;
    let nodes = json!({ format!("127.0.0.1:{port}"): 1 });
    let list = |file: &mut Value, name: &str| -> Result<Vec<Value>> {
        let list = file.get_mut(name).and_then(Value::as_array_mut);
        list.map(std::mem::take)
            .with_context(|| format!("a list of {name}"))
    };
    let mut upstreams = list(&mut file, "upstreams")?;
    upstreams.push(json!({"id": "foreign", "type": "roundrobin", "nodes": nodes}));
    let mut routes = list(&mut file, "routes")?;
    let mut found = 0;
    for route in &mut routes {
        let id = route.get("id").and_then(Value::as_str).unwrap_or_default();
        let chain = route.pointer("/plugins/ext-plugin-pre-req/conf");
        let Some(last) = chain.and_then(Value::as_array).map(Vec::len) else {
            continue;
        };
        let last = format!(
            "/plugins/ext-plugin-pre-req/conf/{}",
            last.saturating_sub(1)
        );
        let ours = route.pointer(&format!("{last}/name")) == Some(&json!("context"));
        if !ours || !chosen(id) {
            continue;
        }
        let conf = route
            .pointer_mut(&format!("{last}/value"))
            .context("a value")?;
        *conf = json!(r#"{"mode":"headers"}"#);
        *route.get_mut("upstream_id").context("an upstream")? = json!("foreign");
        found += 1;
    }
    ensure!(found > 0, "no route was chosen");
    for (name, list) in [("upstreams", upstreams), ("routes", routes)] {
        *file.get_mut(name).context(name)? = Value::Array(list);
    }
    // JSON, as APISIX reads YAML 1.1, where a bare `on` is true.
    Ok((path, format!("{file}\n#END\n")))
}

/// The values of a header in a head, whichever way it is spelt.
#[must_use]
pub fn received(head: &str, name: &str) -> Vec<String> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.to_lowercase().replace('_', "-") == name)
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}
