//! What must be the same, and what may differ.
//!
//! Free, as the recording's README has it: `Date`, `Server`, `Connection`, the
//! order of headers and the case of their names, ids and tokens, ports, keys of
//! prepare-conf and how often it is called, nginx's HTML, and the framing of a
//! body where the runner set none. Two things follow from it: variables that are
//! ids, ports or clocks are compared by their form only; and arguments, which
//! Lua keeps in a table without an order, are compared name by name, and so is a
//! query that was made from that table.

use std::collections::BTreeMap;

use postern_wire::Side;
use postern_wire::frame::FrameType;
use postern_wire::message::{Action, Entry, Info, Message};

use crate::message::HttpMessage;
use crate::recording::{Exchange, Frame, PREPARE_CONF, Recording};

/// What a replay gave.
pub(crate) struct Observed {
    pub(crate) frames: Vec<Frame>,
    pub(crate) prepared: Vec<Frame>,
    pub(crate) upstream: Vec<Vec<u8>>,
    pub(crate) response: Vec<u8>,
}

/// Variables whose value belongs to the machine or the moment.
const MOMENTARY: [&str; 13] = [
    "request_id",
    "apisix_request_id",
    "remote_port",
    "realip_remote_port",
    "server_port",
    "msec",
    "time_iso8601",
    "time_local",
    "request_time",
    "hostname",
    "connection",
    "connection_time",
    "pid",
];

/// Response headers that may differ.
const FREE_IN_RESPONSE: [&[u8]; 3] = [b"date", b"server", b"connection"];

/// All that is not as recorded, each told in a line or a few.
pub(crate) fn differences(
    exchange: &Exchange,
    observed: &Observed,
    recording: &Recording,
) -> Vec<String> {
    let mut found = Vec::new();
    prepared(observed, recording, &mut found);
    calls(exchange, observed, &mut found);
    upstream(exchange, observed, &mut found);
    response(exchange, observed, &mut found);
    found
}

fn show(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let mut shown = format!("{text:?}");
    if shown.len() > 2000 {
        shown = shown.chars().take(2000).collect();
        shown.push('…');
    }
    shown
}

fn unequal(what: &str, recorded: impl AsRef<[u8]>, got: impl AsRef<[u8]>, found: &mut Vec<String>) {
    let (recorded, got) = (recorded.as_ref(), got.as_ref());
    if recorded != got {
        found.push(format!(
            "{what}\n  recorded {}\n  got      {}",
            show(recorded),
            show(got)
        ));
    }
}

/// Keys may differ behind the last `#`; what is prepared under one may not.
fn prepared(observed: &Observed, recording: &Recording, found: &mut Vec<String>) {
    let recorded: BTreeMap<Vec<u8>, Vec<Entry>> = recording
        .exchanges
        .iter()
        .flat_map(|exchange| &exchange.frames)
        .filter(|frame| frame.from_gateway && frame.kind() == PREPARE_CONF)
        .filter_map(prepared_conf)
        .collect();
    for frame in &observed.prepared {
        match prepared_conf(frame) {
            None => found.push("prepare-conf: not to be read".to_owned()),
            Some((owner, conf)) => match recorded.get(&owner) {
                Some(known) if *known != conf => {
                    found.push(format!("prepare-conf for {}: {conf:?}", show(&owner)));
                }
                None if !owner.starts_with(b"route#") => {
                    found.push(format!("prepare-conf under the key {}", show(&owner)));
                }
                _ => {}
            },
        }
    }
}

fn prepared_conf(frame: &Frame) -> Option<(Vec<u8>, Vec<Entry>)> {
    let message = Message::decode(Side::Gateway, FrameType::PrepareConf, frame.body()).ok()?;
    let Message::PrepareConfReq(call) = message else {
        return None;
    };
    let version = call.key.iter().rposition(|byte| *byte == b'#')?;
    Some((call.key[..version].to_vec(), call.conf))
}

fn calls(exchange: &Exchange, observed: &Observed, found: &mut Vec<String>) {
    let recorded = exchange.calls();
    let kinds =
        |frames: &mut dyn Iterator<Item = &Frame>| -> Vec<u8> { frames.map(Frame::kind).collect() };
    let (wanted, got) = (
        kinds(&mut recorded.iter().copied()),
        kinds(&mut observed.frames.iter()),
    );
    if wanted != got {
        found.push(format!(
            "types of the gateway's frames\n  recorded {wanted:?}\n  got      {got:?}"
        ));
        return;
    }
    let mut asked = variables_asked(exchange).into_iter();
    for (index, (wanted, got)) in recorded.iter().zip(&observed.frames).enumerate() {
        let decode = |frame: &Frame| {
            let kind = FrameType::try_from(frame.kind()).ok()?;
            Message::decode(Side::Gateway, kind, frame.body()).ok()
        };
        let variable = match decode(wanted) {
            Some(Message::ExtraInfoResp { .. }) => asked.next().flatten(),
            _ => None,
        };
        let facts = (decode(wanted).map(facts), decode(got).map(facts));
        let (Some(wanted), Some(got)) = facts else {
            found.push(format!("frame {index} of the gateway's cannot be read"));
            continue;
        };
        if let Some(variable) = variable.filter(|name| MOMENTARY.contains(&name.as_str())) {
            if form(&wanted["result"]) != form(&got["result"]) {
                let shown = (show(&wanted["result"]), show(&got["result"]));
                found.push(format!("form of ${variable}: {} and {}", shown.0, shown.1));
            }
            continue;
        }
        for (name, recorded) in &wanted {
            unequal(
                &format!("frame {index}: {name}"),
                recorded,
                &got[name],
                found,
            );
        }
    }
}

/// What the runner asked for, in order; none for bodies.
fn variables_asked(exchange: &Exchange) -> Vec<Option<String>> {
    let from_runner = exchange.frames.iter().filter(|frame| !frame.from_gateway);
    from_runner
        .filter_map(|frame| {
            let kind = FrameType::try_from(frame.kind()).ok()?;
            match Message::decode(Side::Runner, kind, frame.body()).ok()? {
                Message::ExtraInfoReq(Info::Var(Some(name))) => {
                    Some(Some(String::from_utf8_lossy(&name).into_owned()))
                }
                Message::ExtraInfoReq(_) => Some(None),
                _ => None,
            }
        })
        .collect()
}

/// Digits become `9`, letters `a`, runs of them one: `1b54…` and `0.013` keep
/// their form.
fn form(value: &[u8]) -> Vec<u8> {
    let mut form: Vec<u8> = value
        .iter()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => b'a',
            other => *other,
        })
        .collect();
    form.dedup();
    form
}

/// The parts of a message that must be the same, by name.
fn facts(message: Message) -> BTreeMap<&'static str, Vec<u8>> {
    let text = |value: &dyn std::fmt::Debug| format!("{value:?}").into_bytes();
    match message {
        Message::HttpReqCallReq(call) => BTreeMap::from([
            ("src_ip", text(&call.src_ip)),
            ("method", text(&call.method)),
            ("path", call.path),
            ("args", by_name(call.args)),
            (
                "headers",
                by_name(call.headers.into_iter().map(without_port)),
            ),
        ]),
        Message::HttpRespCallReq(call) => BTreeMap::from([
            ("status", text(&call.status)),
            (
                "headers",
                by_name(call.headers.into_iter().map(without_port)),
            ),
        ]),
        Message::ExtraInfoResp { result } => BTreeMap::from([
            ("is there", text(&result.is_some())),
            ("result", result.unwrap_or_default()),
        ]),
        other => BTreeMap::from([("message", text(&other))]),
    }
}

fn without_port(mut entry: Entry) -> Entry {
    let name = entry.name.get_or_insert_default();
    name.make_ascii_lowercase();
    if name == b"x-forwarded-port" {
        entry.value = entry.value.map(|value| form(&value));
    }
    entry
}

/// Values stay in order under their name; names have none.
fn by_name(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
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

fn upstream(exchange: &Exchange, observed: &Observed, found: &mut Vec<String>) {
    let recorded = exchange.upstream.as_deref().unwrap_or_default();
    let wanted = HttpMessage::all(recorded);
    let got = HttpMessage::all(&observed.upstream.concat());
    let (Some(wanted), Some(got)) = (wanted, got) else {
        found.push("a request upstream cannot be read".to_owned());
        return;
    };
    if wanted.len() != got.len() {
        let (wanted, got) = (wanted.len(), got.len());
        found.push(format!("requests upstream: {wanted} recorded, {got} sent"));
        return;
    }
    for (wanted, got) in wanted.iter().zip(&got) {
        upstream_request(exchange, wanted, got, found);
    }
}

fn upstream_request(
    exchange: &Exchange,
    wanted: &HttpMessage,
    got: &HttpMessage,
    found: &mut Vec<String>,
) {
    let line = |message: &HttpMessage| match rewrites_args(exchange) {
        true => sorted_query(&message.first_line),
        false => message.first_line.clone(),
    };
    unequal("upstream: request line", line(wanted), line(got), found);
    let free = |name: &[u8], value: &[u8]| match name {
        b"connection" | b"content-length" | b"transfer-encoding" => None,
        b"x-forwarded-port" => Some(form(value)),
        _ => Some(value.to_vec()),
    };
    unequal(
        "upstream: headers",
        headers(wanted, free),
        headers(got, free),
        found,
    );
    let body = |message: &HttpMessage| message.body().unwrap_or_else(|| message.raw_body.clone());
    unequal("upstream: body", body(wanted), body(got), found);
}

/// Whether the query upstream was made from a table.
fn rewrites_args(exchange: &Exchange) -> bool {
    exchange.frames.iter().any(|frame| {
        let message = Message::decode(Side::Runner, FrameType::HttpReqCall, frame.body());
        !frame.from_gateway
            && frame.kind() == FrameType::HttpReqCall as u8
            && matches!(message, Ok(Message::HttpReqCallResp { action: Some(Action::Rewrite(rewrite)), .. })
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

fn response(exchange: &Exchange, observed: &Observed, found: &mut Vec<String>) {
    let parsed = (
        HttpMessage::parse(&exchange.response),
        HttpMessage::parse(&observed.response),
    );
    let (wanted, got) = match parsed {
        (Some(wanted), Some(got)) => (wanted, got),
        (None, None) => {
            unequal("response", &exchange.response, &observed.response, found);
            return;
        }
        _ => {
            unequal("response", &exchange.response, &observed.response, found);
            return;
        }
    };
    unequal(
        "response: status line",
        &wanted.first_line,
        &got.first_line,
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
        headers(&wanted, free),
        headers(&got, free),
        found,
    );
    let own_page = |message: &HttpMessage| {
        let html = message
            .get(b"content-type")
            .is_some_and(|kind| kind.starts_with(b"text/html"));
        html && message.raw_body.windows(9).any(|part| part == b"openresty")
    };
    if own_page(&wanted) && own_page(&got) {
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
    match (wanted.body(), got.body()) {
        (Some(wanted), Some(got)) => unequal("response: body", wanted, got, found),
        (wanted, got) if wanted.is_some() != got.is_some() => {
            unequal(
                "response: body",
                &exchange.response,
                &observed.response,
                found,
            );
        }
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
    from_runner
        .filter_map(|frame| {
            let kind = FrameType::try_from(frame.kind()).ok()?;
            Message::decode(Side::Runner, kind, frame.body()).ok()
        })
        .any(|message| {
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
