//! From an owned message to a whole frame.
//!
//! The runner's messages go through the same [`Writer`] that the runner uses;
//! the gateway's are written here.

use super::{Action, HttpReqCallReq, HttpRespCallReq, Info, Message, PrepareConfReq};
use crate::FrameType;
use crate::generated::a6;
use crate::write::{Ask, Respond, Rewrite, Stop, TooLarge, Writer};

impl Message {
    /// The message as a frame, header included.
    pub fn encode(&self) -> Result<Vec<u8>, TooLarge> {
        let mut writer = Writer::new();
        self.write(&mut writer).map(<[u8]>::to_vec)
    }

    fn write<'w>(&self, writer: &'w mut Writer) -> Result<&'w [u8], TooLarge> {
        match self {
            Self::Err(code) => writer.error(*code),
            Self::PrepareConfReq(call) => prepare_conf(writer, call),
            Self::PrepareConfResp { conf_token } => writer.conf_token(*conf_token),
            Self::HttpReqCallReq(call) => http_req_call(writer, call),
            Self::HttpReqCallResp { id, action } => match action {
                None => writer.no_action(*id),
                Some(Action::Stop(stop)) => {
                    let super::Stop {
                        status,
                        headers,
                        body,
                    } = stop;
                    let body = body.as_deref();
                    writer.stop(
                        *id,
                        &Stop {
                            status: *status,
                            headers,
                            body,
                        },
                    )
                }
                Some(Action::Rewrite(rewrite)) => {
                    let super::Rewrite {
                        path,
                        headers,
                        args,
                        resp_headers,
                        body,
                    } = rewrite;
                    let (path, body) = (path.as_deref(), body.as_deref());
                    writer.rewrite(
                        *id,
                        &Rewrite {
                            path,
                            headers,
                            args,
                            resp_headers,
                            body,
                        },
                    )
                }
                Some(Action::Unknown(number)) => unknown_action(writer, *id, *number),
            },
            Self::ExtraInfoReq(info) => match info {
                Info::Var(Some(name)) => writer.extra_info(Ask::Var(name)),
                Info::Var(None) => nameless_variable(writer),
                Info::ReqBody => writer.extra_info(Ask::ReqBody),
                Info::RespBody => writer.extra_info(Ask::RespBody),
                Info::Bare(number) | Info::Unknown(number) => bare_info(writer, *number),
            },
            Self::ExtraInfoResp { result } => extra_info_answer(writer, result.as_deref()),
            Self::HttpRespCallReq(call) => http_resp_call(writer, call),
            Self::HttpRespCallResp(answer) => {
                let super::HttpRespCallResp {
                    id,
                    status,
                    headers,
                    body,
                } = answer;
                let body = body.as_deref();
                writer.respond(
                    *id,
                    &Respond {
                        status: *status,
                        headers,
                        body,
                    },
                )
            }
        }
    }
}

fn prepare_conf<'w>(writer: &'w mut Writer, call: &PrepareConfReq) -> Result<&'w [u8], TooLarge> {
    use a6::prepare_conf::{Req, ReqArgs};
    writer.begin();
    let key = Some(writer.text(&call.key)?);
    let conf = writer.entries(&call.conf)?;
    let root = Req::create(&mut writer.builder, &ReqArgs { conf, key });
    writer.finish(FrameType::PrepareConf, root)
}

fn http_req_call<'w>(writer: &'w mut Writer, call: &HttpReqCallReq) -> Result<&'w [u8], TooLarge> {
    use a6::httpreq_call::{Req, ReqArgs};
    writer.begin();
    let src_ip = writer.bytes(Some(&call.src_ip))?;
    let path = Some(writer.text(&call.path)?);
    let args = writer.entries(&call.args)?;
    let headers = writer.entries(&call.headers)?;
    let HttpReqCallReq { id, conf_token, .. } = *call;
    let method = call.method.to_wire();
    let root = ReqArgs {
        id,
        src_ip,
        method,
        path,
        args,
        headers,
        conf_token,
    };
    let root = Req::create(&mut writer.builder, &root);
    writer.finish(FrameType::HttpReqCall, root)
}

fn http_resp_call<'w>(
    writer: &'w mut Writer,
    call: &HttpRespCallReq,
) -> Result<&'w [u8], TooLarge> {
    use a6::httpresp_call::{Req, ReqArgs};
    writer.begin();
    let headers = writer.entries(&call.headers)?;
    let HttpRespCallReq {
        id,
        status,
        conf_token,
        ..
    } = *call;
    let root = ReqArgs {
        id,
        status,
        headers,
        conf_token,
    };
    let root = Req::create(&mut writer.builder, &root);
    writer.finish(FrameType::HttpRespCall, root)
}

fn extra_info_answer<'w>(
    writer: &'w mut Writer,
    result: Option<&[u8]>,
) -> Result<&'w [u8], TooLarge> {
    use a6::extra_info::{Resp, RespArgs};
    writer.begin();
    let result = writer.bytes(result)?;
    let root = Resp::create(&mut writer.builder, &RespArgs { result });
    writer.finish(FrameType::ExtraInfo, root)
}

fn unknown_action(writer: &mut Writer, id: u32, action_type: u8) -> Result<&[u8], TooLarge> {
    use a6::httpreq_call::{RespTag, RespTagArgs};
    writer.begin();
    let root = RespTag::create(&mut writer.builder, &RespTagArgs { id, action_type });
    writer.finish(FrameType::HttpReqCall, root)
}

fn nameless_variable(writer: &mut Writer) -> Result<&[u8], TooLarge> {
    use a6::extra_info::{Info, Req, ReqArgs, Var, VarArgs};
    writer.begin();
    let info = Var::create(&mut writer.builder, &VarArgs { name: None }).as_union_value();
    let root = ReqArgs {
        info_type: Info::Var,
        info: Some(info),
    };
    let root = Req::create(&mut writer.builder, &root);
    writer.finish(FrameType::ExtraInfo, root)
}

fn bare_info(writer: &mut Writer, info_type: u8) -> Result<&[u8], TooLarge> {
    use a6::extra_info::{ReqTag, ReqTagArgs};
    writer.begin();
    let root = ReqTag::create(&mut writer.builder, &ReqTagArgs { info_type });
    writer.finish(FrameType::ExtraInfo, root)
}
