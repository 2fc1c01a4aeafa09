//! A context whose parts are borrowed from wherever they lie, for the runner: it
//! seals one for every request, and a message of its own strings would cost more to
//! fill than to seal. What a token contributes is encoded once, and copied.

use std::borrow::Cow;
use std::net::IpAddr;

use prost::encoding::{WireType, encode_varint};

use crate::Claim;
use crate::message::rate_limit_fields;

/// The fields of a [`Context`](crate::Context), which says what they mean.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "as in `Context`")]
pub struct View<'a> {
    pub route: &'a str,
    pub method: &'a str,
    pub params: &'a [(&'static str, Cow<'a, str>)],
    /// None on a public route.
    pub token: Option<&'a TokenFields>,
    pub plan: &'a str,
    pub client_address: Option<IpAddr>,
    pub correlation_id: &'a str,
    pub claim: Option<&'a Claim>,
    pub rate_limit: Option<&'a RateLimitView<'a>>,
    pub body_limit: u64,
    pub api_version: &'a str,
}

/// What a token contributes to the contexts of its requests.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "as in `Context`")]
pub struct TokenView<'a> {
    pub issuer: &'a str,
    pub subject: &'a str,
    pub tenant: &'a str,
    pub workspace: &'a str,
    pub roles: &'a [String],
    pub scopes: &'a [String],
    pub token_expires_at: u64,
    pub session: &'a str,
}

/// The same as it stands in a context: a message's fields may stand in any order.
#[derive(Clone, Debug)]
pub struct TokenFields(Box<[u8]>);

impl TokenView<'_> {
    /// Encodes the fields.
    #[must_use]
    pub fn encode(&self) -> TokenFields {
        let mut fields = Vec::new();
        let mut message = Message(&mut fields);
        message.text(5, self.issuer);
        message.text(6, self.subject);
        message.text(7, self.tenant);
        message.text(8, self.workspace);
        self.roles.iter().for_each(|role| message.item(10, role));
        self.scopes.iter().for_each(|scope| message.item(11, scope));
        message.number(12, self.token_expires_at);
        message.text(13, self.session);
        TokenFields(fields.into())
    }
}

/// The fields of a [`RateLimit`](crate::RateLimit), which says what they mean. Every request
/// has one or two, so it holds nothing on the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `RateLimit`")]
pub struct RateLimitView<'a> {
    pub policy: &'a str,
    pub limit: u32,
    pub burst: u32,
    pub remaining: u32,
    pub reset: u64,
    pub reset_after: u64,
    pub partition: [u8; 8],
}

impl RateLimitView<'_> {
    /// As [`RateLimit::fields`](crate::RateLimit::fields).
    #[must_use]
    pub fn fields(&self) -> (String, String) {
        rate_limit_fields(
            self.policy,
            self.limit,
            self.remaining,
            self.reset_after,
            &self.partition,
        )
    }
}

impl View<'_> {
    /// Appends what the same [`Context`](crate::Context) says.
    pub(crate) fn encode(&self, audience: &str, issued_at_ms: u64, to: &mut Vec<u8>) {
        let mut message = Message(to);
        if let Some(TokenFields(fields)) = self.token {
            message.0.extend_from_slice(fields);
        }
        message.text(1, audience);
        message.text(2, self.route);
        message.text(3, self.method);
        for (name, value) in self.params {
            message.nested(4, |param| {
                param.text(1, name);
                param.text(2, value);
            });
        }
        message.text(9, self.plan);
        match self.client_address {
            Some(IpAddr::V4(v4)) => message.dotted(14, v4.octets()),
            Some(IpAddr::V6(v6)) => message.text(14, &v6.to_string()),
            None => {}
        }
        message.text(15, self.correlation_id);
        if let Some(claim) = self.claim {
            prost::encoding::message::encode(16, claim, message.0);
        }
        if let Some(of) = self.rate_limit {
            message.nested(17, |limit| {
                limit.text(1, of.policy);
                limit.number(2, of.limit.into());
                limit.number(3, of.burst.into());
                limit.number(4, of.remaining.into());
                limit.number(5, of.reset);
                limit.number(6, of.reset_after);
                limit.bytes(7, &of.partition);
            });
        }
        message.number(18, self.body_limit);
        message.number(19, issued_at_ms);
        message.text(20, self.api_version);
    }
}

/// A message that is being written, field by field.
struct Message<'t>(&'t mut Vec<u8>);

impl Message<'_> {
    /// A field that is left out when empty.
    fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.item(tag, text);
        }
    }

    fn item(&mut self, tag: u32, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.varint(key(tag, WireType::LengthDelimited));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Seven bits a byte, the lowest first; nearly all take one byte or two.
    #[inline]
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            let [low, ..] = number.to_le_bytes();
            self.0.push(low | 0x80);
            number >>= 7;
        }
        let [low, ..] = number.to_le_bytes();
        self.0.push(low);
    }

    fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.varint(key(tag, WireType::Varint));
            self.varint(number);
        }
    }

    /// A message in the message. Its length stands before it and is known after it.
    fn nested(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        self.varint(key(tag, WireType::LengthDelimited));
        let at = self.0.len();
        self.0.push(0);
        write(self);
        let len = self.0.len() - at - 1;
        match (u8::try_from(len), self.0.get_mut(at)) {
            (Ok(short @ ..0x80), Some(place)) => *place = short,
            _ => {
                let mut long = Vec::new();
                encode_varint(len as u64, &mut long);
                self.0.splice(at..=at, long);
            }
        }
    }

    /// An IPv4 address as text; the standard library's formatting takes as long as
    /// half of the other fields together.
    fn dotted(&mut self, tag: u32, octets: [u8; 4]) {
        let digits = |octet: u8| 1 + usize::from(octet >= 10) + usize::from(octet >= 100);
        let len: usize = octets.into_iter().map(digits).sum();
        self.varint(key(tag, WireType::LengthDelimited));
        self.varint(len as u64 + 3);
        for (index, octet) in octets.into_iter().enumerate() {
            if index > 0 {
                self.0.push(b'.');
            }
            if octet >= 100 {
                self.0.push(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.0.push(b'0' + octet / 10 % 10);
            }
            self.0.push(b'0' + octet % 10);
        }
    }
}

/// What stands before a field.
fn key(tag: u32, wire_type: WireType) -> u64 {
    u64::from(tag << 3 | wire_type as u32)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use prost::Message as _;

    use super::*;
    use crate::{Context, PathParam, RateLimit};

    prop_compose! {
        fn context()(
            texts in prop::array::uniform10("[a-zA-Z0-9:/.-]{0,200}"),
            params in vec((select(&["", "path", "workspaceId"]), "\\PC{0,200}"), 0..3),
            lists in prop::array::uniform2(vec("\\PC{0,12}", 0..4)),
            numbers in prop::array::uniform3(any::<u64>()),
            address in any::<Option<IpAddr>>(),
            claim in any::<Option<(Vec<u8>, Vec<u8>)>>(),
            limit in proptest::option::of(("\\PC{0,100}", any::<u32>(), any::<u64>())),
        ) -> (Context, Vec<(&'static str, Cow<'static, str>)>, Option<IpAddr>) {
            let [route, method, issuer, subject, tenant, workspace, plan, session, correlation_id, api_version] = texts;
            let [roles, scopes] = lists;
            let [token_expires_at, body_limit, issued_at_ms] = numbers;
            let borrowed = params.iter().map(|(name, value)| (*name, Cow::Owned(value.clone()))).collect();
            let params = params.into_iter().map(|(name, value)| PathParam { name: name.to_owned(), value }).collect();
            let claim = claim.map(|(scope, holder)| Claim { scope, holder });
            let rate_limit = limit.map(|(policy, limit, reset)| {
                RateLimit { policy, limit, burst: 1, remaining: limit / 2, reset, reset_after: 7, partition: vec![7; 8] }
            });
            let client_address = address.map(|address| address.to_string()).unwrap_or_default();
            let audience = "tenants".to_owned();
            let context = Context {
                audience, route, method, params, issuer, subject, tenant, workspace, plan, roles, scopes,
                token_expires_at, session, client_address, correlation_id, claim, rate_limit, body_limit,
                issued_at_ms, api_version,
            };
            (context, borrowed, address)
        }
    }

    proptest! {
        /// Tags and forms stand in two places; this holds them together.
        #[test]
        fn a_view_says_what_its_context_says((context, params, client_address) in context()) {
            let token = TokenView {
                issuer: &context.issuer,
                subject: &context.subject,
                tenant: &context.tenant,
                workspace: &context.workspace,
                roles: &context.roles,
                scopes: &context.scopes,
                token_expires_at: context.token_expires_at,
                session: &context.session,
            };
            let rate_limit = context.rate_limit.as_ref().map(|it| RateLimitView {
                policy: &it.policy,
                limit: it.limit,
                burst: it.burst,
                remaining: it.remaining,
                reset: it.reset,
                reset_after: it.reset_after,
                partition: [7; 8],
            });
            let view = View {
                route: &context.route,
                method: &context.method,
                params: &params,
                token: Some(&token.encode()),
                plan: &context.plan,
                client_address,
                correlation_id: &context.correlation_id,
                claim: context.claim.as_ref(),
                rate_limit: rate_limit.as_ref(),
                body_limit: context.body_limit,
                api_version: &context.api_version,
            };
            let mut encoded = Vec::new();
            view.encode("tenants", context.issued_at_ms, &mut encoded);
            prop_assert_eq!(encoded.len(), context.encoded_len());
            prop_assert_eq!(Context::decode(&*encoded), Ok(context));
        }
    }
}
