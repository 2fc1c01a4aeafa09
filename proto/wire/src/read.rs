//! Messages read where they lie, as the runner receives them.
//!
//! `read` walks through the whole message once and gives an error if anything in it
//! leads astray; every getter after that only hands out what was found. What a
//! writer may leave out comes back as its default: no bytes, no entries, 0.
//!
//! The numbers are the fields' slots, in the order of `schema/ext-plugin.fbs`.

use crate::generated::a6;
use crate::view::Table;
pub use crate::view::{Entries, Entry, Fault};
use crate::{DecodeError, Method};

/// A route's plugins, to be exchanged for a token (`A6.PrepareConf.Req`).
#[derive(Clone, Copy, Debug)]
pub struct PrepareConf<'a> {
    conf: Entries<'a>,
    key: &'a [u8],
}

impl<'a> PrepareConf<'a> {
    /// Reads the buffer of a prepare-conf frame.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let read = || -> Result<Self, Fault> {
            let table = Table::root(body)?;
            Ok(Self {
                conf: table.entries(0)?,
                key: table.bytes(1)?.unwrap_or_default(),
            })
        };
        read().map_err(|fault| DecodeError::Fault("prepare-conf", fault))
    }

    /// Each plugin's name and configuration, in execution order.
    #[must_use]
    pub fn conf(&self) -> Entries<'a> {
        self.conf
    }

    /// Names route, plugin and version of the configuration
    /// (`route#<id>#<plugin>#<version>`): the same key means the same content.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }
}

/// A request before it goes upstream (`A6.HTTPReqCall.Req`).
#[derive(Clone)]
pub struct HttpReqCall<'a> {
    id: u32,
    src_ip: &'a [u8],
    method: Method,
    path: &'a [u8],
    args: Entries<'a>,
    headers: Vec<Entry<'a>>,
    conf_token: u32,
}

impl<'a> HttpReqCall<'a> {
    /// Reads the buffer of an http-req-call frame.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let read = || -> Result<Result<Self, DecodeError>, Fault> {
            let table = Table::root(body)?;
            let number = table.u8(2)?;
            Ok(Ok(Self {
                id: table.u32(0)?,
                src_ip: table.bytes(1)?.unwrap_or_default(),
                path: table.bytes(3)?.unwrap_or_default(),
                args: table.entries(4)?,
                headers: table.entry_list(5)?,
                conf_token: table.u32(6)?,
                method: match Method::from_wire(a6::Method(number)) {
                    Some(method) => method,
                    None => return Ok(Err(DecodeError::UnknownMethod(number))),
                },
            }))
        };
        read().map_err(|fault| DecodeError::Fault("http-req-call", fault))?
    }

    /// The gateway worker's number for the call; the answer repeats it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The client's address: 4 or 16 bytes in network order.
    #[must_use]
    pub fn src_ip(&self) -> &'a [u8] {
        self.src_ip
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as nginx judged it: percent-decoded, `..` and `//` resolved. The
    /// upstream gets the client's own spelling unless the answer sets a path.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// The query's arguments, decoded; one without `=` has no value.
    #[must_use]
    pub fn args(&self) -> Entries<'a> {
        self.args
    }

    /// The first hundred headers, in no order, names in lower case; a repeated
    /// name comes repeatedly.
    #[must_use]
    pub fn headers(&self) -> &[Entry<'a>] {
        &self.headers
    }

    /// The token that prepare-conf gave for the route's configuration.
    #[must_use]
    pub fn conf_token(&self) -> u32 {
        self.conf_token
    }
}

impl std::fmt::Debug for HttpReqCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither headers nor arguments: tokens are among them.
        f.debug_struct("HttpReqCall")
            .field("id", &self.id)
            .field("method", &self.method)
            .field("conf_token", &self.conf_token)
            .finish_non_exhaustive()
    }
}

/// The gateway's answer to an extra-info request (`A6.ExtraInfo.Resp`).
#[derive(Clone, Copy, Debug)]
pub struct ExtraInfoResp<'a> {
    result: Option<&'a [u8]>,
}

impl<'a> ExtraInfoResp<'a> {
    /// Reads the buffer of an extra-info frame from the gateway.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let result = Table::root(body).and_then(|table| table.bytes(0));
        let result = result.map_err(|fault| DecodeError::Fault("extra-info", fault))?;
        Ok(Self { result })
    }

    /// The variable's value or the body; none when there is no such variable, or
    /// no body.
    #[must_use]
    pub fn result(&self) -> Option<&'a [u8]> {
        self.result
    }
}

/// An upstream's answer before it goes to the client (`A6.HTTPRespCall.Req`).
#[derive(Clone, Copy, Debug)]
pub struct HttpRespCall<'a> {
    id: u32,
    status: u16,
    headers: Entries<'a>,
    conf_token: u32,
}

impl<'a> HttpRespCall<'a> {
    /// Reads the buffer of an http-resp-call frame.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let read = || -> Result<Self, Fault> {
            let table = Table::root(body)?;
            Ok(Self {
                id: table.u32(0)?,
                status: table.u16(1)?,
                headers: table.entries(2)?,
                conf_token: table.u32(3)?,
            })
        };
        read().map_err(|fault| DecodeError::Fault("http-resp-call", fault))
    }

    /// The gateway worker's number for the call; the answer repeats it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The upstream's status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The upstream's headers, names as the upstream spelled them.
    #[must_use]
    pub fn headers(&self) -> Entries<'a> {
        self.headers
    }

    /// The token that prepare-conf gave for the route's configuration.
    #[must_use]
    pub fn conf_token(&self) -> u32 {
        self.conf_token
    }
}
