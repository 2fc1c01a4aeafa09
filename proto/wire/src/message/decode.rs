//! From a frame's buffer to an owned message.

use flatbuffers::{ForwardsUOffset, InvalidFlatbuffer, Vector};

use super::{Action, Entry, HttpReqCallReq, HttpRespCallReq, HttpRespCallResp, Info, Message};
use super::{PrepareConfReq, Rewrite, Stop};
use crate::generated::a6::{self, err::Code};
use crate::verify::{DecodeError, root};
use crate::{ErrorCode, FrameType, Method, Side};

impl Message {
    /// Reads the buffer of a frame of this type that came `from` this side.
    pub fn decode(from: Side, frame_type: FrameType, body: &[u8]) -> Result<Self, DecodeError> {
        match (from, frame_type) {
            (Side::Runner, FrameType::Error) => error(body),
            (Side::Runner, FrameType::PrepareConf) => {
                let answer = root::<a6::prepare_conf::Resp<'_>>("prepare-conf answer", body)?;
                Ok(Self::PrepareConfResp {
                    conf_token: answer.conf_token(),
                })
            }
            (Side::Runner, FrameType::HttpReqCall) => http_req_call_answer(body),
            (Side::Runner, FrameType::ExtraInfo) => extra_info_request(body),
            (Side::Runner, FrameType::HttpRespCall) => {
                let answer = root::<a6::httpresp_call::Resp<'_>>("http-resp-call answer", body)?;
                Ok(Self::HttpRespCallResp(HttpRespCallResp {
                    id: answer.id(),
                    status: answer.status(),
                    headers: entries(answer.headers()),
                    body: bytes(answer.body()),
                }))
            }
            (Side::Gateway, FrameType::PrepareConf) => {
                let call = root::<a6::prepare_conf::Req<'_>>("prepare-conf", body)?;
                let (conf, key) = (named(call.conf()), text(call.key()));
                Ok(Self::PrepareConfReq(PrepareConfReq { conf, key }))
            }
            (Side::Gateway, FrameType::HttpReqCall) => {
                let call = root::<a6::httpreq_call::Req<'_>>("http-req-call", body)?;
                let method = call.method();
                let method =
                    Method::from_wire(method).ok_or(DecodeError::UnknownMethod(method.0))?;
                Ok(Self::HttpReqCallReq(HttpReqCallReq {
                    id: call.id(),
                    src_ip: text(call.src_ip()),
                    method,
                    path: text(call.path()),
                    args: named(call.args()),
                    headers: named(call.headers()),
                    conf_token: call.conf_token(),
                }))
            }
            (Side::Gateway, FrameType::ExtraInfo) => {
                let answer = root::<a6::extra_info::Resp<'_>>("extra-info", body)?;
                Ok(Self::ExtraInfoResp {
                    result: bytes(answer.result()),
                })
            }
            (Side::Gateway, FrameType::HttpRespCall) => {
                let call = root::<a6::httpresp_call::Req<'_>>("http-resp-call", body)?;
                Ok(Self::HttpRespCallReq(HttpRespCallReq {
                    id: call.id(),
                    status: call.status(),
                    headers: named(call.headers()),
                    conf_token: call.conf_token(),
                }))
            }
            (Side::Gateway, FrameType::Error) => Err(DecodeError::Unexpected(from, frame_type)),
        }
    }
}

fn error(body: &[u8]) -> Result<Message, DecodeError> {
    let code = match root::<a6::err::Resp<'_>>("error frame", body)?.code() {
        Code::BAD_REQUEST => ErrorCode::BadRequest,
        Code::SERVICE_UNAVAILABLE => ErrorCode::ServiceUnavailable,
        Code::CONF_TOKEN_NOT_FOUND => ErrorCode::ConfTokenNotFound,
        Code(other) => return Err(DecodeError::UnknownErrorCode(other)),
    };
    Ok(Message::Err(code))
}

/// The number is read first: one that the protocol does not have may stand there
/// without a table, which the verifier refuses in a union.
fn http_req_call_answer(body: &[u8]) -> Result<Message, DecodeError> {
    use a6::httpreq_call::{Action as Number, Resp, RespTag};
    const NAME: &str = "http-req-call answer";
    let tag = root::<RespTag<'_>>(NAME, body)?;
    let id = tag.id();
    let action = match Number(tag.action_type()) {
        Number::NONE => None,
        Number::Stop => root::<Resp<'_>>(NAME, body)?.action_as_stop().map(|stop| {
            Action::Stop(Stop {
                status: stop.status(),
                headers: entries(stop.headers()),
                body: bytes(stop.body()),
            })
        }),
        Number::Rewrite => root::<Resp<'_>>(NAME, body)?
            .action_as_rewrite()
            .map(|rewrite| {
                Action::Rewrite(Rewrite {
                    path: bytes(rewrite.path()),
                    headers: entries(rewrite.headers()),
                    args: entries(rewrite.args()),
                    resp_headers: entries(rewrite.resp_headers()),
                    body: bytes(rewrite.body()),
                })
            }),
        Number(other) => Some(Action::Unknown(other)),
    };
    Ok(Message::HttpReqCallResp { id, action })
}

/// The number is read first, as above. Only a variable's name is worth a look
/// beyond it, and whether there is a table at all.
fn extra_info_request(body: &[u8]) -> Result<Message, DecodeError> {
    use a6::extra_info::{Info as Number, Req, ReqTag};
    const NAME: &str = "extra-info request";
    let number = Number(root::<ReqTag<'_>>(NAME, body)?.info_type());
    let request = root::<Req<'_>>(NAME, body);
    let is_bare = request.as_ref().is_err_and(lacks_table);
    let info = match number {
        Number::Var | Number::ReqBody | Number::RespBody if is_bare => Info::Bare(number.0),
        Number::Var => Info::Var(request?.info_as_var().and_then(|var| bytes(var.name()))),
        Number::ReqBody => Info::ReqBody,
        Number::RespBody => Info::RespBody,
        Number(other) => Info::Unknown(other),
    };
    Ok(Message::ExtraInfoReq(info))
}

/// Whether a union has a number and no table.
fn lacks_table(error: &DecodeError) -> bool {
    matches!(error, DecodeError::Invalid { cause, .. }
        if matches!(**cause, InvalidFlatbuffer::InconsistentUnion { .. }))
}

fn bytes(field: Option<Vector<'_, u8>>) -> Option<Vec<u8>> {
    field.map(|bytes| bytes.bytes().to_vec())
}

/// Where absent and empty are the same.
fn text(field: Option<Vector<'_, u8>>) -> Vec<u8> {
    bytes(field).unwrap_or_default()
}

fn entries<'a>(field: Option<Vector<'a, ForwardsUOffset<a6::TextEntry<'a>>>>) -> Vec<Entry> {
    field.map_or_else(Vec::new, |entries| {
        let owned = |entry: a6::TextEntry<'_>| Entry {
            name: bytes(entry.name()),
            value: bytes(entry.value()),
        };
        entries.iter().map(owned).collect()
    })
}

/// The entries of a call, where an absent name is an empty one, as the runner's readers have it.
fn named<'a>(field: Option<Vector<'a, ForwardsUOffset<a6::TextEntry<'a>>>>) -> Vec<Entry> {
    let mut entries = entries(field);
    for entry in &mut entries {
        entry.name.get_or_insert_default();
    }
    entries
}
