//! Every message of the protocol as an owned value, for both of its ends.
//!
//! `decode(encode(x)) == x`, and every frame that APISIX or a runner sends has a
//! value here. The runner's own path uses [`crate::read`] and [`crate::write`].

mod decode;
mod encode;

use crate::write::Pair;
use crate::{ErrorCode, Method};

/// A name with a value: a header, an argument, a plugin's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The name. A call's entry without one has an empty one, as the runner reads
    /// it. In an answer none is none: APISIX's Lua throws on it.
    pub name: Option<Vec<u8>>,
    /// The value, if there is one.
    pub value: Option<Vec<u8>>,
}

impl Entry {
    /// A name with a value.
    pub fn new(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: Some(name.into()),
            value: Some(value.into()),
        }
    }

    /// A name without a value.
    pub fn bare(name: impl Into<Vec<u8>>) -> Self {
        Self {
            name: Some(name.into()),
            value: None,
        }
    }

    /// Whether this is its name, whatever the case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let known = self.name.as_deref();
        known.is_some_and(|known| known.eq_ignore_ascii_case(name.as_bytes()))
    }
}

impl Pair for Entry {
    fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
}

/// One message, named by its frame's type and direction: `Req` is a call, `Resp`
/// its answer. Calls come from the gateway, except for extra-info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An error in place of an answer.
    Err(ErrorCode),
    /// A route's plugins, to be exchanged for a token.
    PrepareConfReq(PrepareConfReq),
    /// The token.
    PrepareConfResp {
        /// Never 0.
        conf_token: u32,
    },
    /// A request before it goes upstream.
    HttpReqCallReq(HttpReqCallReq),
    /// What is to be done with it.
    HttpReqCallResp {
        /// The call's number. APISIX does not look at it.
        id: u32,
        /// None: the request goes on unchanged.
        action: Option<Action>,
    },
    /// The runner asks for something.
    ExtraInfoReq(Info),
    /// What the gateway found.
    ExtraInfoResp {
        /// None: no such variable, no body.
        result: Option<Vec<u8>>,
    },
    /// An upstream's answer before it goes to the client.
    HttpRespCallReq(HttpRespCallReq),
    /// What is to be changed in it.
    HttpRespCallResp(HttpRespCallResp),
}

/// A route's plugins (`A6.PrepareConf.Req`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrepareConfReq {
    /// Each plugin's name and configuration, in execution order.
    pub conf: Vec<Entry>,
    /// `route#<id>#<plugin>#<version>`.
    pub key: Vec<u8>,
}

/// A request (`A6.HTTPReqCall.Req`); see [`crate::read::HttpReqCall`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReqCallReq {
    /// The call's number.
    pub id: u32,
    /// The client's address, 4 or 16 bytes.
    pub src_ip: Vec<u8>,
    /// The request's method.
    pub method: Method,
    /// The path as the gateway judged it.
    pub path: Vec<u8>,
    /// The query's arguments, decoded.
    pub args: Vec<Entry>,
    /// The first hundred headers.
    pub headers: Vec<Entry>,
    /// The token that prepare-conf gave.
    pub conf_token: u32,
}

/// What a runner wants done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The client is answered by the runner itself.
    Stop(Stop),
    /// The request goes on, changed.
    Rewrite(Rewrite),
    /// A number that the protocol does not have. APISIX lets the request go on.
    Unknown(u8),
}

/// See [`crate::write::Stop`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<Entry>,
    /// The body.
    pub body: Option<Vec<u8>>,
}

/// See [`crate::write::Rewrite`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The new path.
    pub path: Option<Vec<u8>>,
    /// Request headers to set or delete.
    pub headers: Vec<Entry>,
    /// Arguments to set or delete.
    pub args: Vec<Entry>,
    /// Headers to set on the response.
    pub resp_headers: Vec<Entry>,
    /// The new body.
    pub body: Option<Vec<u8>>,
}

/// What a runner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    /// An nginx variable, by its name without `$`. Lua throws where there is none.
    Var(Option<Vec<u8>>),
    /// The request's body.
    ReqBody,
    /// The response's body.
    RespBody,
    /// The number of one of those above, without the table that belongs to it.
    Bare(u8),
    /// A number that the protocol does not have; 0 when the runner asked for
    /// nothing. The gateway takes it for a failure of the call.
    Unknown(u8),
}

/// An upstream's answer (`A6.HTTPRespCall.Req`); see [`crate::read::HttpRespCall`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRespCallReq {
    /// The call's number.
    pub id: u32,
    /// The upstream's status.
    pub status: u16,
    /// The upstream's headers.
    pub headers: Vec<Entry>,
    /// The token that prepare-conf gave.
    pub conf_token: u32,
}

/// See [`crate::write::Respond`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRespCallResp {
    /// The call's number.
    pub id: u32,
    /// The new status; 0 keeps the upstream's.
    pub status: u16,
    /// The headers to send; none keeps the upstream's.
    pub headers: Vec<Entry>,
    /// The new body; none keeps the upstream's.
    pub body: Option<Vec<u8>>,
}
