//! What holds the comparison itself: changes that it must notice in recordings
//! that passed, and exchanges made of the recorded ones that must pass as well.

use anyhow::{Context as _, Result};
use postern_wire::ErrorCode;
use postern_wire::message::{Entry, HttpReqCallReq, Info, Message};

use crate::recording::{Exchange, Frame, PREPARE_CONF, Recording};

/// A change in an exchange; none where there is nothing to change.
type Change = fn(&Exchange) -> Option<Exchange>;

/// Each must be noticed in every exchange it can be made in.
pub(crate) const CHANGES: [(&str, Change); 15] = [
    ("response status", |exchange| {
        replace_response(exchange, |text| {
            let digit = text.get_mut(9)?;
            *digit = if *digit == b'2' { b'5' } else { b'2' };
            Some(())
        })
    }),
    ("response header", |exchange| {
        replace_response(exchange, |text| {
            let at = find(text, b"\r\n")?;
            text.splice(at..at, b"\r\nX-Spoilt: 1".iter().copied());
            Some(())
        })
    }),
    ("response body", |exchange| {
        let plain = !exchange
            .response
            .windows(9)
            .any(|part| part == b"openresty");
        replace_response(exchange, |text| {
            let at = find(text, b"\r\n\r\n")? + 4;
            let body = text.get(at..).filter(|body| plain && !body.is_empty())?;
            // Inside a chunked body too, letters and quotes are content.
            let spoil = body
                .iter()
                .rposition(|byte| matches!(byte, b'"' | b'}' | b'x'))?;
            text[at + spoil] = b'~';
            Some(())
        })
    }),
    ("upstream target", |exchange| {
        replace_upstream(exchange, |text| {
            let at = find(text, b" HTTP/1.1")?;
            text.insert(at, b'x');
            Some(())
        })
    }),
    ("upstream header", |exchange| {
        replace_upstream(exchange, |text| {
            let at = text
                .windows(6)
                .position(|part| part.eq_ignore_ascii_case(b"host: "))?;
            text[at + 6] ^= 1;
            Some(())
        })
    }),
    ("missing upstream request", |exchange| {
        let mut changed = exchange.clone();
        changed.upstream.take()?;
        Some(changed)
    }),
    ("length of a response", |exchange| {
        let own_page = find(&exchange.response, b"openresty").is_some();
        let counts = !own_page && !exchange.request.starts_with(b"HEAD ");
        replace_response(exchange, |text| {
            let name = b"Content-Length: ";
            let digit = find(text, name).filter(|_| counts)? + name.len();
            text[digit] = if text[digit] == b'1' { b'2' } else { b'1' };
            Some(())
        })
    }),
    ("end of a response", |exchange| {
        let chunked = exchange.response.ends_with(b"\r\n0\r\n\r\n");
        let at_end = |text: &mut Vec<u8>| text.extend_from_slice(b"EXTRA");
        replace_response(exchange, |text| chunked.then(|| at_end(text)))
    }),
    ("prepared configuration", |exchange| {
        replace_message(exchange, |message| match message {
            Message::PrepareConfReq(call) => {
                call.conf.first_mut()?.value = Some(b"{ }".to_vec());
                Some(())
            }
            _ => None,
        })
    }),
    ("call's path", |exchange| {
        replace_call(exchange, |call| {
            call.path.push(b'x');
            Some(())
        })
    }),
    ("call's header", |exchange| {
        replace_call(exchange, |call| {
            header(call, "host")?.value = Some(b"other".to_vec());
            Some(())
        })
    }),
    ("call's port", |exchange| {
        replace_call(exchange, |call| {
            header(call, "x-forwarded-port")?.value = Some(b"none".to_vec());
            Some(())
        })
    }),
    ("call's address", |exchange| {
        replace_call(exchange, |call| {
            *call.src_ip.last_mut()? ^= 1;
            Some(())
        })
    }),
    ("name of the machine, now empty,", |exchange| {
        replace_variable(exchange, b"hostname", b"hostname", b"")
    }),
    ("missing call", |exchange| {
        let mut changed = exchange.clone();
        let wanted = |frame: &Frame| frame.from_gateway && frame.kind() != PREPARE_CONF;
        let at = changed.frames.iter().position(wanted)?;
        changed.frames.remove(at);
        Some(changed)
    }),
];

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

fn replace_response(
    exchange: &Exchange,
    change: impl Fn(&mut Vec<u8>) -> Option<()>,
) -> Option<Exchange> {
    let mut changed = exchange.clone();
    change(&mut changed.response)?;
    Some(changed)
}

fn replace_upstream(
    exchange: &Exchange,
    change: impl Fn(&mut Vec<u8>) -> Option<()>,
) -> Option<Exchange> {
    let mut changed = exchange.clone();
    change(changed.upstream.as_mut()?)?;
    Some(changed)
}

/// Changes the first message of the gateway's that can be changed so.
fn replace_message(
    exchange: &Exchange,
    change: impl Fn(&mut Message) -> Option<()>,
) -> Option<Exchange> {
    let mut changed = exchange.clone();
    let mut frames = changed.frames.iter_mut();
    frames.find_map(|frame| {
        let mut message = frame.message().filter(|_| frame.from_gateway)?;
        change(&mut message)?;
        frame.bytes = message.encode().ok()?;
        Some(())
    })?;
    Some(changed)
}

fn replace_call(
    exchange: &Exchange,
    change: impl Fn(&mut HttpReqCallReq) -> Option<()>,
) -> Option<Exchange> {
    replace_message(exchange, |message| match message {
        Message::HttpReqCallReq(call) => change(call),
        _ => None,
    })
}

fn header<'c>(call: &'c mut HttpReqCallReq, name: &str) -> Option<&'c mut Entry> {
    call.headers.iter_mut().find(|header| header.is(name))
}

/// Has the runner ask for another variable, and the gateway answer so.
fn replace_variable(
    exchange: &Exchange,
    asked: &[u8],
    instead: &[u8],
    result: &[u8],
) -> Option<Exchange> {
    let mut changed = exchange.clone();
    let question = |name: &[u8]| Message::ExtraInfoReq(Info::Var(Some(name.to_vec())));
    let asks = |frame: &Frame| frame.message() == Some(question(asked));
    let at = changed.frames.iter().position(asks)?;
    changed.frames[at].bytes = question(instead).encode().ok()?;
    let result = Some(result.to_vec());
    let answer = Message::ExtraInfoResp { result };
    changed.frames.get_mut(at + 1)?.bytes = answer.encode().ok()?;
    Some(changed)
}

/// Exchanges that no recording of ours holds, made of those it holds, each as a
/// recording of its own: the stand-in is asked these too, and must do the same.
pub(crate) fn variations(recording: &Recording) -> Result<Vec<Recording>> {
    let made: [(&str, Option<Recording>); 7] = [
        (
            "a machine with a name of several words",
            other_machine(recording),
        ),
        ("a port that was asked for", asked_port(recording)),
        ("a client that waits to be told", waiting_client(recording)),
        ("two requests on a connection", two_requests(recording)),
        ("a request without a host", no_host(recording)),
        ("an error in place of a token", no_token(recording)),
        ("an upstream that finds nothing", other_status(recording)),
    ];
    let named = made.into_iter().map(|(name, made)| {
        let mut made = made.with_context(|| format!("{name}: the recording lacks its parts"))?;
        name.clone_into(&mut made.exchanges[0].name);
        Ok(made)
    });
    let mut all = named.collect::<Result<Vec<_>>>()?;
    all.push(disowned_tokens(recording).context("a token disowned: no error is recorded")?);
    Ok(all)
}

fn recorded<'r>(recording: &'r Recording, name: &str) -> Option<&'r Exchange> {
    let mut all = recording.exchanges.iter();
    all.find(|exchange| exchange.name == name)
}

fn alone(recording: &Recording, exchange: Exchange) -> Option<Recording> {
    Some(Recording {
        foreign: recording.foreign,
        upstream_answer: recording.upstream_answer.clone(),
        exchanges: vec![exchange],
        port: recording.port.clone(),
    })
}

fn other_machine(recording: &Recording) -> Option<Recording> {
    let vars = recorded(recording, "vars")?;
    let named = replace_variable(vars, b"hostname", b"hostname", b"ip-10-0-0-5.example")?;
    alone(recording, named)
}

fn asked_port(recording: &Recording) -> Option<Recording> {
    let (vars, port) = (recorded(recording, "vars")?, recording.port.as_deref()?);
    let asked = replace_variable(vars, b"http_x_foo", b"http_x_forwarded_port", port)?;
    alone(recording, asked)
}

fn waiting_client(recording: &Recording) -> Option<Recording> {
    let posted = recorded(recording, "body-length")?;
    let mut waiting = replace_call(posted, |call| {
        call.headers.push(Entry::new("expect", "100-continue"));
        Some(())
    })?;
    let at = find(&waiting.request, b"\r\n\r\n")?;
    let expect = b"\r\nExpect: 100-continue";
    waiting.request.splice(at..at, expect.iter().copied());
    let told = b"HTTP/1.1 100 Continue\r\n\r\n";
    waiting.response.splice(0..0, told.iter().copied());
    alone(recording, waiting)
}

/// The first one's connection goes on.
fn two_requests(recording: &Recording) -> Option<Recording> {
    let first = recorded(recording, "body-length")?;
    let last = recorded(recording, "stopcl")?;
    let mut both = replace_call(first, |call| {
        header(call, "connection")?.value = Some(b"keep-alive".to_vec());
        Some(())
    })?;
    let (close, goes_on) = (b"Connection: close", b"Connection: keep-alive");
    let at = find(&both.request, close)?;
    both.request
        .splice(at..at + close.len(), goes_on.iter().copied());
    both.request.extend_from_slice(&last.request);
    both.response.extend_from_slice(&last.response);
    both.frames.extend_from_slice(&last.frames);
    alone(recording, both)
}

/// As a client of HTTP/1.0 may send it.
fn no_host(recording: &Recording) -> Option<Recording> {
    let named = recorded(recording, "plain-get")?;
    let mut nameless = replace_call(named, |call| {
        header(call, "x-forwarded-host")?.value = Some(b"_".to_vec());
        call.headers.retain(|header| !header.is("host"));
        Some(())
    })?;
    let replace = |text: &mut Vec<u8>, old: &[u8], new: &[u8]| {
        let at = find(text, old)?;
        text.splice(at..at + old.len(), new.iter().copied());
        Some(())
    };
    let host = b"\r\nHost: api.example.com";
    replace(&mut nameless.request, host, b"")?;
    replace(&mut nameless.request, b"HTTP/1.1", b"HTTP/1.0")?;
    let upstream = nameless.upstream.as_mut()?;
    replace(upstream, host, b"")?;
    replace(upstream, b"Host: api.example.com", b"Host: _")?;
    alone(recording, nameless)
}

fn no_token(recording: &Recording) -> Option<Recording> {
    let prepared = recorded(recording, "plain-get")?;
    let mut refused = recorded(recording, "err1")?.clone();
    let prepares = |frame: &&Frame| frame.from_gateway && frame.kind() == PREPARE_CONF;
    refused.frames[0] = prepared.frames.iter().find(prepares)?.clone();
    alone(recording, refused)
}

/// Three tries, each with a token of its own.
fn disowned_tokens(recording: &Recording) -> Option<Recording> {
    let mut disowned = recorded(recording, "err0")?.clone();
    let error = Message::Err(ErrorCode::ConfTokenNotFound);
    disowned.frames.last_mut()?.bytes = error.encode().ok()?;
    let prepared = recorded(recording, "plain-get")?.frames.iter();
    let prepared: Vec<Frame> = prepared
        .filter(|frame| frame.kind() == PREPARE_CONF)
        .cloned()
        .collect();
    let once = [prepared, disowned.frames].concat();
    disowned.frames = [once.clone(), once.clone(), once].concat();
    disowned.name = DISOWNED.to_owned();
    alone(recording, disowned)
}

/// The variation whose runner takes back every token.
pub(crate) const DISOWNED: &str = "a token disowned three times";

fn other_status(recording: &Recording) -> Option<Recording> {
    let mut missing = recorded(recording, "plain-get")?.clone();
    let (ok, status) = (b"200 OK", b"404 Not Found");
    let at = find(&missing.response, ok)?;
    missing
        .response
        .splice(at..at + ok.len(), status.iter().copied());
    let mut alone = alone(recording, missing)?;
    alone.upstream_answer.status = 404;
    Some(alone)
}
