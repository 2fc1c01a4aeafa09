//! One call: the frame is read in place, the route's chain asked, the answer encoded once.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use postern_contract::Code;
use postern_wire::read::{HttpReqCall, HttpRespCall, PrepareConf};
use postern_wire::write::{Respond, Writer};
use postern_wire::{DecodeError, ErrorCode, TooLarge};

use super::prepare::{Configurations, Prepared};
use crate::chain::Verdict;
use crate::config::LimitsConfig;
use crate::events::{Call, Events};
use crate::extra::Extra;
use crate::reply::{Finished, Reply};
use crate::request::Request;
use crate::response::Response;
use crate::waiting::Places;

/// What all connections of a worker share.
pub(crate) struct Service {
    pub(crate) configurations: Configurations,
    pub(crate) limits: LimitsConfig,
    pub(crate) events: Events,
    /// For requests whose plugins have to wait.
    pub(crate) places: Places,
}

/// What becomes of a connection after a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next frame is awaited.
    Continue,
    /// The peer has been told what was wrong, or the two are out of step.
    Close,
}

/// An answer, encoded, and what becomes of the connection once it is sent.
pub(crate) type Answer<'w> = Result<(&'w [u8], After), TooLarge>;

impl Service {
    /// Exchanges a route's `conf` for a token.
    pub(crate) async fn prepare_conf<'w>(&self, writer: &'w mut Writer, body: &[u8]) -> Answer<'w> {
        let call = match PrepareConf::read(body) {
            Ok(call) => call,
            Err(error) => return self.malformed(writer, &error),
        };
        let answer = match self.configurations.prepare(&call).await {
            Some(token) => writer.conf_token(token)?,
            None => writer.error(ErrorCode::ServiceUnavailable)?,
        };
        Ok((answer, After::Continue))
    }

    /// Judges a request.
    pub(crate) async fn http_req_call<'w>(
        &self,
        link: &mut dyn Extra,
        writer: &'w mut Writer,
        body: &[u8],
    ) -> Answer<'w> {
        let started = Instant::now();
        let call = match HttpReqCall::read(body) {
            Ok(call) => call,
            Err(error) => return self.malformed(writer, &error),
        };
        let Some(prepared) = self.prepared(call.conf_token()).await else {
            return unknown_token(writer);
        };
        let (id, method) = (call.id(), call.method().as_str());
        let mut request = Request::new(call, link);
        let verdict = match &*prepared {
            Ok(chain) => {
                let at_once = AssertUnwindSafe(|| chain.at_once(&mut request));
                let judged = match catch_unwind(at_once) {
                    Ok(Ok(verdict)) => Ok(verdict),
                    Ok(Err(from)) => {
                        let rest = chain.on_request(from, &mut request, &self.places);
                        self.judge(rest).await
                    }
                    Err(_) => Err(Failure::Panicked),
                };
                judged.unwrap_or_else(|failure| failure.verdict(request.asked))
            }
            Err(_) => misconfigured(),
        };
        let route = request.known_route();
        let (edits, facts) = request.into_parts();
        let event = Call {
            method,
            route,
            started,
            facts: &facts,
        };
        let verdict = match verdict {
            Verdict::Forward if edits.size() > MAX_ANSWER => Verdict::Stop("edits", too_large()),
            verdict => verdict,
        };
        let answer = match verdict {
            Verdict::Forward => {
                self.events.passed(&event);
                if edits.is_empty() {
                    writer.no_action(id)?
                } else {
                    writer.rewrite(id, &edits.rewrite())?
                }
            }
            Verdict::Stop(plugin, reply) => {
                let stop = self.stop(&event, plugin, reply);
                writer.stop(id, &stop.encodable())?
            }
        };
        Ok((answer, After::Continue))
    }

    /// Shows the chain an upstream's answer.
    pub(crate) async fn http_resp_call<'w>(
        &self,
        link: &mut dyn Extra,
        writer: &'w mut Writer,
        body: &[u8],
    ) -> Answer<'w> {
        let started = Instant::now();
        let call = match HttpRespCall::read(body) {
            Ok(call) => call,
            Err(error) => return self.malformed(writer, &error),
        };
        let Some(prepared) = self.prepared(call.conf_token()).await else {
            return unknown_token(writer);
        };
        let mut response = Response::new(&call, link);
        let verdict = match &*prepared {
            Ok(chain) => {
                let judged = self.judge(chain.on_response(&mut response)).await;
                judged.unwrap_or_else(|failure| failure.verdict(response.asked))
            }
            Err(_) => misconfigured(),
        };
        let (edits, facts) = response.into_parts();
        let event = Call {
            method: "",
            route: None,
            started,
            facts: &facts,
        };
        let verdict = match verdict {
            Verdict::Forward if edits.size() > MAX_ANSWER => Verdict::Stop("edits", too_large()),
            verdict => verdict,
        };
        let answer = match verdict {
            Verdict::Forward => {
                self.events.passed(&event);
                writer.respond(call.id(), &edits.respond())?
            }
            Verdict::Stop(plugin, reply) => {
                let Finished {
                    status,
                    headers,
                    body,
                } = self.stop(&event, plugin, reply);
                let body = Some(&*body);
                writer.respond(
                    call.id(),
                    &Respond {
                        status,
                        headers: &headers,
                        body,
                    },
                )?
            }
        };
        Ok((answer, After::Continue))
    }

    /// A reply as it is sent, told and counted.
    fn stop(&self, event: &Call<'_>, plugin: &'static str, reply: Reply) -> Finished {
        self.events.stopped(event, plugin, &reply);
        let finished = reply.finish(event.facts);
        if finished.size() > MAX_ANSWER {
            too_large().finish(event.facts)
        } else {
            finished
        }
    }

    async fn prepared(&self, token: u32) -> Option<Arc<Prepared>> {
        match self.configurations.get(token) {
            Some(prepared) => Some(prepared),
            None => self.configurations.find(token).await,
        }
    }

    /// Runs a chain: at most for `limits.chainMs`, and a panic ends it, nothing else.
    async fn judge(&self, chain: impl Future<Output = Verdict>) -> Result<Verdict, Failure> {
        let mut chain = pin!(AssertUnwindSafe(chain).catch_unwind());
        // Most chains never wait: they are not worth a timer.
        let verdict = match poll_fn(|cx| Poll::Ready(chain.as_mut().poll(cx))).await {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => match tokio::time::timeout(self.limits.chain(), chain).await {
                Ok(verdict) => verdict,
                Err(_) => return Err(Failure::Slow(self.limits.chain())),
            },
        };
        verdict.map_err(|_| Failure::Panicked)
    }

    /// APISIX closes a connection on an error frame; so do we.
    fn malformed<'w>(&self, writer: &'w mut Writer, error: &DecodeError) -> Answer<'w> {
        self.events.malformed(error);
        Ok((writer.error(ErrorCode::BadRequest)?, After::Close))
    }
}

/// The gateway then forgets its tokens, prepares again and calls anew.
fn unknown_token(writer: &mut Writer) -> Answer<'_> {
    metrics::counter!("postern_unknown_tokens_total").increment(1);
    Ok((writer.error(ErrorCode::ConfTokenNotFound)?, After::Continue))
}

/// Bytes of names, values and body that fit into a frame with what frames them.
const MAX_ANSWER: usize = postern_wire::frame::MAX_LEN - 256 * 1024;

/// A chain that came to no verdict.
enum Failure {
    Panicked,
    Slow(Duration),
}

impl Failure {
    fn verdict(self, plugin: &'static str) -> Verdict {
        match self {
            Self::Panicked => {
                metrics::counter!("postern_panics_total", "plugin" => plugin).increment(1);
                tracing::error!(plugin, "a plugin panicked; the request was answered 500");
                Verdict::Stop(
                    plugin,
                    Reply::refuse(Code::Internal, "The request could not be judged."),
                )
            }
            Self::Slow(limit) => {
                tracing::warn!(
                    plugin,
                    limit_s = limit.as_secs_f64(),
                    "a plugin waited for too long"
                );
                let message = "The request could not be judged in time.";
                let reply = Reply::refuse(Code::BackendUnavailable, message).with_status(504);
                Verdict::Stop(
                    plugin,
                    reply.with_header("Retry-After", Bytes::from_static(b"1")),
                )
            }
        }
    }
}

fn misconfigured() -> Verdict {
    let message = "This route is misconfigured at the gateway.";
    Verdict::Stop(
        "misconfigured",
        Reply::refuse(Code::GatewayMisconfigured, message),
    )
}

fn too_large() -> Reply {
    Reply::refuse(
        Code::Internal,
        "The answer is longer than the gateway takes.",
    )
}
