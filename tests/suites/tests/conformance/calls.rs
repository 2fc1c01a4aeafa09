//! The gateway's end of the RPC compared: configurations, calls, and what it said
//! to the runner's questions.

use std::collections::BTreeMap;

use postern_wire::message::{Entry, Info, Message};

use crate::compare::{Observed, by_name, show, unequal};
use crate::recording::{Exchange, Frame, PREPARE_CONF, Recording};

/// Variables whose value belongs to the moment.
const MOMENTARY: [&str; 13] = [
    "request_id",
    "apisix_request_id",
    "remote_port",
    "realip_remote_port",
    "upstream_addr",
    "balancer_port",
    "msec",
    "time_iso8601",
    "time_local",
    "request_time",
    "connection",
    "connection_time",
    "pid",
];

/// Where the gateway listens, and listened.
pub(crate) struct Ports {
    pub(crate) recorded: Vec<u8>,
    pub(crate) own: Vec<u8>,
    /// The client named one, and that is what is forwarded.
    pub(crate) named: bool,
}

impl Ports {
    /// Whether each is the port of who said it, or both are the same.
    fn same(&self, recorded: &[u8], own: &[u8]) -> bool {
        let nowhere = self.recorded.is_empty() && form(recorded) == form(own);
        recorded == own || nowhere || recorded == self.recorded && own == self.own
    }

    /// A port as the recording has it, from what the recorded gateway said.
    pub(crate) fn recorded(&self, header: &[u8], value: &[u8]) -> Vec<u8> {
        self.unless(&self.recorded, header, value)
    }

    /// The same, from what this one said.
    pub(crate) fn own(&self, header: &[u8], value: &[u8]) -> Vec<u8> {
        self.unless(&self.own, header, value)
    }

    fn unless(&self, port: &[u8], header: &[u8], value: &[u8]) -> Vec<u8> {
        let is_port = header.eq_ignore_ascii_case(b"x-forwarded-port");
        if is_port && !self.named && value == port {
            b"the gateway's own".to_vec()
        } else {
            value.to_vec()
        }
    }
}

/// Keys may differ behind the last `#`; what is prepared under one may not. What
/// was prepared in this exchange may have been so before.
pub(crate) fn prepared(
    exchange: &Exchange,
    observed: &Observed,
    recording: &Recording,
    found: &mut Vec<String>,
) {
    let confs = |frames: &[Frame]| -> Vec<(Vec<u8>, Vec<Entry>)> {
        let prepares = |frame: &&Frame| frame.from_gateway && frame.kind() == PREPARE_CONF;
        let frames = frames.iter().filter(prepares);
        frames.filter_map(prepared_conf).collect()
    };
    let got = confs(&observed.prepared);
    if got.len() != observed.prepared.len() {
        found.push("prepare-conf: not to be read".to_owned());
    }
    for (owner, conf) in confs(&exchange.frames) {
        if !got.contains(&(owner.clone(), conf.clone())) {
            let owner = show(&owner);
            found.push(format!(
                "prepare-conf for {owner}, recorded and not sent: {conf:?}"
            ));
        }
    }
    let recorded: Vec<(Vec<u8>, Vec<Entry>)> = recording
        .exchanges
        .iter()
        .flat_map(|exchange| confs(&exchange.frames))
        .collect();
    for (owner, conf) in got {
        let mut known = recorded
            .iter()
            .filter(|(known, _)| *known == owner)
            .peekable();
        let wrong = match known.peek() {
            Some(_) => !known.any(|(_, known)| *known == conf),
            None => !owner.starts_with(b"route#"),
        };
        if wrong {
            found.push(format!("prepare-conf for {}: {conf:?}", show(&owner)));
        }
    }
}

fn prepared_conf(frame: &Frame) -> Option<(Vec<u8>, Vec<Entry>)> {
    let Some(Message::PrepareConfReq(call)) = frame.message() else {
        return None;
    };
    let version = call.key.iter().rposition(|byte| *byte == b'#')?;
    Some((call.key[..version].to_vec(), call.conf))
}

/// What the gateway sent during the call, frame by frame.
pub(crate) fn calls(
    exchange: &Exchange,
    observed: &Observed,
    ports: &Ports,
    found: &mut Vec<String>,
) {
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
        let variable = match wanted.message() {
            Some(Message::ExtraInfoResp { .. }) => asked.next().flatten(),
            _ => None,
        };
        let of_recorded = |name: &[u8], value: &[u8]| ports.recorded(name, value);
        let of_own = |name: &[u8], value: &[u8]| ports.own(name, value);
        let facts = (
            wanted.message().map(|message| facts(message, of_recorded)),
            got.message().map(|message| facts(message, of_own)),
        );
        let (Some(wanted), Some(got)) = facts else {
            found.push(format!("frame {index} of the gateway's cannot be read"));
            continue;
        };
        let variable = variable.unwrap_or_default();
        for (name, recorded) in &wanted {
            let got = &got[name];
            let what = format!("frame {index}: {name} {variable}");
            let same = match (*name, variable.as_str()) {
                ("result", "hostname") => recorded.is_empty() == got.is_empty(),
                ("result", "server_port") => ports.same(recorded, got),
                ("result", "http_x_forwarded_port") if !ports.named => ports.same(recorded, got),
                ("result", momentary) if MOMENTARY.contains(&momentary) => {
                    form(recorded) == form(got)
                }
                _ => recorded == got,
            };
            if !same {
                unequal(&what, recorded, got, found);
            }
        }
    }
}

/// What the runner asked for, in order; none for bodies.
fn variables_asked(exchange: &Exchange) -> Vec<Option<String>> {
    let from_runner = exchange.frames.iter().filter(|frame| !frame.from_gateway);
    from_runner
        .filter_map(|frame| match frame.message()? {
            Message::ExtraInfoReq(Info::Var(Some(name))) => {
                Some(Some(String::from_utf8_lossy(&name).into_owned()))
            }
            Message::ExtraInfoReq(_) => Some(None),
            _ => None,
        })
        .collect()
}

/// Letters and digits become `a`, runs of them one: `1b54…` is `a`, `0.013` is `a.a`.
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

/// The parts of a message that must be the same, by name; headers' values as `told` has them.
fn facts(
    message: Message,
    told: impl Fn(&[u8], &[u8]) -> Vec<u8>,
) -> BTreeMap<&'static str, Vec<u8>> {
    let text = |value: &dyn std::fmt::Debug| format!("{value:?}").into_bytes();
    let header = |mut entry: Entry| {
        let name = entry.name.get_or_insert_default();
        name.make_ascii_lowercase();
        entry.value = entry.value.map(|value| told(name, &value));
        entry
    };
    match message {
        Message::HttpReqCallReq(call) => BTreeMap::from([
            ("src_ip", text(&call.src_ip)),
            ("method", text(&call.method)),
            ("path", call.path),
            ("args", by_name(call.args)),
            ("headers", by_name(call.headers.into_iter().map(header))),
        ]),
        Message::HttpRespCallReq(call) => BTreeMap::from([
            ("status", text(&call.status)),
            ("headers", by_name(call.headers.into_iter().map(header))),
        ]),
        Message::ExtraInfoResp { result } => BTreeMap::from([
            ("is there", text(&result.is_some())),
            ("result", result.unwrap_or_default()),
        ]),
        other => BTreeMap::from([("message", text(&other))]),
    }
}
