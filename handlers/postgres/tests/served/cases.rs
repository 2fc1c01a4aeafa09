//! The case table: `tests/cases/*.yaml`, request → effect → answer.
//!
//! ```yaml
//! cases:
//!   - name: what it shows
//!     ask: GET rows/orders?id=eq.1          # method, and the path below the workspace
//!     prefer: return=representation         # and other headers by `headers`
//!     body: [{"id": 1}]                     # JSON; or `csv`, or `raw` for bytes as they are
//!     status: 200                           # what is answered
//!     code: VALIDATION_ERROR                # of a refusal
//!     says: [part of the message]
//!     data: [{"id": 1}]                     # `data` of the answer, exactly
//!     has: {pagination: {total: 1}}         # members of the answer
//!     whole: {"id": 1}                      # all of the answer, exactly
//!     tells: [[content-type, text/plain]]   # headers of the answer; "": not there
//!     text: '"id":9223372036854775807'      # bytes of the answer
//!     effect: {sql: select …, gives: "1"}   # past everything, in $schema
//!     postgrest: same                       # or how PostgREST differs
//! ```
//! `seed.sql` is the operator's, once a workspace. Cases that read share a workspace; each
//! that writes has its own.

use serde::Deserialize;
use serde_json::Value;

use crate::both_ways;
use postern_served::cases;

use crate::support::{Served, Way, Workspace, bounds, guarded};

both_ways!(
    filters, selecting, embedding, ordering, writing, calling, taking
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    ask: String,
    #[serde(default)]
    prefer: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    csv: Option<String>,
    #[serde(default)]
    raw: Option<String>,
    status: u16,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    has: Option<Value>,
    #[serde(default)]
    whole: Option<Value>,
    #[serde(default)]
    tells: Vec<(String, String)>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    effect: Option<Effect>,
    /// `same`, or how PostgREST differs: read by people, and counted.
    postgrest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Effect {
    sql: String,
    gives: Option<String>,
}

/// A workspace with the tables of `seed.sql`; `$guard(table)` stands for what guards it.
pub async fn seeded(served: &Served) -> Workspace {
    let workspace = served.workspace().await;
    let mut sql = String::new();
    for line in include_str!("../cases/seed.sql").lines() {
        match line.trim().strip_prefix("$guard(") {
            Some(table) => sql.push_str(&guarded(table.trim_end_matches([')', ';']), &workspace)),
            None => {
                sql.push_str(&line.replace("$schema", &workspace.schema()));
                sql.push('\n');
            }
        }
    }
    served.seed(&workspace, &sql).await;
    workspace
}

async fn run(served: &Served, workspace: &Workspace, case: &Case) -> Result<(), String> {
    let mut ask = cases::ask(workspace, &case.ask)?;
    if let Some(prefer) = &case.prefer {
        ask = ask.header("prefer", prefer);
    }
    if let Some(body) = &case.body {
        ask = ask.json(body);
    }
    if let Some(csv) = &case.csv {
        ask = ask.body("text/csv", csv.clone());
    }
    if let Some(raw) = &case.raw {
        ask = ask.body("application/json", raw.clone());
    }
    for (name, value) in &case.headers {
        ask = ask.header(name, value);
    }
    let answer = ask.send(served).await;
    let told = || format!("{} {}", answer.status, answer.text());
    if answer.status.as_u16() != case.status {
        return Err(told());
    }
    if let Some(code) = &case.code
        && answer.json()["error"]["code"] != **code
    {
        return Err(told());
    }
    for part in &case.says {
        if !answer.text().contains(part) {
            return Err(format!("does not say {part:?}: {}", told()));
        }
    }
    if let Some(data) = &case.data
        && answer.json()["data"] != *data
    {
        return Err(told());
    }
    if let Some(has) = &case.has
        && let Some(what) = cases::missing(has, &answer.json())
    {
        return Err(format!("{what}: {}", told()));
    }
    if let Some(whole) = &case.whole
        && answer.json() != *whole
    {
        return Err(told());
    }
    for (name, value) in &case.tells {
        let there = answer
            .headers
            .get(name)
            .map(|there| there.to_str().unwrap());
        if there.unwrap_or_default() != value {
            return Err(format!("{name} is {there:?}: {}", told()));
        }
    }
    if let Some(text) = &case.text
        && !answer.text().contains(text)
    {
        return Err(told());
    }
    if let Some(effect) = &case.effect {
        let found = served.text(workspace, &effect.sql).await;
        if found != effect.gives {
            return Err(format!("{} gives {found:?}", effect.sql));
        }
    }
    Ok(())
}

async fn table(way: Way, name: &str) {
    let file: File = cases::read(env!("CARGO_MANIFEST_DIR"), name);
    let served = Served::by(way, bounds()).await;
    let shared = seeded(&served).await;
    let mut failed = Vec::new();
    for (n, case) in file.cases.iter().enumerate() {
        let own = !case.ask.starts_with("GET");
        // Each such costs a workspace: behind the pooler every fifth.
        if own && matches!(way, Way::Pooled) && n % 5 != 0 {
            continue;
        }
        let workspace = if own { seeded(&served).await } else { shared };
        assert!(!case.postgrest.is_empty(), "{}", case.name);
        if let Err(why) = run(&served, &workspace, case).await {
            failed.push(format!("{}: {}\n    {why}", case.name, case.ask));
        }
    }
    cases::finish(file.cases.len(), &failed);
}

async fn filters(way: Way) {
    table(way, "filters.yaml").await;
}

async fn selecting(way: Way) {
    table(way, "select.yaml").await;
}

async fn embedding(way: Way) {
    table(way, "embed.yaml").await;
}

async fn ordering(way: Way) {
    table(way, "order.yaml").await;
}

async fn writing(way: Way) {
    table(way, "write.yaml").await;
}

async fn taking(way: Way) {
    table(way, "accept.yaml").await;
}

async fn calling(way: Way) {
    table(way, "rpc.yaml").await;
}
