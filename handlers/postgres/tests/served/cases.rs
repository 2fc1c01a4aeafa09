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
//!     text: '"id":9223372036854775807'      # bytes of the answer
//!     effect: {sql: select …, gives: "1"}   # past everything, in $schema
//!     postgrest: same                       # or how PostgREST differs
//! ```
//! `seed.sql` is the operator's, once a workspace. Cases that read share a workspace; each
//! that writes has its own.

use std::path::Path;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::both_ways;
use crate::support::{Ask, Served, Way, Workspace, bounds, guarded};

both_ways!(filters, selecting, embedding, ordering, writing, calling);

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

/// What is asked for, as far as it is not there.
fn missing(wanted: &Value, there: &Value) -> Option<String> {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            wanted
                .iter()
                .find_map(|(name, value)| match there.get(name) {
                    None => Some(format!("no {name}")),
                    Some(there) => missing(value, there).map(|what| format!("{name}: {what}")),
                })
        }
        (wanted, there) if wanted == there => None,
        (wanted, there) => Some(format!("{there} instead of {wanted}")),
    }
}

async fn run(served: &Served, workspace: &Workspace, case: &Case) -> Result<(), String> {
    let (method, path) = case.ask.split_once(' ').ok_or("ask needs a method")?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
    let mut ask = Ask::new(workspace, method, path.trim());
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
    let told = || {
        format!(
            "{} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        )
    };
    if answer.status.as_u16() != case.status {
        return Err(told());
    }
    if let Some(code) = &case.code
        && answer.json()["error"]["code"] != **code
    {
        return Err(told());
    }
    for part in &case.says {
        if !String::from_utf8_lossy(&answer.body).contains(part) {
            return Err(format!("does not say {part:?}: {}", told()));
        }
    }
    if let Some(data) = &case.data
        && answer.json()["data"] != *data
    {
        return Err(told());
    }
    if let Some(has) = &case.has
        && let Some(what) = missing(has, &answer.json())
    {
        return Err(format!("{what}: {}", told()));
    }
    if let Some(text) = &case.text
        && !String::from_utf8_lossy(&answer.body).contains(text)
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let file: File =
        serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
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
    let count = file.cases.len();
    assert!(
        failed.is_empty(),
        "{} of {count} cases failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
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

async fn calling(way: Way) {
    table(way, "rpc.yaml").await;
}
