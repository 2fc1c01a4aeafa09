//! Sends the request of every route, and shows those that were answered otherwise than
//! they must be.

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use futures::stream;
use postern_contract::{Code, Route, routes};
use postern_harness::api::Call;
use postern_harness::http::Reply;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::rules::{Asked, Verdict, verdict};
use crate::world::World;

/// Requests of one walk under way at once.
pub(crate) const AT_ONCE: usize = 8;
/// And of all of them together: far fewer than the handlers may have connections to their
/// database, as each connection costs a slow machine more than a request does.
static ROOM: Semaphore = Semaphore::const_new(AT_ONCE);

/// A place among the requests that are under way.
pub(crate) async fn room() -> Result<SemaphorePermit<'static>> {
    Ok(ROOM.acquire().await?)
}

/// One request of one route.
pub(crate) struct Cell {
    pub(crate) route: &'static Route,
    pub(crate) case: String,
    pub(crate) asked: Asked,
    pub(crate) expected: Verdict,
    /// Instead of the route's path.
    pub(crate) path: Option<String>,
    bend: Box<dyn FnOnce(Call) -> Call>,
}

impl Cell {
    /// What the rules say of this request.
    pub(crate) fn new(world: &World, route: &'static Route, case: &str, asked: Asked) -> Self {
        Self {
            route,
            case: case.to_owned(),
            asked,
            expected: verdict(route, &asked, &world.on),
            path: None,
            bend: Box::new(|call| call),
        }
    }

    /// With something about the request changed that the rules do not know of.
    pub(crate) fn bent(mut self, bend: impl FnOnce(Call) -> Call + 'static) -> Self {
        self.bend = Box::new(bend);
        self
    }

    /// With this path instead.
    pub(crate) fn at(mut self, path: String) -> Self {
        self.path = Some(path);
        self
    }

    /// Refused with this code, whatever the rules say.
    pub(crate) fn refused(mut self, code: Code) -> Self {
        self.expected = Verdict::Refused(code);
        self
    }

    /// Sends it, and says what is wrong with the answer.
    async fn judge(self, world: &World) -> Option<String> {
        let Self {
            route,
            case,
            asked,
            expected,
            path,
            bend,
        } = self;
        let path = path.unwrap_or_else(|| world.path(route, &asked));
        let judged = async {
            let _room = room().await.map_err(|e| e.to_string())?;
            let call = world
                .call(route, &asked, &path)
                .await
                .map_err(|e| format!("{e:#}"))?;
            let reply = bend(call).await.map_err(|e| format!("{e:#}"))?;
            answered(&reply, expected)?;
            names_what_is_missing(&reply, route)?;
            discreet(&reply)?;
            // A platform's lists are of all tenants.
            if reply.status < 400 && asked.of.is_none() {
                return Ok(());
            }
            let mut text = String::from_utf8_lossy(&reply.body).into_owned();
            for value in reply.headers.values() {
                text.push_str(&String::from_utf8_lossy(value.as_bytes()));
            }
            // A tenant's audit trail holds the realms and ids that its own members have named.
            let trail = reply.status < 400 && route.id == "tenants.audit";
            if trail {
                text = world.without_realms(text);
            }
            let mut leaks = world.leaks(&asked, &path, &text);
            if trail {
                leaks.retain(|word| !word.contains('_'));
            }
            match leaks.as_slice() {
                [] => Ok(()),
                leaks => Err(format!("tells {}", leaks.join(", "))),
            }
        };
        let got = judged.await.err()?;
        let expected = match expected {
            Verdict::Refused(code) => format!("{} {code}", code.status()),
            Verdict::Served | Verdict::ServedOrAway => "let in".to_owned(),
        };
        Some(format!(
            "{:24} | {case:36} | {expected:28} | {got}",
            route.id
        ))
    }
}

/// Sends every cell, many at once.
pub(crate) async fn walk(world: &World, cells: Vec<Cell>) -> Result<()> {
    let all = cells.len();
    ensure!(
        all >= routes().all().len() / 2,
        "only {all} cells: the walk is not one"
    );
    let started = std::time::Instant::now();
    let wrong: Vec<String> = stream::iter(cells)
        .map(|cell| cell.judge(world))
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    println!("{all} requests in {:?}", started.elapsed());
    shown(all, &wrong)
}

/// Fails with a table of what went wrong.
pub(crate) fn shown(all: usize, wrong: &[String]) -> Result<()> {
    ensure!(
        wrong.is_empty(),
        "{} of {all} requests were not answered as they must be:\n\
         route                    | case                                 | expected                     | got\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// Codes that a family's own code does not pronounce on a request that the runner let in.
const BEFORE_THE_FAMILY: [Code; 24] = [
    Code::TokenMissing,
    Code::TokenInvalid,
    Code::TokenExpired,
    Code::ContextInvalid,
    Code::PathAmbiguous,
    Code::ScopeDenied,
    Code::RoleDenied,
    Code::TenantSuspended,
    Code::TenantNotFound,
    Code::WorkspaceSuspended,
    Code::WorkspaceNotFound,
    Code::WorkspaceProvisioning,
    Code::CapabilityDisabled,
    Code::PlanCapabilityRequired,
    Code::RouteNotFound,
    Code::MethodNotAllowed,
    Code::HeadersTooLarge,
    Code::HeaderRepeated,
    Code::RateLimited,
    Code::FamilyUnavailable,
    Code::UnsupportedMediaType,
    Code::BackendUnavailable,
    Code::GatewayMisconfigured,
    Code::Internal,
];

/// Whether an answer is the expected one, with all that such an answer has.
pub(crate) fn answered(reply: &Reply, expected: Verdict) -> Result<(), String> {
    let got = code(reply);
    match expected {
        Verdict::Refused(code) if got.as_deref() != Some(code.as_str()) => Err(outcome(reply)),
        Verdict::Refused(code) => reply
            .refused(code.status(), code.as_str())
            .map(drop)
            .map_err(|error| format!("{}: {}", outcome(reply), error.root_cause())),
        Verdict::ServedOrAway if got.as_deref() == Some(Code::BackendUnavailable.as_str()) => reply
            .refused(503, Code::BackendUnavailable.as_str())
            .map(drop)
            .map_err(|error| error.root_cause().to_string()),
        Verdict::Served | Verdict::ServedOrAway => {
            let early = BEFORE_THE_FAMILY
                .iter()
                .any(|code| got.as_deref() == Some(code.as_str()));
            // A refusal without an envelope is nobody's of ours.
            let nobodys = reply.status >= 400 && got.is_none();
            if early || nobodys {
                Err(outcome(reply))
            } else {
                Ok(())
            }
        }
    }
}

/// The code of an envelope.
fn code(reply: &Reply) -> Option<String> {
    let body = reply.json().ok()?;
    Some(body.pointer("/error/code")?.as_str()?.to_owned())
}

/// An answer in a few words.
fn outcome(reply: &Reply) -> String {
    let message = reply.text_at("/error/message").unwrap_or_default();
    let code = code(reply).unwrap_or_else(|| {
        String::from_utf8_lossy(&reply.body)
            .chars()
            .take(60)
            .collect()
    });
    format!("{} {code} {message}", reply.status)
}

/// A denial says which scope or which roles would have done.
fn names_what_is_missing(reply: &Reply, route: &Route) -> Result<(), String> {
    let message = reply.text_at("/error/message").unwrap_or_default();
    let missing: Vec<&String> = match code(reply).as_deref() {
        Some("SCOPE_DENIED") => route.scope.iter().collect(),
        Some("ROLE_DENIED") => route.roles.iter().collect(),
        _ => return Ok(()),
    };
    let untold: Vec<&str> = missing
        .into_iter()
        .map(String::as_str)
        .filter(|name| !message.contains(*name))
        .collect();
    if untold.is_empty() {
        Ok(())
    } else {
        Err(format!("does not name {}: {message}", untold.join(", ")))
    }
}

/// What tells of the inside: programs, sources, addresses, statements.
const INSIDE: [&str; 16] = [
    "panicked",
    ".rs:",
    "sqlx",
    "tokio",
    "hyper",
    "tonic",
    "axum",
    "127.0.0.1",
    "localhost",
    "postgres://",
    "/tmp/",
    ".sock",
    "select ",
    "insert into",
    "postern-runner",
    "postern-handlers",
];

/// No refusal tells how we are built, or with which version of what.
pub(crate) fn discreet(reply: &Reply) -> Result<(), String> {
    if reply.status < 400 {
        return Ok(());
    }
    let mut body = String::from_utf8_lossy(&reply.body).to_lowercase();
    // Drawn at random, it may hold any word.
    if let Ok(id) = reply.text_at("/error/correlationId") {
        body = body.replace(&id.to_lowercase(), "");
    }
    if let Some(word) = INSIDE.iter().find(|word| body.contains(**word)) {
        return Err(format!("tells of {word}: {body}"));
    }
    let server = reply.header("server").unwrap_or_default();
    if server.contains(|c: char| c.is_ascii_digit()) || reply.header("x-powered-by").is_some() {
        return Err(format!("says what it is: Server: {server}"));
    }
    Ok(())
}
