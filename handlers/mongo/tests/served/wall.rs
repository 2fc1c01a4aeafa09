//! What a client computes meets its own documents only, and costs what it may.
//!
//! Databases of workspaces are apart; here a foreign document stands in the workspace's
//! own collection, so that the predicate alone is what holds.

use bson::doc;
use http::Method;
use serde_json::{Value, json};

use postern_served::{Answer, Ask};

use crate::support::{Served, Workspace, bounds};

async fn world() -> (Served, Workspace) {
    let served = Served::with(bounds(), None).await;
    let workspace = served.workspace().await;
    refill(&workspace).await;
    (served, workspace)
}

async fn refill(workspace: &Workspace) {
    let own = || workspace.mark(doc! { "_id": 1, "n": 1 });
    let foreign = doc! {
        "_id": 100, "_tenantId": "tnt_FOREIGN", "_workspaceId": "wks_FOREIGN",
        "secret": "FOREIGN", "sn": 7,
    };
    workspace.fill("shared", [own(), foreign]).await;
    workspace.fill("single", [own()]).await;
}

async fn ask(
    served: &Served,
    workspace: &Workspace,
    collection: &str,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let path = format!("collections/{collection}/{path}");
    match body {
        Some(body) => Ask::new(workspace, Method::POST, &path).json(body),
        None => Ask::new(workspace, Method::GET, &path),
    }
    .send(served)
    .await
}

/// Conditions that fail on the foreign document and on no other. The server may judge an
/// `$or` before the equalities beside it.
fn probes() -> [Value; 3] {
    let judged = |computed: Value| json!({"$or": [{"$expr": {"$eq": [computed, 1]}}, {"zz": 1}]});
    [
        judged(json!({"$divide": [1, {"$subtract": [{"$ifNull": ["$sn", 1]}, 7]}]})),
        judged(json!({"$toInt": {"$ifNull": ["$secret", "1"]}})),
        judged(json!({"$strLenCP": {"$ifNull": ["$sn", ""]}})),
    ]
}

/// No error and no count differs by a document of somebody else.
#[tokio::test]
async fn a_foreign_document_changes_no_answer() {
    let (served, workspace) = world().await;
    for probe in probes() {
        let on = |from: &str| {
            let matches = json!({"$match": probe});
            let joined = json!({"from": from, "as": "x", "pipeline": [matches]});
            let mut by_field = joined.clone();
            by_field["localField"] = json!("n");
            by_field["foreignField"] = json!("n");
            let pipelines = [
                json!([matches]),
                json!([{"$sort": {"n": 1}}, matches]),
                json!([{"$addFields": {"k": 1}}, matches]),
                json!([{"$project": {"sn": 1, "secret": 1}}, matches, {"$count": "c"}]),
                json!([{"$facet": {"a": [matches]}}]),
                json!([{"$lookup": joined}]),
                json!([{"$lookup": by_field}]),
            ];
            let mut asks: Vec<(&str, Value)> = pipelines
                .into_iter()
                .map(|pipeline| ("aggregate", json!({"pipeline": pipeline})))
                .collect();
            for operation in [
                json!({"updateMany": {"filter": probe, "update": {"$set": {"u": 1}}}}),
                json!({"deleteMany": {"filter": probe}}),
                json!({"deleteOne": {"filter": probe}}),
            ] {
                asks.push(("bulk", json!({"operations": [operation]})));
            }
            asks
        };
        let list = format!("documents?filter={}", probe);
        let (here, there) = (
            ask(&served, &workspace, "shared", &list, None).await,
            ask(&served, &workspace, "single", &list, None).await,
        );
        assert_eq!(here.status.as_u16(), 200, "{probe}: {}", here.text());
        assert_eq!(here.text(), there.text(), "{probe}");
        for ((path, shared), (_, single)) in on("shared").into_iter().zip(on("single")) {
            let (here, there) = (
                ask(&served, &workspace, "shared", path, Some(&shared)).await,
                ask(&served, &workspace, "single", path, Some(&single)).await,
            );
            assert_eq!(here.status.as_u16(), 200, "{shared}: {}", here.text());
            assert_eq!(here.text(), there.text(), "{shared}");
            let all = workspace.all("shared").await;
            let foreign: Vec<_> = all
                .iter()
                .filter(|document| document.get_i32("_id") == Ok(100))
                .collect();
            assert!(
                foreign.len() == 1 && !foreign[0].contains_key("u"),
                "{shared}"
            );
            refill(&workspace).await;
        }
    }
}

/// MongoDB ends no expression within a document: neither `maxTimeMS` nor a client that
/// leaves does. So what would take for ever, or all memory, is refused.
#[tokio::test]
async fn an_expression_costs_what_it_may() {
    let (served, workspace) = world().await;
    let sum = |over: Value, each: Value| json!({"$reduce": {"input": over, "initialValue": 0, "in": {"$add": ["$$value", each]}}});
    let range = |to: u32| json!({"$range": [0, to]});
    let twice = json!({"$concatArrays": ["$$value", "$$value"]});
    let doubled = json!({"$reduce": {"input": range(25), "initialValue": [1], "in": twice}});
    let again = json!({"$addFields": {"x": {"$concatArrays": ["$x", "$x"]}}});
    let mut grown = vec![json!({"$addFields": {"x": [1]}})];
    grown.extend(vec![again; 30]);
    grown.push(json!({"$project": {"s": {"$size": "$x"}}}));
    for pipeline in [
        json!([{"$addFields": {"x": sum(range(10_000), sum(range(10_000), json!(1)))}}]),
        json!([{"$addFields": {"x": sum(range(1_000_000), json!(1))}}]),
        json!([{"$project": {"s": {"$size": doubled}}}]),
        json!(grown),
    ] {
        let body = json!({"pipeline": pipeline});
        let answer = ask(&served, &workspace, "single", "aggregate", Some(&body)).await;
        let status = answer.status.as_u16();
        assert!(matches!(status, 400 | 413), "{body}: {}", answer.text());
    }
}

/// What people write every day passes, and gives what it gives elsewhere.
#[tokio::test]
async fn usual_idioms_pass() {
    let (served, workspace) = world().await;
    let order = doc! {
        "_id": 2, "lists": [[1, 2], [3]], "words": ["a", "b", "c"],
        "items": [{"id": 1, "q": 2}, {"id": 2, "q": 5}], "names": [{"id": 1, "n": "one"}, {"id": 2, "n": "two"}],
    };
    workspace.fill("orders", [workspace.mark(order)]).await;
    let comma = json!({"$cond": [{"$eq": ["$$value", ""]}, "", ","]});
    let at = json!({"$arrayElemAt": ["$items.q", "$$i"]});
    let same = json!({"$eq": ["$$name.id", "$$item.id"]});
    let named = json!({"$filter": {"input": "$names", "as": "name", "cond": same}});
    for (computed, due) in [
        (
            json!({"$reduce": {"input": "$lists", "initialValue": [], "in": {"$concatArrays": ["$$value", "$$this"]}}}),
            json!([1, 2, 3]),
        ),
        (
            json!({"$reduce": {"input": "$words", "initialValue": "", "in": {"$concat": ["$$value", comma, "$$this"]}}}),
            json!("a,b,c"),
        ),
        (
            json!({"$map": {"input": {"$range": [0, {"$size": "$items"}]}, "as": "i", "in": {"$multiply": [at, 2]}}}),
            json!([4, 10]),
        ),
        (
            json!({"$map": {"input": "$items", "as": "item", "in": {"$mergeObjects": ["$$item", {"$first": named}]}}}),
            json!([{"id": 1, "q": 2, "n": "one"}, {"id": 2, "q": 5, "n": "two"}]),
        ),
    ] {
        let body = json!({"pipeline": [{"$project": {"_id": 0, "x": computed}}]});
        let answer = ask(&served, &workspace, "orders", "aggregate", Some(&body)).await;
        assert_eq!(
            answer.json()["data"],
            json!([{"x": due}]),
            "{body}: {}",
            answer.text()
        );
    }
}

/// Stages of ours stand between a client's; they change nothing, whatever names are stored.
#[tokio::test]
async fn what_stands_between_stages_changes_nothing() {
    let (served, workspace) = world().await;
    let stored = doc! { "_id": 1, "a": { "_tenantId": { "look": [1, 2, 3] }, "l": [1] } };
    workspace.fill("nested", [workspace.mark(stored)]).await;
    let slow = json!({"$map": {"input": "$l", "in": {"$add": ["$$this", 1]}}});
    let body =
        json!({"pipeline": [{"$replaceRoot": {"newRoot": "$a"}}, {"$addFields": {"m": slow}}]});
    let answer = ask(&served, &workspace, "nested", "aggregate", Some(&body)).await;
    let due = json!([{"l": [1], "m": [2]}]);
    assert_eq!(answer.json()["data"], due, "{}", answer.text());
}
