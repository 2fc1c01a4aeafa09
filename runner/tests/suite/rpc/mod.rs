//! One connection: what the runner answers to good calls, bad ones, and slow ones.

mod chain;
mod configurations;
mod frames;

use postern_runner::testkit::Gateway;
use postern_runner::{Flow, Plugin, Registry, Reply, Request, Response, RunnerConfig};
use postern_wire::message::{Action, Entry, Message, Stop};
use serde_json::Value;

/// Does to a request what its configuration says.
struct Puppet;

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(tag = "do", rename_all = "camelCase", deny_unknown_fields)]
enum Part {
    Nothing,
    Panic,
    Hang,
    AskAndHang,
    Stop { status: u16 },
    Edit,
    Echo { var: String },
    Body { limit: usize },
}

impl Plugin for Puppet {
    const NAME: &'static str = "puppet";
    type Config = Part;

    fn at_once(&self, part: &Part, _: &mut Request<'_>) -> Option<Flow> {
        matches!(part, Part::Nothing).then_some(Flow::Next)
    }

    async fn on_request(&self, part: &Part, request: &mut Request<'_>) -> Flow {
        match part {
            Part::Nothing => Flow::Next,
            Part::Panic => panic!("a secret of the request"),
            Part::Hang => std::future::pending().await,
            Part::AskAndHang => {
                let _ = request.var("never_answered").await;
                std::future::pending().await
            }
            Part::Stop { status } => Flow::Stop(
                Reply::new(*status)
                    .with_header("Content-Length", "1")
                    .with_header("X-Mine", "yes"),
            ),
            Part::Edit => {
                request.set_header("X-Set", "1");
                request.set_header("x-set", "2");
                request.remove_header("X-Gone");
                request.set_arg("page", "2");
                request.set_path("/pinned path");
                request.set_resp_header("X-Back", "b");
                Flow::Next
            }
            Part::Echo { var } => {
                let value = request.var(var).await.unwrap();
                request.set_header("X-Var", value.unwrap_or_else(|| "absent".into()));
                Flow::Next
            }
            Part::Body { limit } => {
                let first = request
                    .body(*limit)
                    .await
                    .map_err(|error| error.to_string());
                let again = request
                    .body(*limit)
                    .await
                    .map_err(|error| error.to_string());
                assert_eq!(first, again);
                match first {
                    Ok(body) => request.set_header("X-Body", body.unwrap_or_default()),
                    Err(error) => request.set_header("X-Body-Error", error),
                }
                Flow::Next
            }
        }
    }

    async fn on_response(&self, part: &Part, response: &mut Response<'_>) -> Flow {
        if matches!(part, Part::Edit) {
            response.set_status(203);
            response.set_header("X-Up", "changed");
            response.remove_header("Set-Cookie");
        }
        Flow::Next
    }
}

fn gateway_with(config: &str) -> Gateway {
    let registry = Registry::new().with(Puppet);
    Gateway::serving(registry, &RunnerConfig::parse(config).unwrap()).unwrap()
}

async fn prepared(part: &str) -> (Gateway, u32) {
    let mut gateway = gateway_with("");
    let token = gateway
        .prepare("route#r#ext-plugin-pre-req#1", &[("puppet", part)])
        .await
        .unwrap();
    (gateway, token)
}

#[track_caller]
fn stop(message: Message) -> Stop {
    match message {
        Message::HttpReqCallResp {
            id: 7,
            action: Some(Action::Stop(stop)),
        } => stop,
        other => panic!("no stop but {other:?}"),
    }
}

fn header(headers: &[Entry], name: &str) -> Option<String> {
    let value = headers.iter().find(|entry| entry.is(name))?.value.clone();
    Some(String::from_utf8(value.unwrap_or_default()).unwrap())
}

#[track_caller]
fn error_code(stop: &Stop) -> String {
    let body: Value = serde_json::from_slice(stop.body.as_deref().unwrap()).unwrap();
    assert_eq!(
        header(&stop.headers, "content-type").unwrap(),
        "application/json"
    );
    let id = header(&stop.headers, "x-correlation-id").unwrap();
    assert_eq!(body["error"]["correlationId"], id.as_str());
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// The answer to a request that goes on as it is.
fn unchanged() -> Message {
    Message::HttpReqCallResp {
        id: 7,
        action: None,
    }
}
