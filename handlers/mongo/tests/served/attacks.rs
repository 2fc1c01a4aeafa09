//! Input that is out to do harm: sizes at the brink, depth, patterns, and the tenant's
//! fields in every spelling and position. What public advisories of Parse Server and
//! RESTHeart tell of is here or in the case tables.

use std::time::Instant;

use bson::{Bson, Document, doc};
use http::Method;
use serde_json::{Value, json};

use postern_served::{Answer, Ask};

use crate::support::{Served, Workspace, bounds};

/// The largest document of the server.
const MAX_DOCUMENT: usize = 16 << 20;

async fn world() -> (Served, Workspace) {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    workspace
        .fill("things", [workspace.mark(doc! { "_id": 1 })])
        .await;
    (served, workspace)
}

async fn send(served: &Served, workspace: &Workspace, ask: &str, body: &Value) -> Answer {
    let (method, path) = ask.split_once(' ').unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let ask = Ask::new(workspace, method.clone(), path);
    let ask = if method == Method::GET {
        ask
    } else {
        ask.json(body)
    };
    ask.send(served).await
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, what: &str) {
    let found = (answer.status.as_u16(), answer.code());
    let shown: String = answer.text().chars().take(300).collect();
    assert_eq!(found, (status, code.to_owned()), "{what}: {shown}");
}

/// A document that is full but for so many bytes.
fn nearly_full(workspace: &Workspace, left: usize) -> Document {
    let padded = |pad: usize| workspace.mark(doc! { "_id": 7, "pad": "x".repeat(pad) });
    let around = bson::to_vec(&padded(0)).unwrap().len();
    padded(MAX_DOCUMENT - left - around)
}

#[tokio::test]
async fn sixteen_mebibytes_and_a_byte() {
    let (served, workspace) = world().await;
    workspace
        .fill("things", [nearly_full(&workspace, 11)])
        .await;
    // A type, a name of one letter, a length and two NULs around the text: 8 bytes.
    let over = json!({"$set": {"s": "four"}});
    let answer = send(&served, &workspace, "PATCH documents/7", &over).await;
    refused(&answer, 413, "BODY_TOO_LARGE", "one byte above");
    let bulk = json!({"operations": [{"updateOne": {"filter": {}, "update": over}}]});
    let answer = send(&served, &workspace, "POST bulk", &bulk).await;
    refused(&answer, 413, "BODY_TOO_LARGE", "one byte above, in bulk");
    assert!(!workspace.all("things").await[0].contains_key("s"));

    let full = json!({"$set": {"s": "six"}});
    let answer = send(&served, &workspace, "PATCH documents/7", &full).await;
    // Done, and larger than an answer may be.
    assert_eq!(answer.status.as_u16(), 204);
    assert_eq!(answer.text(), "");
    let stored = &workspace.all("things").await[0];
    assert_eq!(bson::to_vec(stored).unwrap().len(), MAX_DOCUMENT);
    // An answer is bounded, and names the mend.
    for ask in ["GET documents/7", "GET documents"] {
        let answer = send(&served, &workspace, ask, &Value::Null).await;
        refused(&answer, 400, "VALIDATION_ERROR", ask);
        assert!(answer.text().contains("projection"), "{}", answer.text());
    }
    let shown = send(
        &served,
        &workspace,
        "GET documents?projection=s",
        &Value::Null,
    )
    .await;
    assert_eq!(shown.json()["data"], json!([{"_id": 7, "s": "six"}]));
}

#[tokio::test]
async fn bodies_and_lists_are_bounded() {
    let (served, workspace) = world().await;
    let large = json!({"a": "x".repeat(1 << 20)});
    for ask in [
        "POST documents",
        "PUT documents/1",
        "PATCH documents/1",
        "POST bulk",
        "POST aggregate",
        "POST collections",
    ] {
        let answer = send(&served, &workspace, ask, &large).await;
        refused(&answer, 413, "BODY_TOO_LARGE", ask);
    }
    let many = |count: usize, one: Value| Value::Array(vec![one; count]);
    let insert = many(1_000, json!({"n": 1}));
    let answer = send(&served, &workspace, "POST documents", &insert).await;
    assert_eq!(answer.json()["inserted"], 1_000);
    let answer = send(
        &served,
        &workspace,
        "POST documents",
        &many(10_001, json!({})),
    )
    .await;
    refused(&answer, 400, "VALIDATION_ERROR", "10,001 documents");
    let one = json!({"deleteOne": {"filter": {"_id": 0}}});
    let answer = send(
        &served,
        &workspace,
        "POST bulk",
        &json!({"operations": many(1_000, one.clone())}),
    )
    .await;
    assert_eq!(answer.status.as_u16(), 200);
    let answer = send(
        &served,
        &workspace,
        "POST bulk",
        &json!({"operations": many(1_001, one)}),
    )
    .await;
    refused(&answer, 400, "VALIDATION_ERROR", "1,001 operations");
    let array = json!({"_id": "array", "a": many(100_000, json!(1))});
    let answer = send(&served, &workspace, "POST documents", &array).await;
    assert_eq!(answer.status.as_u16(), 201, "{:.300}", answer.text());
    let each = json!({"$push": {"a": {"$each": many(1_001, json!(1))}}});
    let answer = send(&served, &workspace, "PATCH documents/1", &each).await;
    refused(&answer, 400, "VALIDATION_ERROR", "$each of 1,001");
    let among = json!({"pipeline": [{"$match": {"a": {"$in": many(1_001, json!(1))}}}]});
    let answer = send(&served, &workspace, "POST aggregate", &among).await;
    refused(&answer, 400, "VALIDATION_ERROR", "$in of 1,001");
    let query = format!("GET documents?filter.a=in:{}", vec!["1"; 201].join(","));
    let answer = send(&served, &workspace, &query, &Value::Null).await;
    refused(&answer, 400, "VALIDATION_ERROR", "in: of 201");
    let stages = json!({"pipeline": many(65, json!({"$limit": 1}))});
    let answer = send(&served, &workspace, "POST aggregate", &stages).await;
    refused(&answer, 400, "VALIDATION_ERROR", "65 stages");
}

/// `{…: {…: inner}}`, so many times.
fn nested(depth: usize, inner: Value, around: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(inner, |inner, _| around(inner))
}

#[tokio::test]
async fn depth_is_bounded() {
    let (served, workspace) = world().await;
    for (depth, status) in [(60, 201), (65, 400), (110, 400), (5_000, 400)] {
        // Written, not built: a value of 5,000 levels would end the test itself.
        let body = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let ask = Ask::new(&workspace, Method::POST, "documents");
        let answer = ask.body("application/json", body).send(&served).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{depth}: {:.300}",
            answer.text()
        );
        let body = format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        let ask = Ask::new(&workspace, Method::POST, "documents");
        let answer = ask.body("application/json", body).send(&served).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "[{depth}]: {:.300}",
            answer.text()
        );
    }
    let aggregate = async |stage: Value| {
        let body = json!({"pipeline": [stage]});
        send(&served, &workspace, "POST aggregate", &body).await
    };
    // Operators in one another, in every kind of tree.
    for (what, stage) in [
        (
            "$and",
            json!({"$match": nested(40, json!({"a": 1}), |it| json!({"$and": [it]}))}),
        ),
        (
            "$not",
            json!({"$match": {"a": nested(40, json!({"$gt": 1}), |it| json!({"$not": it}))}}),
        ),
        (
            "$elemMatch",
            json!({"$match": {"a": nested(40, json!({"$gt": 1}), |it| json!({"$elemMatch": it}))}}),
        ),
        (
            "$add",
            json!({"$project": {"x": nested(40, json!(1), |it| json!({"$add": [it, 1]}))}}),
        ),
        (
            "$let",
            json!({"$project": {"x": nested(40, json!(1), |it| json!({"$let": {"vars": {"v": 1}, "in": it}}))}}),
        ),
        (
            "$project",
            json!({"$project": nested(40, json!({"a": 1}), |it| json!({"a": it}))}),
        ),
        (
            "$lookup",
            nested(
                6,
                json!({"$limit": 1}),
                |it| json!({"$lookup": {"from": "things", "pipeline": [it], "as": "j"}}),
            ),
        ),
    ] {
        let answer = aggregate(stage).await;
        refused(&answer, 400, "VALIDATION_ERROR", what);
    }
    // Breadth: every branch is small, all of them are many.
    let wide = nested(3, json!({"a": 1}), |it| json!({"$or": vec![it; 14]}));
    refused(
        &aggregate(json!({"$match": wide})).await,
        400,
        "VALIDATION_ERROR",
        "breadth",
    );
}

#[tokio::test]
async fn patterns_are_bounded() {
    let (served, workspace) = world().await;
    // Long ones are above the depth that the server's own library goes to; in short ones
    // nothing but the limit of steps ends what doubles with each letter.
    let text = |n: i32| format!("{}!", "a".repeat(if n % 4 == 0 { 5_000 } else { 50 }));
    let seed = (0..100).map(|n| workspace.mark(doc! { "_id": n, "s": text(n) }));
    workspace.fill("things", seed).await;
    for pattern in ["(a+)+$", "(a|aa)+$", "(a*)*b", "(.*a){20}$", "^(a?){200}b"] {
        let began = Instant::now();
        let body = json!({"pipeline": [{"$match": {"s": {"$regex": pattern}}}]});
        let answer = send(&served, &workspace, "POST aggregate", &body).await;
        // The server gives up on the pattern, not on the time.
        assert!(
            [200, 400].contains(&answer.status.as_u16()),
            "{pattern}: {:.300}",
            answer.text()
        );
        let took = began.elapsed();
        assert!(took < bounds().max_time / 4, "{pattern}: {took:?}");
    }
    // Each letter doubles the steps; by its own bound this server would find 15.
    let few = (0..40).map(|n: i32| (n, "a".repeat(n as usize)));
    let few = few.map(|(n, letters)| workspace.mark(doc! { "_id": n, "s": letters + "!" }));
    workspace.fill("things", few).await;
    let doubling = json!([{"$match": {"s": {"$regex": "^(?:(a+)+b|a+!)"}}}, {"$count": "n"}]);
    let doubling = json!({"pipeline": doubling});
    let answer = send(&served, &workspace, "POST aggregate", &doubling).await;
    assert_eq!(
        answer.json()["data"],
        json!([{"n": 13}]),
        "{}",
        answer.text()
    );
    let long = json!({"pipeline": [{"$match": {"s": {"$regex": "x".repeat(257)}}}]});
    refused(
        &send(&served, &workspace, "POST aggregate", &long).await,
        400,
        "VALIDATION_ERROR",
        "257",
    );
    let many: Document = (0..9)
        .map(|n| (format!("f{n}"), Bson::from(doc! { "$regex": "x" })))
        .collect();
    let many = json!({"pipeline": [{"$match": Bson::from(many).into_relaxed_extjson()}]});
    refused(
        &send(&served, &workspace, "POST aggregate", &many).await,
        400,
        "VALIDATION_ERROR",
        "nine",
    );
}

/// Spellings of a path that is, or goes into, one of the tenant's fields.
const FIELDS: [&str; 8] = [
    "_tenantId",
    "_workspaceId",
    "_tenantId.x",
    "_workspaceId.0",
    "_tenantId.$[]",
    "_workspaceId.$[].x",
    "_tenantId.",
    "_tenantId.$",
];

#[tokio::test]
async fn the_tenants_fields_in_every_position() {
    let (served, workspace) = world().await;
    let before = workspace.all("things").await;
    let escaped = |field: &str| field.replace('_', "\\u005f");
    let mut asked = 0;
    for field in FIELDS {
        let mut bodies = Vec::new();
        for operator in [
            "$set",
            "$unset",
            "$inc",
            "$push",
            "$pull",
            "$addToSet",
            "$min",
            "$max",
            "$mul",
            "$currentDate",
        ] {
            let value = if operator == "$currentDate" {
                json!(true)
            } else {
                json!(1)
            };
            bodies.push(("PATCH documents/1", json!({operator: {field: value}})));
        }
        bodies.extend([
            ("PATCH documents/1", json!({field: 1})),
            ("PATCH documents/1", json!({"$rename": {field: "a"}})),
            ("PATCH documents/1", json!({"$rename": {"a": field}})),
            ("PUT documents/1", json!({field: 1})),
            ("POST documents", json!({field: 1})),
            ("POST documents", json!([{"a": 1}, {field: 1}])),
            ("POST bulk", json!({"operations": [{"insertOne": {"document": {field: 1}}}]})),
            ("POST bulk", json!({"operations": [{"updateOne": {"filter": {"_id": 5}, "update": {"$set": {field: 1}}, "upsert": true}}]})),
            ("POST bulk", json!({"operations": [{"updateMany": {"filter": {field: 1}, "update": {"a": 1}, "upsert": true}}]})),
            ("POST bulk", json!({"operations": [{"replaceOne": {"filter": {}, "replacement": {field: 1}}}]})),
            ("POST bulk", json!({"operations": [{"deleteMany": {"filter": {"$nor": [{field: 1}]}}}]})),
        ]);
        let path = format!("${field}");
        for stage in [
            json!({"$match": {field: 1}}),
            json!({"$match": {"$or": [{"a": 1}, {field: {"$exists": true}}]}}),
            json!({"$match": {"$expr": {"$eq": [path, 1]}}}),
            json!({"$match": {"$expr": {"$eq": [format!("$$ROOT.{field}"), 1]}}}),
            json!({"$group": {"_id": path}}),
            json!({"$group": {"_id": 1, "x": {"$push": path}}}),
            json!({"$group": {"_id": 1, field: {"$sum": 1}}}),
            json!({"$sort": {field: 1}}),
            json!({"$project": {field: 1}}),
            json!({"$project": {"x": path}}),
            json!({"$project": {"x": {"y": path}}}),
            json!({"$addFields": {field: 1}}),
            json!({"$set": {"x": {"$concat": [path]}}}),
            json!({"$unset": field}),
            json!({"$unset": ["a", field]}),
            json!({"$unwind": path}),
            json!({"$unwind": {"path": "$a", "includeArrayIndex": field}}),
            json!({"$lookup": {"from": "things", "localField": field, "foreignField": "a", "as": "j"}}),
            json!({"$lookup": {"from": "things", "localField": "a", "foreignField": field, "as": "j"}}),
            json!({"$lookup": {"from": "things", "pipeline": [], "as": field}}),
            json!({"$lookup": {"from": "things", "let": {"v": path}, "pipeline": [], "as": "j"}}),
            json!({"$lookup": {"from": "things", "pipeline": [{"$match": {field: 1}}], "as": "j"}}),
            json!({"$facet": {"f": [{"$project": {"x": path}}]}}),
            json!({"$facet": {field: []}}),
            json!({"$bucket": {"groupBy": path, "boundaries": [0, 1]}}),
            json!({"$bucketAuto": {"groupBy": "$a", "buckets": 1, "output": {field: {"$sum": 1}}}}),
            json!({"$sortByCount": path}),
            json!({"$replaceRoot": {"newRoot": path}}),
            json!({"$count": field}),
        ] {
            bodies.push(("POST aggregate", json!({"pipeline": [stage]})));
        }
        for (ask, body) in bodies {
            // As it is, and as JSON may write it, too.
            for text in [
                body.to_string(),
                body.to_string().replace(field, &escaped(field)),
            ] {
                let (method, path) = ask.split_once(' ').unwrap();
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let ask = Ask::new(&workspace, method, path).body("application/json", text.clone());
                refused(&ask.send(&served).await, 400, "VALIDATION_ERROR", &text);
                asked += 1;
            }
        }
    }
    assert_eq!(workspace.all("things").await, before);
    assert!(asked > 700, "{asked} only");
}
