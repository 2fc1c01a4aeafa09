//! The codec against frames that a real APISIX and a scripted runner exchanged
//! (`tests/golden/`): each reads as an independent decoder read it, and what is
//! written back reads the same.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

#[path = "../fuzz/bodies.rs"]
#[allow(dead_code, reason = "frames are the property tests' business")]
mod bodies;
mod support;

use postern_wire::message::{Action, Entry, Info, Message};
use postern_wire::{ErrorCode, frame};
use serde_json::{Value, json};

/// One character a byte, as the recording spells text.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn text(bytes: Option<&Vec<u8>>) -> Value {
    bytes.map_or(Value::Null, |bytes| Value::String(latin1(bytes)))
}

fn entries(entries: &[Entry]) -> Value {
    entries
        .iter()
        .map(|entry| json!([name(entry.name.as_ref()), text(entry.value.as_ref())]))
        .collect()
}

/// One that is not there is spelled like an empty one.
fn name(name: Option<&Vec<u8>>) -> String {
    name.map(|name| latin1(name)).unwrap_or_default()
}

/// A recording may say null there.
fn with_names(decoded: &Value) -> Value {
    match decoded {
        Value::Array(pair)
            if matches!(
                pair.as_slice(),
                [Value::Null, Value::String(_) | Value::Null]
            ) =>
        {
            json!(["", pair[1]])
        }
        Value::Array(list) => list.iter().map(with_names).collect(),
        Value::Object(fields) => {
            let field = |(field, value): (&String, &Value)| match (field.as_str(), value) {
                ("var", Value::Null) => (field.clone(), json!("")),
                _ => (field.clone(), with_names(value)),
            };
            Value::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

/// The message as the recording spells it.
fn as_recorded(message: &Message) -> Value {
    match message {
        Message::Err(code) => json!({"code": match code {
            ErrorCode::BadRequest => 0,
            ErrorCode::ServiceUnavailable => 1,
            ErrorCode::ConfTokenNotFound => 2,
        }}),
        Message::PrepareConfReq(call) => {
            json!({"key": latin1(&call.key), "conf": entries(&call.conf)})
        }
        Message::PrepareConfResp { conf_token } => json!({"conf_token": conf_token}),
        Message::HttpReqCallReq(call) => json!({
            "id": call.id, "src_ip": call.src_ip, "method": call.method.number(),
            "path": latin1(&call.path), "args": entries(&call.args),
            "headers": entries(&call.headers), "conf_token": call.conf_token,
        }),
        Message::HttpReqCallResp { id, action } => match action {
            None => json!({"id": id, "action": 0}),
            Some(Action::Stop(stop)) => json!({"id": id, "action": 1, "stop": {
                "status": stop.status, "headers": entries(&stop.headers),
                "body": text(stop.body.as_ref()),
            }}),
            Some(Action::Rewrite(rewrite)) => json!({"id": id, "action": 2, "rewrite": {
                "path": text(rewrite.path.as_ref()), "headers": entries(&rewrite.headers),
                "args": entries(&rewrite.args), "resp_headers": entries(&rewrite.resp_headers),
                "body": text(rewrite.body.as_ref()),
            }}),
            Some(Action::Unknown(number)) => json!({"id": id, "action": number}),
        },
        Message::ExtraInfoReq(info) => match info {
            Info::Var(variable) => json!({"info": 1, "var": name(variable.as_ref())}),
            Info::ReqBody => json!({"info": 2}),
            Info::RespBody => json!({"info": 3}),
            Info::Bare(1) => json!({"info": 1, "var": ""}),
            Info::Bare(number) | Info::Unknown(number) => json!({"info": number}),
        },
        Message::ExtraInfoResp { result } => json!({"result": text(result.as_ref())}),
        Message::HttpRespCallReq(call) => json!({
            "id": call.id, "status": call.status, "headers": entries(&call.headers),
            "conf_token": call.conf_token,
        }),
        Message::HttpRespCallResp(answer) => json!({
            "id": answer.id, "status": answer.status, "headers": entries(&answer.headers),
            "body": text(answer.body.as_ref()),
        }),
    }
}

fn read(frame: &support::Recorded) -> Result<Message, String> {
    let (frame_type, body) = frame::split(&frame.bytes).map_err(|error| error.to_string())?;
    Message::decode(frame.from, frame_type, body).map_err(|error| error.to_string())
}

#[test]
fn every_frame_reads_as_recorded_and_survives_being_written_again() {
    let mut whole = 0;
    for frame in support::recorded() {
        let Some(decoded) = &frame.decoded else {
            continue;
        };
        let (name, from) = (&frame.exchange, frame.from);
        let message = read(&frame).unwrap_or_else(|error| panic!("{name}, from {from}: {error}"));
        assert_eq!(
            as_recorded(&message),
            with_names(decoded),
            "{name}, from {from}"
        );

        let written = message.encode().expect("short enough");
        let (frame_type, body) = frame::split(&written).expect("a whole frame");
        let again = Message::decode(from, frame_type, body).expect("what was just written");
        assert_eq!(again, message, "{name}, from {from}");

        // The runner's readers and the generated code agree, too.
        let [kind, _, _, _, body @ ..] = &frame.bytes[..] else {
            unreachable!("it was read")
        };
        let side = u8::from(from == postern_wire::Side::Runner);
        bodies::messages(&[&[2 * kind + side], body].concat());
        whole += 1;
    }
    assert!(whole > 0, "the recording holds no frame that can be read");
}

#[test]
fn frames_broken_on_purpose_are_errors_that_say_what_is_wrong() {
    let broken: Vec<(String, String)> = support::recorded()
        .iter()
        .filter(|frame| frame.decoded.is_none())
        .map(|frame| {
            let error = read(frame).expect_err(&frame.exchange);
            assert!(!error.contains('\n'), "{error}");
            (frame.exchange.clone(), error)
        })
        .collect();
    if std::env::var_os("GOLDEN").is_some() {
        return;
    }
    let expect = [
        ("errempty", "error frame: not a valid FlatBuffers buffer"),
        ("partial", "the frame ends early: 7 bytes of 259"),
        ("unknowntype", "frame type 77 is not one of the protocol's"),
        (
            "emptyframe",
            "http-req-call answer: not a valid FlatBuffers buffer",
        ),
    ];
    assert_eq!(broken.len(), expect.len(), "{broken:?}");
    for (name, message) in expect {
        let (_, error) = broken
            .iter()
            .find(|(exchange, _)| exchange == name)
            .expect(name);
        assert!(error.starts_with(message), "{name}: {error}");
    }
}
