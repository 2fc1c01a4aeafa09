//! What the generator sends: a workspace read with fifteen headers.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Result, bail};
use postern_wire::frame::{HEADER_LEN, Header};
use postern_wire::message::{Entry, HttpReqCallReq, Message, PrepareConfReq};
use postern_wire::{Method, Side};

/// The workspace that is read.
pub(crate) const WORKSPACE: &str = "wks_01JD0000000000000000000002";

/// The call's frame: fifteen headers as a browser's client library sends them and
/// APISIX passes them on.
pub(crate) fn frame(token: Option<&str>, conf_token: u32) -> Result<Vec<u8>> {
    let headers = [
        ("host", "api.example.com".to_owned()),
        ("x-api-version", "2024-01-01".to_owned()),
        ("x-correlation-id", "bench-0123456789abcdef".to_owned()),
        ("accept", "application/json, text/plain, */*".to_owned()),
        ("accept-encoding", "gzip, deflate, br, zstd".to_owned()),
        ("accept-language", "en-GB,en;q=0.9,de;q=0.8".to_owned()),
        ("cache-control", "no-cache".to_owned()),
        ("connection", "keep-alive".to_owned()),
        ("origin", "https://console.example.com".to_owned()),
        (
            "referer",
            "https://console.example.com/workspaces".to_owned(),
        ),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        ),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned(),
        ),
        ("x-forwarded-proto", "https".to_owned()),
        ("x-forwarded-host", "api.example.com".to_owned()),
    ];
    let token = token.map(|token| Entry::new("authorization", format!("Bearer {token}")));
    let headers = headers
        .into_iter()
        .map(|(name, value)| Entry::new(name, value))
        .chain(token);
    let call = HttpReqCallReq {
        id: 7,
        src_ip: vec![192, 0, 2, 10],
        method: Method::Get,
        path: format!("/v1/workspaces/{WORKSPACE}").into_bytes(),
        args: Vec::new(),
        headers: headers.collect(),
        conf_token,
    };
    Ok(Message::HttpReqCallReq(call).encode()?)
}

/// Exchanges a route's plugins for a token.
pub(crate) fn prepare(stream: &mut UnixStream, conf: &[(String, String)]) -> Result<u32> {
    let conf = conf
        .iter()
        .map(|(name, value)| Entry::new(name.as_str(), value.as_str()))
        .collect();
    let call = PrepareConfReq {
        conf,
        key: b"route#bench#ext-plugin-pre-req#1".to_vec(),
    };
    match exchange(stream, &Message::PrepareConfReq(call).encode()?)? {
        Message::PrepareConfResp { conf_token } => Ok(conf_token),
        other => bail!("prepare-conf was answered by {other:?}"),
    }
}

/// One call and its answer.
pub(crate) fn exchange(stream: &mut UnixStream, call: &[u8]) -> Result<Message> {
    stream.write_all(call)?;
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let header = Header::parse(header)?;
    let mut body = vec![0; header.len];
    stream.read_exact(&mut body)?;
    Ok(Message::decode(Side::Runner, header.frame_type, &body)?)
}
