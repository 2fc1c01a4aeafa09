//! The recording, and the ways in which the self-test spoils it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use postern_wire::frame::HEADER_LEN;

/// A file of exchanges.
pub(crate) struct Recording {
    /// It is not the one that belongs to the clone.
    pub(crate) foreign: bool,
    pub(crate) upstream_answer: UpstreamAnswer,
    pub(crate) exchanges: Vec<Exchange>,
}

/// What the upstream answered to every request.
#[derive(Clone)]
pub(crate) struct UpstreamAnswer {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// One request and all that came of it.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) name: String,
    pub(crate) request: Vec<u8>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) upstream: Option<Vec<u8>>,
    pub(crate) response: Vec<u8>,
}

/// One frame, header included, whole or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) from_gateway: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn kind(&self) -> u8 {
        self.bytes.first().copied().unwrap_or(u8::MAX)
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Whether as many bytes are there as the header says.
    pub(crate) fn is_whole(&self) -> bool {
        match *self.bytes.as_slice() {
            [_, high, middle, low, ..] => {
                u32::from_be_bytes([0, high, middle, low]) as usize == self.body().len()
            }
            _ => false,
        }
    }
}

/// The type of a prepare-conf frame.
pub(crate) const PREPARE_CONF: u8 = 1;

impl Recording {
    /// Reads `GOLDEN`, or the recording that belongs to the clone.
    pub(crate) fn read() -> Result<Self> {
        let path = match std::env::var_os("GOLDEN") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../golden/exchanges.json"
            )),
        };
        // The command may have been given a path that its own folder knows.
        let text = std::fs::read(&path).or_else(|error| {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
            std::fs::read(PathBuf::from(root).join(&path)).map_err(|_| error)
        });
        let text = text.with_context(|| path.display().to_string())?;
        let file: Value =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let exchanges = file["exchanges"]
            .as_array()
            .context("exchanges is no list")?;
        ensure!(!exchanges.is_empty(), "there are no exchanges");
        Ok(Self {
            foreign: std::env::var_os("GOLDEN").is_some(),
            upstream_answer: UpstreamAnswer::read(&file["upstream_answer"])?,
            exchanges: exchanges
                .iter()
                .map(|exchange| {
                    let name = exchange["name"].as_str().unwrap_or("?");
                    Exchange::read(exchange).with_context(|| format!("exchange {name}"))
                })
                .collect::<Result<_>>()?,
        })
    }
}

impl UpstreamAnswer {
    fn read(value: &Value) -> Result<Self> {
        let status = value["status"].as_u64().context("upstream_answer.status")?;
        let reason = if status == 200 { "OK" } else { "Recorded" };
        let mut head = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
        for header in value["headers"]
            .as_array()
            .context("upstream_answer.headers")?
        {
            head.extend(latin1(&header[0])?);
            head.extend_from_slice(b": ");
            head.extend(latin1(&header[1])?);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let body = latin1(&value["body"])?;
        Ok(Self { head, body })
    }
}

fn latin1(value: &Value) -> Result<Vec<u8>> {
    let text = value.as_str().context("not a text")?;
    let byte = |c: char| u8::try_from(u32::from(c)).context("not Latin-1");
    text.chars().map(byte).collect()
}

impl Exchange {
    fn read(value: &Value) -> Result<Self> {
        let frames = value["frames"].as_array().context("frames is no list")?;
        Ok(Self {
            name: value["name"].as_str().context("no name")?.to_owned(),
            request: bytes(&value["request"])?.context("no request")?,
            frames: frames.iter().map(frame).collect::<Result<_>>()?,
            upstream: bytes(&value["upstream"])?,
            response: bytes(&value["response"])?.unwrap_or_default(),
        })
    }

    /// Frames of one side that are not about tokens.
    pub(crate) fn calls(&self) -> Vec<&Frame> {
        let wanted = |frame: &&Frame| frame.from_gateway && frame.kind() != PREPARE_CONF;
        self.frames.iter().filter(wanted).collect()
    }
}

fn frame(value: &Value) -> Result<Frame> {
    Ok(Frame {
        from_gateway: match value["from"].as_str() {
            Some("gateway") => true,
            Some("runner") => false,
            other => anyhow::bail!("a frame from {other:?}"),
        },
        bytes: bytes(&value["bytes"])?.context("a frame without bytes")?,
    })
}

fn bytes(value: &Value) -> Result<Option<Vec<u8>>> {
    match value.as_str() {
        None => Ok(None),
        Some(text) => Ok(Some(STANDARD.decode(text)?)),
    }
}

/// A way to spoil an exchange; none where there is nothing to spoil.
type Change = fn(&Exchange) -> Option<Exchange>;

/// Each must be noticed in every exchange it can be made in.
pub(crate) const CHANGES: [(&str, Change); 10] = [
    ("response status", |exchange| {
        replace_response(exchange, |text| {
            let digit = text.get_mut(9)?;
            *digit = if *digit == b'2' { b'5' } else { b'2' };
            Some(())
        })
    }),
    ("response header", |exchange| {
        replace_response(exchange, |text| {
            let at = find(text, b"\r\n")?;
            text.splice(at..at, b"\r\nX-Spoilt: 1".iter().copied());
            Some(())
        })
    }),
    ("response body", |exchange| {
        let plain = !exchange
            .response
            .windows(9)
            .any(|part| part == b"openresty");
        replace_response(exchange, |text| {
            let at = find(text, b"\r\n\r\n")? + 4;
            let body = text.get(at..).filter(|body| plain && !body.is_empty())?;
            // Inside a chunked body too, letters and quotes are content.
            let spoil = body
                .iter()
                .rposition(|byte| matches!(byte, b'"' | b'}' | b'x'))?;
            text[at + spoil] = b'~';
            Some(())
        })
    }),
    ("upstream target", |exchange| {
        replace_upstream(exchange, |text| {
            let at = find(text, b" HTTP/1.1")?;
            text.insert(at, b'x');
            Some(())
        })
    }),
    ("upstream header", |exchange| {
        replace_upstream(exchange, |text| {
            let at = text
                .windows(6)
                .position(|part| part.eq_ignore_ascii_case(b"host: "))?;
            text[at + 6] ^= 1;
            Some(())
        })
    }),
    ("missing upstream request", |exchange| {
        let mut changed = exchange.clone();
        changed.upstream.take()?;
        Some(changed)
    }),
    ("call's path", |exchange| {
        replace_call(exchange, |call| call.path.push(b'x'))
    }),
    ("call's header", |exchange| {
        replace_call(exchange, |call| {
            let header = call.headers.iter_mut().find(|header| header.is("host"));
            header.unwrap().value = Some(b"other".to_vec());
        })
    }),
    ("call's address", |exchange| {
        replace_call(exchange, |call| call.src_ip[3] ^= 1)
    }),
    ("missing call", |exchange| {
        let mut changed = exchange.clone();
        let wanted = |frame: &Frame| frame.from_gateway && frame.kind() != PREPARE_CONF;
        let at = changed.frames.iter().position(wanted)?;
        changed.frames.remove(at);
        Some(changed)
    }),
];

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

fn replace_response(
    exchange: &Exchange,
    change: impl Fn(&mut Vec<u8>) -> Option<()>,
) -> Option<Exchange> {
    let mut changed = exchange.clone();
    change(&mut changed.response)?;
    Some(changed)
}

fn replace_upstream(
    exchange: &Exchange,
    change: impl Fn(&mut Vec<u8>) -> Option<()>,
) -> Option<Exchange> {
    let mut changed = exchange.clone();
    change(changed.upstream.as_mut()?)?;
    Some(changed)
}

fn replace_call(
    exchange: &Exchange,
    change: impl Fn(&mut postern_wire::message::HttpReqCallReq),
) -> Option<Exchange> {
    use postern_wire::message::Message;
    use postern_wire::{FrameType, Side};
    let mut changed = exchange.clone();
    let mut calls = changed.frames.iter_mut();
    let frame = calls.find(|frame| frame.from_gateway && frame.kind() == 2)?;
    let decoded = Message::decode(Side::Gateway, FrameType::HttpReqCall, frame.body());
    let Ok(Message::HttpReqCallReq(mut call)) = decoded else {
        return None;
    };
    change(&mut call);
    frame.bytes = Message::HttpReqCallReq(call).encode().ok()?;
    Some(changed)
}
