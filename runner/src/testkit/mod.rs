//! Tests of plugins without a gateway.
//!
//! [`request`] makes a request, [`Simulated::judge`] runs it through a chain (encoded
//! and read in place, as in service) and gives an [`Outcome`]:
//!
//! ```
//! use postern_runner::{Flow, Plugin, Registry, Reply, Request, testkit};
//!
//! struct Teapot;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct TeapotConfig {}
//!
//! impl Plugin for Teapot {
//!     const NAME: &'static str = "teapot";
//!     type Config = TeapotConfig;
//!
//!     async fn on_request(&self, _: &TeapotConfig, request: &mut Request<'_>) -> Flow {
//!         match request.header("x-brew") {
//!             Some(b"coffee") => Flow::Stop(Reply::new(418).with_body("text/plain", "no")),
//!             _ => Flow::Next,
//!         }
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let chain = Registry::new().with(Teapot).chain([("teapot", "{}")]).unwrap();
//! let outcome = testkit::request("GET", "/").header("X-Brew", "coffee").judge(&chain).await;
//! assert_eq!(outcome.status(), Some(418));
//! # });
//! ```
//!
//! [`Gateway`] speaks the whole RPC with a runner in the same process.

mod gateway;
mod outcome;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use postern_wire::frame::split;
use postern_wire::message::{Entry, HttpReqCallReq, Message};
use postern_wire::read::HttpReqCall;
use serde::Deserialize;

pub use self::gateway::Gateway;
pub use self::outcome::{Outcome, Step};
use crate::chain::{Chain, Verdict};
use crate::edits::Edits;
use crate::extra::{Extra, ExtraError, Question};
use crate::plugin::Flow;
use crate::request::Request;
use crate::waiting::Places;

/// A request from its parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Simulated {
    #[serde(default = "get")]
    method: String,
    path: String,
    /// Decoded arguments.
    #[serde(default)]
    query: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    headers: BTreeMap<String, OneOrMany>,
    #[serde(default = "somebody")]
    src_ip: IpAddr,
    /// What the gateway answers when a plugin asks for a variable.
    #[serde(default)]
    vars: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

fn get() -> String {
    "GET".into()
}

fn somebody() -> IpAddr {
    [192, 0, 2, 1].into()
}

/// A request without headers, from 192.0.2.1. `path` may carry a query, not encoded.
#[must_use]
pub fn request(method: &str, path: &str) -> Simulated {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut simulated = Simulated {
        method: method.into(),
        path: path.into(),
        query: BTreeMap::new(),
        headers: BTreeMap::new(),
        src_ip: somebody(),
        vars: BTreeMap::new(),
        body: None,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        simulated = simulated.arg(name, value);
    }
    simulated
}

impl Simulated {
    /// Adds a header; a name may come several times.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        add(&mut self.headers, name.to_ascii_lowercase(), value.into());
        self
    }

    /// Adds an argument of the query.
    #[must_use]
    pub fn arg(mut self, name: &str, value: impl Into<String>) -> Self {
        add(&mut self.query, name.into(), value.into());
        self
    }

    /// Comes from this address.
    #[must_use]
    pub fn src_ip(mut self, address: impl Into<IpAddr>) -> Self {
        self.src_ip = address.into();
        self
    }

    /// What the gateway answers when a plugin asks for this variable.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// The body a plugin gets when it asks for it.
    #[must_use]
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Runs the request through a chain.
    ///
    /// # Panics
    /// When the method is none that the protocol can name.
    pub async fn judge(&self, chain: &Chain) -> Outcome {
        match self.explain(chain).await {
            Ok((_, outcome)) => outcome,
            #[expect(clippy::panic, reason = "a test that cannot be set up fails")]
            Err(error) => panic!("{error:#}"),
        }
    }

    /// The same, with each plugin's verdict.
    pub(crate) async fn explain(&self, chain: &Chain) -> anyhow::Result<(Vec<Step>, Outcome)> {
        let frame = Message::HttpReqCallReq(self.call(1)?).encode()?;
        let (_, body) = split(&frame)?;
        let mut answers = Answers {
            simulated: self,
            asked: Vec::new(),
        };
        let mut request = Request::new(HttpReqCall::read(body)?, &mut answers);
        let places = Places::new(1);
        let (mut steps, mut verdict) = (Vec::new(), Verdict::Forward);
        let mut known = Edits::default();
        for link in chain.links() {
            let flow = link.on_request(&mut request, &places).await;
            steps.push(Step::new(link.name, &flow, &known, request.edits()));
            known = request.edits().clone();
            match flow {
                Flow::Next => continue,
                Flow::Pass => {}
                Flow::Stop(reply) => verdict = Verdict::Stop(link.name, reply),
            }
            break;
        }
        let (edits, facts) = request.into_parts();
        let stopped = match verdict {
            Verdict::Forward => None,
            Verdict::Stop(plugin, reply) => {
                let (code, message) = (reply.code(), reply.message().map(str::to_owned));
                Some(outcome::Stopped {
                    plugin,
                    code,
                    message,
                    sent: reply.finish(&facts),
                })
            }
        };
        drop(facts);
        Ok((
            steps,
            Outcome {
                stopped,
                edits,
                asked: answers.asked,
            },
        ))
    }

    /// As the gateway sends it.
    pub(crate) fn call(&self, conf_token: u32) -> anyhow::Result<HttpReqCallReq> {
        let entries = |map: &BTreeMap<String, OneOrMany>| {
            let pairs = map
                .iter()
                .flat_map(|(name, values)| values.all().iter().map(move |v| (name, v)));
            pairs
                .map(|(name, value)| Entry::new(name.as_bytes(), value.as_bytes()))
                .collect()
        };
        let src_ip = match self.src_ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Ok(HttpReqCallReq {
            id: 7,
            src_ip,
            method: self.method.parse()?,
            path: self.path.as_bytes().to_vec(),
            args: entries(&self.query),
            headers: entries(&self.headers),
            conf_token,
        })
    }

    fn answer(&self, question: Question<'_>) -> Option<Bytes> {
        match question {
            Question::Var(name) => self.vars.get(name).cloned().map(Bytes::from),
            Question::RequestBody => self.body.clone().map(Bytes::from),
            Question::ResponseBody => None,
        }
    }
}

fn add(map: &mut BTreeMap<String, OneOrMany>, name: String, value: String) {
    let entry = map
        .entry(name)
        .or_insert_with(|| OneOrMany::Many(Vec::new()));
    let mut values = entry.all().to_vec();
    values.push(value);
    *entry = OneOrMany::Many(values);
}

/// The token that a `conf` gets while no other has it, for tests of collisions.
#[must_use]
pub fn token_of(conf: &[(&str, &str)]) -> u32 {
    let conf = conf
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    crate::rpc::tokens::token_of(&crate::rpc::tokens::pack(conf))
}

/// Answers questions from a table.
struct Answers<'s> {
    simulated: &'s Simulated,
    asked: Vec<String>,
}

impl Extra for Answers<'_> {
    fn ask<'s>(
        &'s mut self,
        question: Question<'s>,
        limit: usize,
    ) -> BoxFuture<'s, Result<Option<Bytes>, ExtraError>> {
        self.asked.push(match question {
            Question::Var(name) => name.to_owned(),
            Question::RequestBody => "request body".into(),
            Question::ResponseBody => "response body".into(),
        });
        let answer = self.simulated.answer(question);
        let too_large = answer.as_ref().is_some_and(|bytes| bytes.len() > limit);
        let answer = if too_large {
            Err(ExtraError::TooLarge { limit })
        } else {
            Ok(answer)
        };
        std::future::ready(answer).boxed()
    }
}
