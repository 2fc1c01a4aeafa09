//! What came of a simulated request.

use std::fmt;

use postern_contract::Code;

use crate::edits::{Edit, Edits};
use crate::plugin::Flow;
use crate::reply::Finished;

/// What came of a simulated request: an answer to the client, or a request that goes
/// on with these edits.
#[derive(Debug)]
pub struct Outcome {
    pub(super) stopped: Option<Stopped>,
    pub(super) edits: Edits,
    pub(super) asked: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) plugin: &'static str,
    pub(super) code: Option<Code>,
    pub(super) message: Option<String>,
    pub(super) sent: Finished,
}

impl Outcome {
    /// Whether the request goes upstream.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.stopped.is_none()
    }

    /// Who stopped it.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&'static str> {
        self.stopped.as_ref().map(|stopped| stopped.plugin)
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.stopped.as_ref().map(|stopped| stopped.sent.status)
    }

    /// The refusal's code.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.stopped.as_ref().and_then(|stopped| stopped.code)
    }

    /// The refusal's message.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.stopped
            .as_ref()
            .and_then(|stopped| stopped.message.as_deref())
    }

    /// The answer's body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.stopped
            .as_ref()
            .map_or(&[], |stopped| &stopped.sent.body)
    }

    /// A header of the answer.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        set(&self.stopped.as_ref()?.sent.headers, name)
    }

    /// What a header is set to on the way upstream.
    #[must_use]
    pub fn upstream_header(&self, name: &str) -> Option<&str> {
        set(&self.edits.headers, name)
    }

    /// Whether a header is deleted on the way upstream.
    #[must_use]
    pub fn removes_header(&self, name: &str) -> bool {
        self.edits
            .headers
            .iter()
            .any(|edit| edit.is(name) && edit.value.is_none())
    }

    /// What an argument is set to on the way upstream.
    #[must_use]
    pub fn upstream_arg(&self, name: &str) -> Option<&str> {
        set(&self.edits.args, name)
    }

    /// The path the upstream gets, if it is pinned.
    #[must_use]
    pub fn upstream_path(&self) -> Option<&[u8]> {
        self.edits.path.as_deref()
    }

    /// The body the upstream gets, if it is replaced.
    #[must_use]
    pub fn upstream_body(&self) -> Option<&[u8]> {
        self.edits.body.as_deref()
    }

    /// A header that the upstream's answer gets.
    #[must_use]
    pub fn response_header(&self, name: &str) -> Option<&str> {
        set(&self.edits.response_headers, name)
    }

    /// What the gateway was asked for, in order: each is a round trip.
    #[must_use]
    pub fn asked(&self) -> &[String] {
        &self.asked
    }
}

fn set<'e>(edits: &'e [Edit], name: &str) -> Option<&'e str> {
    let edit = edits.iter().find(|edit| edit.is(name))?;
    std::str::from_utf8(edit.value.as_deref()?).ok()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stopped {
            Some(Stopped { plugin, sent, .. }) => {
                writeln!(f, "The client gets {} from {plugin}:", sent.status)?;
                for header in &sent.headers {
                    writeln!(f, "  {}", Shown(header))?;
                }
                write!(f, "\n  {}", String::from_utf8_lossy(&sent.body))
            }
            None if self.edits.is_empty() => f.write_str("The request goes upstream unchanged."),
            None => {
                f.write_str("The request goes upstream with:")?;
                all(&self.edits).try_for_each(|line| write!(f, "\n  {line}"))
            }
        }
    }
}

/// What one plugin said.
#[derive(Debug)]
pub struct Step {
    /// Its name.
    pub plugin: &'static str,
    /// In words.
    pub verdict: String,
}

impl Step {
    pub(super) fn new(plugin: &'static str, flow: &Flow, before: &Edits, after: &Edits) -> Self {
        let said = match flow {
            Flow::Next => "next".to_owned(),
            Flow::Pass => "pass: the rest of the chain is skipped".to_owned(),
            Flow::Stop(reply) => {
                let code = reply.code().map_or("an answer of its own", Code::as_str);
                format!(
                    "stop: {} {code}. {}",
                    reply.status(),
                    reply.message().unwrap_or_default()
                )
            }
        };
        let before: Vec<String> = all(before).collect();
        let edits: Vec<String> = all(after).filter(|edit| !before.contains(edit)).collect();
        let edits = if edits.is_empty() {
            String::new()
        } else {
            format!("; {}", edits.join("; "))
        };
        Self {
            plugin,
            verdict: said.trim_end().to_owned() + &edits,
        }
    }
}

/// Every edit in words.
fn all(edits: &Edits) -> impl Iterator<Item = String> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = edits
        .path
        .as_deref()
        .map(|path| format!("path {}", lossy(path)));
    let body = edits
        .body
        .as_ref()
        .map(|body| format!("body of {} bytes", body.len()));
    let list = |kind: &'static str, edits: &[Edit]| {
        edits
            .iter()
            .map(|edit| format!("{kind} {}", Shown(edit)))
            .collect::<Vec<_>>()
    };
    let headers = list("header", &edits.headers);
    let args = list("argument", &edits.args);
    let response = list("response header", &edits.response_headers);
    path.into_iter()
        .chain(headers)
        .chain(args)
        .chain(response)
        .chain(body)
}

struct Shown<'e>(&'e Edit);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Edit { name, value } = self.0;
        match value {
            Some(value) => write!(f, "{name}: {}", String::from_utf8_lossy(value)),
            None => write!(f, "{name} deleted"),
        }
    }
}
