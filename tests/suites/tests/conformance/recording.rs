//! The recording.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use postern_wire::frame::HEADER_LEN;
use postern_wire::message::Message;
use postern_wire::{FrameType, Side};

use crate::message::HttpMessage;

/// A file of exchanges.
pub(crate) struct Recording {
    /// It is not the one that belongs to the clone.
    pub(crate) foreign: bool,
    pub(crate) upstream_answer: UpstreamAnswer,
    pub(crate) exchanges: Vec<Exchange>,
    /// The port that the gateway listened on, if it shows anywhere.
    pub(crate) port: Option<Vec<u8>>,
}

/// What the upstream answered to every request.
#[derive(Clone)]
pub(crate) struct UpstreamAnswer {
    pub(crate) status: u16,
    /// The lines of its headers.
    pub(crate) headers: Vec<u8>,
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

    /// The message, if it is whole and one of this side's.
    pub(crate) fn message(&self) -> Option<Message> {
        let kind = FrameType::try_from(self.kind()).ok()?;
        let side = if self.from_gateway {
            Side::Gateway
        } else {
            Side::Runner
        };
        Message::decode(side, kind, self.body()).ok()
    }

    /// Whether it is the answer to prepare-conf that a gateway hopes for.
    pub(crate) fn gives_token(&self) -> bool {
        matches!(self.message(), Some(Message::PrepareConfResp { .. }))
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

/// A frame of the gateway's and what it led to.
pub(crate) struct Step {
    /// The frame's type.
    pub(crate) kind: u8,
    pub(crate) answers: Vec<Frame>,
}

impl Step {
    pub(crate) fn prepares(&self) -> bool {
        self.kind == PREPARE_CONF
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
        let exchanges = exchanges.iter().map(|exchange| {
            let name = exchange["name"].as_str().unwrap_or("?");
            Exchange::read(exchange).with_context(|| format!("exchange {name}"))
        });
        let exchanges = exchanges.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            foreign: std::env::var_os("GOLDEN").is_some(),
            upstream_answer: UpstreamAnswer::read(&file["upstream_answer"])?,
            port: exchanges.iter().find_map(port),
            exchanges,
        })
    }
}

/// What the gateway says of its port where the client named none.
fn port(exchange: &Exchange) -> Option<Vec<u8>> {
    let calls = exchange.frames.iter().filter(|frame| frame.from_gateway);
    let headers = calls.filter_map(|frame| match frame.message()? {
        Message::HttpReqCallReq(call) => Some(call.headers),
        _ => None,
    });
    let told = headers
        .flatten()
        .find(|header| header.is("x-forwarded-port"));
    let upstream = exchange.upstream.as_deref().and_then(HttpMessage::parse);
    let sent = || Some(upstream?.get(b"x-forwarded-port")?.to_vec());
    let port = told.and_then(|header| header.value).or_else(sent);
    port.filter(|_| !exchange.names_port())
}

impl UpstreamAnswer {
    fn read(value: &Value) -> Result<Self> {
        let status = value["status"].as_u64().context("upstream_answer.status")?;
        let status = u16::try_from(status).context("upstream_answer.status")?;
        let mut headers = Vec::new();
        for header in value["headers"]
            .as_array()
            .context("upstream_answer.headers")?
        {
            headers.extend(latin1(&header[0])?);
            headers.extend_from_slice(b": ");
            headers.extend(latin1(&header[1])?);
            headers.extend_from_slice(b"\r\n");
        }
        let body = latin1(&value["body"])?;
        Ok(Self {
            status,
            headers,
            body,
        })
    }

    /// The reason was not recorded: where it shows, `compare` leaves it out.
    pub(crate) fn head(&self) -> Vec<u8> {
        let reason = if self.status == 200 { "OK" } else { "Recorded" };
        let line = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        [line.as_bytes(), &self.headers, b"\r\n"].concat()
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

    /// The gateway's frames, each with what the runner said to it.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for frame in &self.frames {
            if frame.from_gateway {
                steps.push(Step {
                    kind: frame.kind(),
                    answers: Vec::new(),
                });
            } else if let Some(step) = steps.last_mut() {
                step.answers.push(frame.clone());
            }
        }
        steps
    }

    /// Whether it begins with a configuration that the runner does not take, which
    /// a gateway shows only while it has no token.
    pub(crate) fn begins_without_token(&self) -> bool {
        let steps = self.steps();
        let begins = steps.first().filter(|step| step.prepares());
        begins.is_some_and(|step| !step.answers.iter().any(Frame::gives_token))
    }

    /// Whether the client named a port beside the host: the gateway goes by it.
    pub(crate) fn names_port(&self) -> bool {
        let request = HttpMessage::parse(&self.request);
        let host = request.as_ref().and_then(|request| request.get(b"host"));
        host.is_some_and(|host| {
            let port = host.rsplit(|byte| *byte == b':').next().unwrap_or_default();
            let digits = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
            digits && port.len() < host.len()
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
