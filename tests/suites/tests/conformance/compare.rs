//! What must be the same, and what may differ.
//!
//! Free, as the recording's README has it: `Date`, `Server`, `Connection`, the
//! order of headers and the case of their names, ids, the values of tokens, ports,
//! keys of prepare-conf and how often it is called, nginx's HTML, and the framing
//! of a body where the runner set none, as long as it is right. What follows from
//! it: variables that are ids, ports or clocks are compared by their form only, and
//! the machine's name not at all; where the gateway says its own port, the recorded
//! one said its own; and arguments, which Lua keeps in a table without an order,
//! are compared name by name, and so is a query that was made from that table.

use postern_wire::message::{Action, Entry, Message};

use crate::calls::{Ports, calls, prepared};
use crate::message::HttpMessage;
use crate::recording::{Exchange, Frame, Recording};

/// What a replay gave.
pub(crate) struct Observed {
    pub(crate) frames: Vec<Frame>,
    /// All so far, those of earlier exchanges too.
    pub(crate) prepared: Vec<Frame>,
    /// Tokens in calls that the runner did not know.
    pub(crate) unknown_tokens: Vec<u32>,
    pub(crate) upstream: Vec<Vec<u8>>,
    pub(crate) response: Vec<u8>,
    /// The gateway's.
    pub(crate) port: Vec<u8>,
}

/// Response headers that may differ.
const FREE_IN_RESPONSE: [&[u8]; 3] = [b"date", b"server", b"connection"];

/// All that is not as recorded, each told in a line or a few.
pub(crate) fn differences(
    exchange: &Exchange,
    observed: &Observed,
    recording: &Recording,
) -> Vec<String> {
    let mut found = Vec::new();
    prepared(exchange, observed, recording, &mut found);
    for token in &observed.unknown_tokens {
        found.push(format!(
            "a call with a token that the runner does not know: {token}"
        ));
    }
    let ports = Ports {
        recorded: recording.port.clone().unwrap_or_default(),
        own: observed.port.clone(),
        named: exchange.names_port(),
    };
    calls(exchange, observed, &ports, &mut found);
    upstream(exchange, observed, &ports, &mut found);
    response(exchange, observed, recording, &mut found);
    found
}

pub(crate) fn show(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let mut shown = format!("{text:?}");
    if shown.len() > 2000 {
        shown = shown.chars().take(2000).collect();
        shown.push('…');
    }
    shown
}

pub(crate) fn unequal(
    what: &str,
    recorded: impl AsRef<[u8]>,
    got: impl AsRef<[u8]>,
    found: &mut Vec<String>,
) {
    let (recorded, got) = (recorded.as_ref(), got.as_ref());
    if recorded != got {
        found.push(format!(
            "{what}\n  recorded {}\n  got      {}",
            show(recorded),
            show(got)
        ));
    }
}

/// Values stay in order under their name; names have none.
pub(crate) fn by_name(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut sorted: Vec<Entry> = entries.into_iter().collect();
    sorted.sort_by(|left, right| left.name.cmp(&right.name));
    let line = |entry: &Entry| {
        let name = show(entry.name.as_deref().unwrap_or_default());
        match &entry.value {
            Some(value) => format!("{name} = {}\n", show(value)),
            None => format!("{name}\n"),
        }
    };
    sorted.iter().map(line).collect::<String>().into_bytes()
}

fn upstream(exchange: &Exchange, observed: &Observed, ports: &Ports, found: &mut Vec<String>) {
    let wanted = HttpMessage::requests(exchange.upstream.as_deref().unwrap_or_default());
    let got = HttpMessage::requests(&observed.upstream.concat());
    if wanted.len() != got.len() {
        let (wanted, got) = (wanted.len(), got.len());
        found.push(format!("requests upstream: {wanted} recorded, {got} sent"));
        return;
    }
    for (wanted, got) in wanted.iter().zip(&got) {
        upstream_request(exchange, wanted, got, ports, found);
    }
}

fn upstream_request(
    exchange: &Exchange,
    wanted: &HttpMessage,
    got: &HttpMessage,
    ports: &Ports,
    found: &mut Vec<String>,
) {
    let line = |message: &HttpMessage| match rewrites_args(exchange) {
        true => sorted_query(&message.first_line),
        false => message.first_line.clone(),
    };
    unequal("upstream: request line", line(wanted), line(got), found);
    let counts = |name: &[u8]| {
        !matches!(
            name,
            b"connection" | b"content-length" | b"transfer-encoding"
        )
    };
    unequal(
        "upstream: headers",
        headers(wanted, |name, value| {
            counts(name).then(|| ports.recorded(name, value))
        }),
        headers(got, |name, value| {
            counts(name).then(|| ports.own(name, value))
        }),
        found,
    );
    length("upstream", wanted, got, found);
    let body = |message: &HttpMessage| message.body().unwrap_or_else(|| message.raw_body.clone());
    unequal("upstream: body", body(wanted), body(got), found);
}

/// A length may stand there or chunks; a wrong one must be as wrong as the recorded.
fn length(whose: &str, wanted: &HttpMessage, got: &HttpMessage, found: &mut Vec<String>) {
    let (wanted, got) = (wanted.excess(), got.excess());
    if wanted != got {
        found.push(format!(
            "{whose}: bytes of the body beyond its Content-Length: {wanted} recorded, {got} sent"
        ));
    }
}

/// Whether the query upstream was made from a table.
fn rewrites_args(exchange: &Exchange) -> bool {
    exchange.frames.iter().any(|frame| {
        matches!(frame.message(), Some(Message::HttpReqCallResp { action: Some(Action::Rewrite(rewrite)), .. })
            if !rewrite.args.is_empty())
    })
}

fn sorted_query(line: &[u8]) -> Vec<u8> {
    let mut words: Vec<Vec<u8>> = line
        .split(|byte| *byte == b' ')
        .map(<[u8]>::to_vec)
        .collect();
    if let Some(target) = words.get_mut(1)
        && let Some(at) = target.iter().position(|byte| *byte == b'?')
    {
        let mut pairs: Vec<&[u8]> = target[at + 1..].split(|byte| *byte == b'&').collect();
        let name = |pair: &[u8]| {
            pair.split(|byte| *byte == b'=')
                .next()
                .unwrap_or_default()
                .to_vec()
        };
        pairs.sort_by_key(|pair| name(pair));
        let query = pairs.join(&b'&');
        target.truncate(at + 1);
        target.extend(query);
    }
    words.join(&b' ')
}

/// Headers by name, each value as `free` lets it count.
fn headers(message: &HttpMessage, free: impl Fn(&[u8], &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    by_name(
        message
            .headers
            .iter()
            .filter_map(|(name, value)| Some(Entry::new(name.clone(), free(name, value)?))),
    )
}

fn response(
    exchange: &Exchange,
    observed: &Observed,
    recording: &Recording,
    found: &mut Vec<String>,
) {
    let to_head = exchange.request.starts_with(b"HEAD ");
    let wanted = HttpMessage::answers(&exchange.response, to_head);
    let got = HttpMessage::answers(&observed.response, to_head);
    if wanted.len() != got.len() {
        unequal("response", &exchange.response, &observed.response, found);
        return;
    }
    for (wanted, got) in wanted.iter().zip(&got) {
        answer(exchange, wanted, got, recording, found);
    }
}

/// Code and reason, but for a reason of the upstream's: no recording holds it, and
/// the answer to 200 is `OK`.
fn status_line(message: &HttpMessage, exchange: &Exchange, recording: &Recording) -> Vec<u8> {
    let upstream = recording.upstream_answer.status;
    let code = format!("HTTP/1.1 {upstream}").into_bytes();
    let relayed = exchange.upstream.is_some() && message.first_line.starts_with(&code);
    if relayed && upstream != 200 {
        code
    } else {
        message.first_line.clone()
    }
}

fn answer(
    exchange: &Exchange,
    wanted: &HttpMessage,
    got: &HttpMessage,
    recording: &Recording,
    found: &mut Vec<String>,
) {
    unequal(
        "response: interim answers",
        &wanted.interim,
        &got.interim,
        found,
    );
    unequal(
        "response: status line",
        status_line(wanted, exchange, recording),
        status_line(got, exchange, recording),
        found,
    );
    let framed = frames_itself(exchange);
    let free = |name: &[u8], value: &[u8]| {
        let framing = matches!(name, b"content-length" | b"transfer-encoding");
        let is_free = FREE_IN_RESPONSE.contains(&name) || framing && !framed;
        (!is_free).then(|| value.to_vec())
    };
    unequal(
        "response: headers",
        headers(wanted, free),
        headers(got, free),
        found,
    );
    let own_page = |message: &HttpMessage| {
        let html = message
            .get(b"content-type")
            .is_some_and(|kind| kind.starts_with(b"text/html"));
        html && message.raw_body.windows(9).any(|part| part == b"openresty")
    };
    if own_page(wanted) && own_page(got) {
        return;
    }
    if framed {
        unequal(
            "response: bytes of the body",
            &wanted.raw_body,
            &got.raw_body,
            found,
        );
        return;
    }
    if exchange.request.starts_with(b"HEAD ") {
        unequal(
            "response: body of an answer to HEAD",
            &wanted.raw_body,
            &got.raw_body,
            found,
        );
        return;
    }
    length("response", wanted, got, found);
    match (wanted.body(), got.body()) {
        (Some(wanted), Some(got)) => unequal("response: body", wanted, got, found),
        _ => unequal(
            "response: unfinished body",
            &wanted.raw_body,
            &got.raw_body,
            found,
        ),
    }
}

/// Whether the runner set the framing of its answer.
fn frames_itself(exchange: &Exchange) -> bool {
    let from_runner = exchange.frames.iter().filter(|frame| !frame.from_gateway);
    from_runner.filter_map(Frame::message).any(|message| {
        let headers = match message {
            Message::HttpReqCallResp {
                action: Some(Action::Stop(stop)),
                ..
            } => stop.headers,
            Message::HttpRespCallResp(answer) => answer.headers,
            _ => Vec::new(),
        };
        let framing =
            |header: &Entry| header.is("content-length") || header.is("transfer-encoding");
        headers.iter().any(framing)
    })
}
