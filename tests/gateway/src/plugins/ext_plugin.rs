//! `ext-plugin-pre-req` and `ext-plugin-post-req`: the call to the runner, with
//! what it asks for in between, and `allow_degradation`. The third,
//! `ext-plugin-post-resp`, shares that call.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use postern_wire::Method;
use postern_wire::frame::{FrameType, MAX_LEN};
use postern_wire::message::{Entry, HttpReqCallReq, Info, Message};
use serde::Deserialize;
use serde_yaml_ng::Value;

use super::Owner;
use crate::exchange::{End, Exchange};
use crate::http::answer::LuaError;
use crate::http::uri::{Escape, escape};
use crate::request::Request;
use crate::rpc::{Connection, RpcError, answer};

/// The number of `A6.ExtraInfo.RespBody`.
const RESP_BODY: u8 = 3;

/// How often a call is made while the runner does not know its token.
pub const TRIES: u8 = 3;

/// One of the three, with its configuration.
#[derive(Debug)]
pub struct ExtPlugin {
    key: String,
    conf: Vec<Entry>,
    allow_degradation: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conf {
    #[serde(default)]
    conf: Vec<PluginConf>,
    #[serde(default)]
    allow_degradation: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConf {
    name: String,
    value: String,
}

/// What a call may come to, besides failing.
pub type Verdict = Option<(u16, Option<Vec<u8>>)>;

/// Upstream bodies that a runner may ask for.
pub trait ResponseBody {
    /// The whole body; none if there is no response.
    fn read(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, End>> + Send;
}

/// Before the upstream was asked.
pub struct NoResponse;

impl ResponseBody for NoResponse {
    async fn read(&mut self) -> Result<Option<Vec<u8>>, End> {
        tracing::error!("failed to read response body: not exits");
        Ok(None)
    }
}

impl ExtPlugin {
    /// Reads a configuration.
    pub fn build(name: &str, conf: Value, owner: &Owner) -> Result<Self> {
        let Conf {
            conf,
            allow_degradation,
        } = serde_yaml_ng::from_value(conf)?;
        let named = conf
            .iter()
            .all(|plugin| (1..=128).contains(&plugin.name.len()));
        ensure!(named, "a plugin's name has 1 to 128 characters");
        Ok(Self {
            key: owner.key(name),
            conf: conf
                .into_iter()
                .map(|plugin| Entry::new(plugin.name, plugin.value))
                .collect(),
            allow_degradation,
        })
    }

    /// The whole of pre-req and post-req.
    pub async fn request(&self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        for _ in 0..TRIES {
            let tried = self.try_request(exchange).await;
            if let ControlFlow::Break(outcome) = self.settle(exchange, tried) {
                return match outcome? {
                    None => Ok(()),
                    Some((status, body)) => Err(End::Exit(status, body)),
                };
            }
        }
        match self.failed() {
            None => Ok(()),
            Some((status, body)) => Err(End::Exit(status, body)),
        }
    }

    /// Whether one try was the last.
    pub fn settle(
        &self,
        exchange: &Exchange<'_>,
        tried: Result<Verdict, RpcError>,
    ) -> ControlFlow<Result<Verdict, End>> {
        match tried {
            Ok(verdict) => ControlFlow::Break(Ok(verdict)),
            Err(RpcError::End(end)) => ControlFlow::Break(Err(end)),
            Err(RpcError::TokenNotFound) => {
                tracing::warn!("conf token not found: refresh cache and try again");
                exchange.worker.rpc.tokens.flush();
                ControlFlow::Continue(())
            }
            Err(RpcError::Failed(why)) => {
                tracing::error!("{why}");
                ControlFlow::Break(Ok(self.failed()))
            }
        }
    }

    /// What a failure comes to.
    pub fn failed(&self) -> Verdict {
        if self.allow_degradation {
            tracing::warn!("Plugin Runner is wrong, allow degradation");
            return None;
        }
        Some((503, None))
    }

    /// The token of this configuration.
    pub async fn token(&self, exchange: &Exchange<'_>) -> Result<u32, RpcError> {
        exchange.worker.rpc.token(&self.key, &self.conf).await
    }

    async fn try_request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, RpcError> {
        let worker = exchange.worker;
        let mut connection = worker.rpc.connect().await?;
        let token = self.token(exchange).await?;
        let call = call(&mut exchange.request, worker.rpc.next_id(), token)?;
        connection.send(&Message::HttpReqCallReq(call)).await?;
        let answer = converse(
            &mut connection,
            exchange,
            &mut NoResponse,
            FrameType::HttpReqCall,
        )
        .await?;
        let Message::HttpReqCallResp { action, .. } = answer else {
            return Err(RpcError::Failed("unexpected answer".into()));
        };
        let verdict = answer::apply(exchange, action)
            .await
            .map_err(RpcError::End)?;
        worker.rpc.keep(connection);
        Ok(verdict)
    }
}

/// Answers what the runner asks for until it answers the call.
pub async fn converse(
    connection: &mut Connection,
    exchange: &mut Exchange<'_>,
    response: &mut impl ResponseBody,
    call: FrameType,
) -> Result<Message, RpcError> {
    loop {
        let message = connection.receive(&[call, FrameType::ExtraInfo]).await?;
        let Message::ExtraInfoReq(info) = message else {
            return Ok(message);
        };
        let result = match info {
            Info::Var(Some(name)) => variable(&mut exchange.request, &name),
            Info::Var(None) => {
                return Err(LuaError::new("invalid argument, expect string value").into());
            }
            // Where there is no response Lua does not come to look at the table.
            Info::Bare(RESP_BODY) if call == FrameType::HttpReqCall => None,
            Info::Bare(_) => return Err(LuaError::new("attempt to index local 'info'").into()),
            Info::ReqBody => request_body(exchange).await?,
            Info::RespBody => response.read().await.map_err(RpcError::End)?,
            Info::Unknown(kind) => {
                let why = format!("unsupported info type: {kind}");
                return Err(RpcError::Failed(why));
            }
        };
        connection.send(&Message::ExtraInfoResp { result }).await?;
    }
}

fn variable(request: &mut Request, name: &[u8]) -> Option<Vec<u8>> {
    request.var(std::str::from_utf8(name).ok()?)
}

/// `core.request.get_body`: an empty body is none.
async fn request_body(exchange: &mut Exchange<'_>) -> Result<Option<Vec<u8>>, RpcError> {
    let end = |error| RpcError::End(End::from(error));
    exchange.request.body.check_length().map_err(end)?;
    let body = exchange
        .request
        .body
        .whole(exchange.reader, exchange.writer);
    let Some(spool) = body.await.map_err(end)? else {
        return Ok(None);
    };
    let read = spool.read(MAX_LEN as u64).await;
    match read.map_err(|_| RpcError::End(End::Exit(500, None)))? {
        None => Err(RpcError::Failed(format!(
            "failed to reply RPC_EXTRA_INFO: the max length of data is {MAX_LEN}"
        ))),
        Some(body) => Ok(Some(body).filter(|body| !body.is_empty())),
    }
}

/// The call that describes a request.
fn call(request: &mut Request, id: u32, conf_token: u32) -> Result<HttpReqCallReq, LuaError> {
    let path = if request.upstream_uri.is_empty() {
        request.uri.clone()
    } else {
        // A plugin before this one has rewritten it, arguments included.
        let uri = request.upstream_uri.clone();
        let mut halves = uri.splitn(2, |byte| *byte == b'?');
        let path = halves.next().unwrap_or_default().to_vec();
        if let Some(query) = halves.next() {
            request.set_args(escape(query, Escape::Args));
        }
        path
    };
    let args = request.args().0.iter().flat_map(|(name, values)| {
        let entry = move |value: &Option<Vec<u8>>| Entry {
            name: Some(name.clone()),
            value: value.clone(),
        };
        values.iter().map(entry)
    });
    let args = args.collect();
    let host = request.upstream_host.clone();
    let headers = request.seen().iter().flat_map(|(name, values)| {
        let host = host.as_ref().filter(|_| name == b"host");
        values
            .iter()
            .map(move |value| Entry::new(name.clone(), host.unwrap_or(value).clone()))
    });
    let headers = headers.collect();
    let method = String::from_utf8_lossy(&request.head.method).parse::<Method>();
    Ok(HttpReqCallReq {
        id,
        src_ip: request.client_bytes(),
        method: method.map_err(|error| LuaError::new(error.to_string()))?,
        path,
        args,
        headers,
        conf_token,
    })
}
