//! The promise, held against what clients were told and what is in the table.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;
use sqlx::PgPool;

use super::client::Life;
use super::plan::Verdict;

/// What a run broke of the promise, in words.
#[derive(Debug, Default)]
pub(super) struct Broken {
    /// Keys with more than one effect.
    pub(super) duplicates: Vec<String>,
    /// Everything else.
    pub(super) others: Vec<String>,
}

type Effect = (String, String, i64);

/// Compares every key's life with its effects.
pub(super) async fn judge(effects: &PgPool, lives: &[Life]) -> Result<Broken> {
    let rows: Vec<Effect> = sqlx::query_as("SELECT action, payload, number FROM effect")
        .fetch_all(effects)
        .await?;
    let mut by_action: BTreeMap<&str, Vec<&Effect>> = BTreeMap::new();
    for row in &rows {
        by_action.entry(&row.0).or_default().push(row);
    }
    let mut broken = Broken::default();
    for life in lives {
        let found = by_action.remove(life.action.name.as_str());
        one(life, &found.unwrap_or_default(), &mut broken);
    }
    for action in by_action.keys() {
        broken
            .others
            .push(format!("{action} has effects and is nobody's"));
    }
    Ok(broken)
}

fn one(life: &Life, effects: &[&Effect], broken: &mut Broken) {
    let name = &life.action.name;
    let mut complain = |what: String| broken.others.push(format!("{name}: {what}\n  {life:?}"));
    for wrong in &life.wrong {
        complain(wrong.clone());
    }
    let told = life.told.first();
    if life.action.leaves.is_none() && told.is_none() {
        complain("never answered".into());
    }
    // Every answer is the first one's, byte for byte, and one at most is no replay.
    if life.told.iter().any(|other| {
        told.is_some_and(|first| {
            (first.status, &first.body, first.payload) != (other.status, &other.body, other.payload)
        })
    }) {
        complain("its answers differ".into());
    }
    if life.told.iter().filter(|told| !told.replayed).count() > 1 {
        complain("two were told they were the first".into());
    }
    let wanted = match life.action.verdict {
        Verdict::Accept => 1,
        // Refused after the effect: undone.
        Verdict::Refuse => 0,
    };
    match effects {
        [] if told.is_some() && wanted == 1 => {
            complain("it was said to be done and is not".into());
        }
        [_, _, ..] => broken
            .duplicates
            .push(format!("{name}: {} effects", effects.len())),
        [_] if wanted == 0 => complain("what was refused took effect".into()),
        [(_, payload, number)] => {
            if let Some(told) = told {
                let body: Value = serde_json::from_slice(&told.body).unwrap_or_default();
                if body.get("number") != Some(&Value::from(*number)) || told.payload != *payload {
                    complain(format!("the effect is another one: {payload} {number}"));
                }
            }
        }
        [] => {}
    }
}
