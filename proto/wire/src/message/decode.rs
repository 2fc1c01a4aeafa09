//! From a frame's buffer to an owned message.

use flatbuffers::{ForwardsUOffset, Vector};

use super::{Action, Entry, HttpReqCallReq, HttpRespCallReq, HttpRespCallResp, Info, Message};
use super::{PrepareConfReq, Rewrite, Stop};
use crate::generated::a6::{self, err::Code};
use crate::read::{self, DecodeError, Entries, root, text};
use crate::{ErrorCode, FrameType, Side};

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
                let call = read::PrepareConf::read(body)?;
                let conf = owned(call.conf());
                Ok(Self::PrepareConfReq(PrepareConfReq {
                    conf,
                    key: call.key().to_vec(),
                }))
            }
            (Side::Gateway, FrameType::HttpReqCall) => {
                let call = read::HttpReqCall::read(body)?;
                Ok(Self::HttpReqCallReq(HttpReqCallReq {
                    id: call.id(),
                    src_ip: call.src_ip().to_vec(),
                    method: call.method(),
                    path: call.path().to_vec(),
                    args: owned(call.args()),
                    headers: owned(call.headers()),
                    conf_token: call.conf_token(),
                }))
            }
            (Side::Gateway, FrameType::ExtraInfo) => {
                let answer = read::ExtraInfoResp::read(body)?;
                Ok(Self::ExtraInfoResp {
                    result: answer.result().map(<[u8]>::to_vec),
                })
            }
            (Side::Gateway, FrameType::HttpRespCall) => {
                let call = read::HttpRespCall::read(body)?;
                Ok(Self::HttpRespCallReq(HttpRespCallReq {
                    id: call.id(),
                    status: call.status(),
                    headers: owned(call.headers()),
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
/// beyond it.
fn extra_info_request(body: &[u8]) -> Result<Message, DecodeError> {
    use a6::extra_info::{Info as Number, Req, ReqTag};
    const NAME: &str = "extra-info request";
    let info = match Number(root::<ReqTag<'_>>(NAME, body)?.info_type()) {
        Number::Var => {
            let name = root::<Req<'_>>(NAME, body)?
                .info_as_var()
                .and_then(|var| var.name());
            Info::Var(text(name).to_vec())
        }
        Number::ReqBody => Info::ReqBody,
        Number::RespBody => Info::RespBody,
        Number(other) => Info::Unknown(other),
    };
    Ok(Message::ExtraInfoReq(info))
}

fn bytes(field: Option<Vector<'_, u8>>) -> Option<Vec<u8>> {
    field.map(|bytes| bytes.bytes().to_vec())
}

fn entries<'a>(field: Option<Vector<'a, ForwardsUOffset<a6::TextEntry<'a>>>>) -> Vec<Entry> {
    owned(Entries::new(field))
}

fn owned(entries: Entries<'_>) -> Vec<Entry> {
    entries
        .map(|(name, value)| Entry {
            name: name.to_vec(),
            value: value.map(<[u8]>::to_vec),
        })
        .collect()
}
