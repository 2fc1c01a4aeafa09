//! The case table: `tests/cases/*.yaml`, request → answer → what is stored.
//!
//! ```yaml
//! seed: [{_id: 1, v: 5}]              # the collection `things`, in extended JSON
//! fresh: true                         # a workspace of its own for every case
//! cases:
//!   - name: what it shows             # where the request does not say it
//!     seed: [{_id: 1}]                # for this case only
//!     before: [{ask: …, body: …}]     # what has to have gone well
//!     ask: GET documents?filter.v=5   # method, and the path below the collection or the workspace
//!     headers: [[if-match, $etag]]    # $etag: what a GET of the same path is answered with
//!     body: {a: 1}                    # JSON; or `raw` for bytes as they are
//!     media: application/json
//!     status: 200                     # 200 unless there is a code
//!     code: VALIDATION_ERROR          # with its status
//!     at: pipeline[0].$out            # the field that is named first
//!     says: [part of the answer]
//!     ids: [1, 2]                     # `_id` of each in `data`, in order
//!     data: [{_id: 1}]                # `data` of the answer, exactly
//!     is: {deleted: 1}                # all of the answer
//!     has: {pagination: {total: 1}}   # members of the answer
//!     stored: [{_id: 1, v: 6}]        # all of the collection then, with types
//! ```
//! Beside the workspace's documents stand another tenant's, as if the databases were not
//! apart: no answer shows them, no change reaches them, no answer to anything has the
//! tenant's fields.

use bson::{Document, doc};
use postern_contract::Code;
use serde::Deserialize;
use serde_json::Value;

use postern_served::Answer;
use postern_served::cases::{self, ask, missing};

use crate::support::{Served, Workspace, bson};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    seed: Vec<Value>,
    #[serde(default)]
    fresh: bool,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    name: String,
    #[serde(default)]
    seed: Option<Vec<Value>>,
    #[serde(default)]
    before: Vec<Step>,
    ask: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    media: Option<String>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    at: Option<String>,
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    ids: Option<Vec<Value>>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    is: Option<Value>,
    #[serde(default)]
    has: Option<Value>,
    #[serde(default)]
    stored: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    ask: String,
    #[serde(default)]
    body: Option<Value>,
}

/// The other tenant's: values that many filters take.
fn foreign() -> Vec<Document> {
    let foreign = |id: i32, v: bson::Bson| doc! { "_id": id, "v": v, "n": 5, "s": "FOREIGN", "_tenantId": "tnt_FOREIGN", "_workspaceId": "wks_FOREIGN" };
    vec![
        foreign(-1, 1.into()),
        foreign(-2, "text".into()),
        foreign(-3, bson::Bson::Null),
    ]
}

fn document(value: &Value) -> Document {
    match bson(value) {
        bson::Bson::Document(document) => document,
        other => panic!("no document: {other}"),
    }
}

async fn seed(workspace: &Workspace, documents: &[Value]) {
    let own = documents
        .iter()
        .map(|value| workspace.mark(document(value)));
    workspace.fill("things", own.chain(foreign())).await;
}

async fn send(served: &Served, workspace: &Workspace, case: &Case) -> Result<Answer, String> {
    for step in &case.before {
        let mut before = ask(workspace, &step.ask)?;
        if let Some(body) = &step.body {
            before = before.json(body);
        }
        let answer = before.send(served).await;
        if !answer.status.is_success() {
            return Err(format!(
                "before: {}: {} {}",
                step.ask,
                answer.status,
                answer.text()
            ));
        }
    }
    let mut asked = ask(workspace, &case.ask)?;
    let media = case.media.as_deref().unwrap_or("application/json");
    match (&case.body, &case.raw) {
        (Some(body), _) => asked = asked.body(media, body.to_string()),
        (None, Some(raw)) => asked = asked.body(media, raw.clone()),
        (None, None) => {}
    }
    for (name, value) in &case.headers {
        let mut value = value.clone();
        if value.contains("$etag") {
            let path = case.ask.split_once(' ').unwrap_or_default().1;
            let found = ask(workspace, &format!("GET {path}"))?.send(served).await;
            let etag = found.headers.get("etag").ok_or("there is no ETag")?;
            value = value.replace("$etag", etag.to_str().map_err(|error| error.to_string())?);
        }
        asked = asked.header(name, &value);
    }
    Ok(asked.send(served).await)
}

async fn run(
    served: &Served,
    workspace: &Workspace,
    case: &Case,
    seeded: bool,
) -> Result<(), String> {
    let answer = send(served, workspace, case).await?;
    let told = || format!("{} {}", answer.status, answer.text());
    let code = case.code.as_deref();
    let known = |text| Code::ALL.iter().find(|code| code.as_str() == text);
    let status = match (case.status, code) {
        (Some(status), _) => status,
        (None, None) => 200,
        (None, Some(text)) => known(text).ok_or("there is no such code")?.status(),
    };
    if answer.status.as_u16() != status || code.is_some_and(|code| answer.code() != code) {
        return Err(told());
    }
    let raw = case.raw.as_deref().unwrap_or_default();
    let sent = format!("{}{:?}{raw}", case.ask, case.body).replace("\\u005f", "_");
    for secret in ["_tenantId", "_workspaceId", "FOREIGN", "mongodb://"] {
        if answer.text().contains(secret) && !sent.contains(secret) {
            return Err(format!("shows {secret}: {}", told()));
        }
    }
    for part in &case.says {
        if !answer.text().contains(part) {
            return Err(format!("does not say {part:?}: {}", told()));
        }
    }
    if let Some(at) = &case.at
        && answer.json().pointer("/error/details/0/field") != Some(&Value::from(at.as_str()))
    {
        return Err(told());
    }
    if let Some(wanted) = &case.ids {
        let json = answer.json();
        let data = json["data"].as_array().ok_or_else(told)?;
        let ids: Vec<_> = data
            .iter()
            .map(|document| document["_id"].clone())
            .collect();
        if ids != *wanted {
            return Err(format!("_ids are {}", Value::from(ids)));
        }
    }
    if case
        .data
        .as_ref()
        .is_some_and(|data| answer.json()["data"] != *data)
    {
        return Err(told());
    }
    if case
        .is
        .as_ref()
        .is_some_and(|wanted| answer.json() != *wanted)
    {
        return Err(told());
    }
    if let Some(what) = case
        .has
        .as_ref()
        .and_then(|has| missing(has, &answer.json()))
    {
        return Err(format!("{what}: {}", told()));
    }
    let stored = stored(workspace, case, seeded).await;
    stored.map_err(|what| format!("{what}: {}", told()))
}

/// What is there then: of the other tenant's all as it was, of the workspace's what the
/// case says.
async fn stored(workspace: &Workspace, case: &Case, with_foreign: bool) -> Result<(), String> {
    let all = workspace.all("things").await;
    let is_foreign = |it: &Document| it.get_str("_tenantId") == Ok("tnt_FOREIGN");
    let (mut others, own): (Vec<_>, Vec<_>) = all.into_iter().partition(is_foreign);
    others.sort_by_key(|it| -it.get_i32("_id").unwrap_or_default());
    if with_foreign && others != foreign() {
        return Err(format!("the other tenant has {others:?}"));
    }
    let Some(wanted) = &case.stored else {
        return Ok(());
    };
    let wanted: Vec<_> = wanted
        .iter()
        .map(|value| workspace.mark(document(value)))
        .collect();
    // Where the two fields stand is no matter.
    let plain = |documents: Vec<Document>| -> Vec<Document> {
        let own = workspace.mark(Document::new());
        let strip = |mut document: Document| {
            for (name, value) in &own {
                if document.get(name) == Some(value) {
                    document.remove(name);
                    document.insert(format!("is {name}"), true);
                }
            }
            document
        };
        documents.into_iter().map(strip).collect()
    };
    let (own, wanted) = (plain(own), plain(wanted));
    if own != wanted {
        return Err(format!("stored are {own:?}"));
    }
    Ok(())
}

async fn table(name: &str, least: usize) {
    let file: File = cases::read(env!("CARGO_MANIFEST_DIR"), name);
    let served = Served::new().await;
    let shared = served.workspace().await;
    let mut failed = Vec::new();
    // What stands in the shared collection; none: a case has changed it.
    let mut there: Option<&[Value]> = None;
    for case in &file.cases {
        let workspace = if file.fresh {
            served.workspace().await
        } else {
            shared.clone()
        };
        let documents = case.seed.as_deref().unwrap_or(&file.seed);
        let seeded = !file.fresh || case.seed.is_some();
        if seeded && (file.fresh || there != Some(documents)) {
            seed(&workspace, documents).await;
        }
        let reads = case.ask.starts_with("GET") || case.ask.starts_with("POST aggregate");
        there = (reads && case.before.is_empty()).then_some(documents);
        if let Err(why) = run(&served, &workspace, case, seeded).await {
            let body = case.body.as_ref().map(Value::to_string).unwrap_or_default();
            failed.push(format!("{} {} {body}\n    {why}", case.name, case.ask));
        }
    }
    let count = file.cases.len();
    cases::finish(count, &failed);
    assert!(count >= least, "{count} cases only");
}

#[tokio::test]
async fn filters() {
    table("filters.yaml", 100).await;
}

#[tokio::test]
async fn lists() {
    table("lists.yaml", 40).await;
}

#[tokio::test]
async fn one_document() {
    table("documents.yaml", 60).await;
}

#[tokio::test]
async fn updates() {
    table("updates.yaml", 70).await;
}

#[tokio::test]
async fn bulk() {
    table("bulk.yaml", 25).await;
}

#[tokio::test]
async fn aggregations() {
    table("aggregate.yaml", 90).await;
}

#[tokio::test]
async fn collections() {
    table("collections.yaml", 30).await;
}
