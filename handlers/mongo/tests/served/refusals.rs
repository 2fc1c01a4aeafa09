//! What the server refuses, what takes too long, who comes at once: told for what it is, and
//! nothing half done stays.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use futures::future::join_all;
use http::Method;
use postern_mongo::Bounds;
use serde_json::{Value, json};

use crate::away::Failing;
use postern_served::{Answer, Ask};

use crate::support::{Served, Workspace, bounds};

async fn world() -> (Served, Workspace) {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    (served, workspace)
}

async fn post(served: &Served, workspace: &Workspace, path: &str, body: Value) -> Answer {
    let ask = Ask::new(workspace, Method::POST, path).json(&body);
    ask.send(served).await
}

fn is(answer: &Answer, status: u16, code: &str) {
    let told = (answer.status.as_u16(), answer.code());
    assert_eq!(told, (status, code.to_owned()), "{}", answer.text());
}

/// Asks again with the same key for as long as the answer is to do so.
async fn settled(served: &Served, key: &str, ask: impl Fn() -> Ask) -> Answer {
    let began = Instant::now();
    loop {
        let answer = ask().header("idempotency-key", key).send(served).await;
        let again = answer.headers.contains_key("retry-after");
        if !again || began.elapsed() > Duration::from_secs(60) {
            return answer;
        }
    }
}

async fn names(workspace: &Workspace) -> Vec<String> {
    let names = workspace.database.list_collection_names().await.unwrap();
    let clients = names
        .into_iter()
        .filter(|name| !name.starts_with("postern"));
    clients.collect()
}

#[tokio::test]
async fn bad_input_is_the_clients_fault() {
    let (served, workspace) = world().await;
    let made = post(
        &served,
        &workspace,
        "collections",
        json!({"name": "things", "indexes": [{"keys": {"a": 1, "b": 1}}]}),
    );
    assert_eq!(made.await.status.as_u16(), 201);
    let seed = [workspace.mark(doc! { "_id": 1, "name": "SECRET", "list": [1] })];
    workspace.fill("things", seed).await;
    for expression in [
        json!({"$toInt": "$name"}),
        json!({"$toDate": "$name"}),
        json!({"$dateFromString": {"dateString": "$name"}}),
        json!({"$toString": "$list"}),
        json!({"$divide": [1, {"$size": []}]}),
    ] {
        let pipeline = json!({"pipeline": [{"$addFields": {"x": expression}}]});
        let answer = post(&served, &workspace, "aggregate", pipeline).await;
        is(&answer, 400, "VALIDATION_ERROR");
        assert!(!answer.text().contains("SECRET"), "{}", answer.text());
        let filter = json!({"$expr": {"$eq": [expression, 1]}});
        let path = format!("documents?filter={filter}");
        let answer = Ask::new(&workspace, Method::GET, &path).send(&served).await;
        is(&answer, 400, "VALIDATION_ERROR");
        assert!(!answer.text().contains("SECRET"), "{}", answer.text());
    }
    for (path, body) in [
        ("documents", json!({"a": [1], "b": [1]})),
        (
            "bulk",
            json!({"operations": [{"updateOne": {"filter": {"_id": 12, "$expr": {"$eq": [1, 1]}}, "update": {"$set": {"c": 1}}, "upsert": true}}]}),
        ),
        (
            "bulk",
            json!({"operations": [{"updateOne": {"filter": {"c": 1, "c.d": 2}, "update": {"$set": {"e": 1}}, "upsert": true}}]}),
        ),
        (
            "bulk",
            json!({"operations": [{"updateMany": {"filter": {}, "update": {"$inc": {"name": 1}}}}]}),
        ),
    ] {
        let answer = post(&served, &workspace, path, body).await;
        is(&answer, 400, "VALIDATION_ERROR");
        assert!(!answer.text().contains("SECRET"), "{}", answer.text());
    }
}

/// The same request would meet the same bound again.
#[tokio::test]
async fn what_needs_too_much_memory_is_the_requests_fault() {
    let (served, workspace) = world().await;
    let failing = Failing::new(&served, "aggregate", doc! { "errorCode": 292 }, 0).await;
    let pipeline = json!({"pipeline": [{"$sort": {"a": 1}}]});
    let aggregated = post(&served, &workspace, "aggregate", pipeline).await;
    let path = "documents?sort=a&count=none";
    let listed = Ask::new(&workspace, Method::GET, path).send(&served).await;
    failing.end().await;
    for answer in [aggregated, listed] {
        is(&answer, 400, "VALIDATION_ERROR");
        assert!(answer.text().contains("memory"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_refused_index_leaves_no_collection() {
    let (served, workspace) = world().await;
    for indexes in [
        json!([{"keys": {"a": 1}}, {"keys": {"a": 1}, "unique": true}]),
        json!([{"keys": {"a": 1, "b": 1}, "expireAfterSeconds": 60}]),
        json!([{"keys": {"_id": -1}}]),
        json!([{"keys": {"_id": 1}, "unique": true}]),
    ] {
        let body = json!({"name": "things", "indexes": indexes});
        let answer = post(&served, &workspace, "collections", body).await;
        is(&answer, 400, "VALIDATION_ERROR");
    }
    // One that only the server refuses: CannotCreateIndex.
    let body = json!({"name": "things", "indexes": [{"keys": {"a": 1}}]});
    let how = doc! { "errorCode": 67 };
    let failing = Failing::new(&served, "createIndexes", how, 1).await;
    let answer = post(&served, &workspace, "collections", body.clone()).await;
    failing.end().await;
    is(&answer, 400, "VALIDATION_ERROR");
    assert_eq!(names(&workspace).await, [""; 0]);
    let answer = post(&served, &workspace, "collections", body).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
}

/// A primary that steps down between a collection and its indexes: the same key brings
/// about all of it, whether the handlers ask again or the client does.
#[tokio::test]
async fn a_collection_is_made_whole_though_the_primary_steps_down() {
    let (served, workspace) = world().await;
    let body = json!({
        "name": "things",
        "validator": {"jsonSchema": {"required": ["a"]}},
        "indexes": [{"keys": {"a": 1}, "unique": true}],
    });
    let create = || Ask::new(&workspace, Method::POST, "collections").json(&body);
    for (command, code, times) in [
        ("create", 10_107, 1),
        ("createIndexes", 10_107, 1),
        ("createIndexes", 11_600, 1),
        ("createIndexes", 11_602, 1),
        ("createIndexes", 13_436, 1),
        ("createIndexes", 189, 0),
    ] {
        let key = postern_harness::token::unique();
        let how = doc! { "errorCode": code };
        let failing = Failing::new(&served, command, how, times).await;
        if times == 0 {
            let answer = create().header("idempotency-key", &key).send(&served).await;
            is(&answer, 503, "BACKEND_UNAVAILABLE");
            assert!(answer.headers.contains_key("retry-after"));
            failing.end().await;
        }
        let answer = settled(&served, &key, create).await;
        assert_eq!(answer.status.as_u16(), 201, "{code} {}", answer.text());
        let things = workspace.database.collection::<Document>("things");
        let indexes = things.list_index_names().await.unwrap();
        assert_eq!(indexes, ["_id_", "a_1"], "{command} {code}");
        let answer = post(&served, &workspace, "documents", json!({"b": 1})).await;
        is(&answer, 422, "DOCUMENT_INVALID");
        let gone = Ask::new(&workspace, Method::DELETE, "collections/things");
        assert_eq!(gone.send(&served).await.status.as_u16(), 200);
    }
}

#[tokio::test]
async fn refused_changes_leave_no_collection() {
    let (served, workspace) = world().await;
    let twice = json!([{"_id": 1}, {"_id": 1}]);
    let answer = post(&served, &workspace, "documents", twice).await;
    is(&answer, 409, "DUPLICATE_KEY");
    let operations = json!({"operations": [{"insertOne": {"document": {"_id": 1, "s": "x"}}}, {"updateOne": {"filter": {"_id": 1}, "update": {"$inc": {"s": 1}}}}]});
    let answer = post(&served, &workspace, "bulk", operations).await;
    is(&answer, 400, "VALIDATION_ERROR");
    let put = Ask::new(&workspace, Method::PUT, "documents/1?upsert=true");
    let put = put.json(&json!({"a": 1})).header("if-match", "\"0\"");
    assert_eq!(put.send(&served).await.status.as_u16(), 404);
    assert_eq!(names(&workspace).await, [""; 0]);
    let answer = post(&served, &workspace, "documents", json!({"a": 1})).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
}

/// What is refused takes nothing away that others wrote meanwhile, not even for a moment,
/// and whatever the server fails at.
#[tokio::test]
async fn what_others_write_meanwhile_stays() {
    let (served, workspace) = world().await;
    for round in 0..10 {
        let how = doc! { "errorCode": 189 };
        let failing = Failing::new(&served, "aggregate", how, 0).await;
        let asked = (0..8).map(|n| {
            let (served, workspace) = (&served, &workspace);
            async move {
                if n % 2 == 0 {
                    let twice = json!([{"_id": "twice"}, {"_id": "twice"}]);
                    post(served, workspace, "documents", twice).await;
                    return 0;
                }
                let body = json!({"round": round});
                let answer = post(served, workspace, "documents", body).await;
                assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
                let id = answer.json()["data"][0]["_id"]["$oid"].clone();
                let path = format!("documents/{}", id.as_str().unwrap());
                let read = Ask::new(workspace, Method::GET, &path).send(served).await;
                assert_eq!(read.status.as_u16(), 200, "{}", read.text());
                1_u64
            }
        });
        let written: u64 = join_all(asked).await.into_iter().sum();
        failing.end().await;
        let things = workspace.database.collection::<Document>("things");
        assert_eq!(things.count_documents(doc! {}).await.unwrap(), written);
        let gone = Ask::new(&workspace, Method::DELETE, "collections/things");
        assert_eq!(gone.send(&served).await.status.as_u16(), 200);
    }
}

#[tokio::test]
async fn as_many_collections_as_the_plan_has() {
    let served = Served::with(bounds(), Some(10)).await;
    let workspace = served.workspace().await;
    let asked = (0..40).map(|n| {
        let (served, workspace) = (&served, &workspace);
        async move {
            let path = format!("collections/c{n}/documents");
            let key = postern_harness::token::unique();
            settled(served, &key, || match n % 2 {
                0 => Ask::new(workspace, Method::POST, &path).json(&json!({"n": n})),
                _ => {
                    let body = json!({"name": format!("c{n}")});
                    Ask::new(workspace, Method::POST, "collections").json(&body)
                }
            })
            .await
        }
    });
    let answers = join_all(asked).await;
    let made = answers.iter().filter(|answer| answer.status.is_success());
    assert_eq!(made.count(), 10);
    for answer in answers.iter().filter(|answer| !answer.status.is_success()) {
        is(answer, 403, "QUOTA_EXCEEDED");
    }
    assert_eq!(names(&workspace).await.len(), 10);
}

/// Who loses against the others is told so only after it was tried for long.
#[tokio::test]
async fn many_changes_of_one_document_all_pass() {
    let (served, workspace) = world().await;
    let seed = [workspace.mark(doc! { "_id": 1, "n": 0 })];
    workspace.fill("things", seed).await;
    let asked = (0..24).map(|_| {
        let (served, workspace) = (&served, &workspace);
        async move {
            let key = postern_harness::token::unique();
            loop {
                let began = Instant::now();
                let ask = Ask::new(workspace, Method::PATCH, "documents/1");
                let ask = ask.json(&json!({"$inc": {"n": 1}}));
                let answer = ask.header("idempotency-key", &key).send(served).await;
                if answer.status.is_success() {
                    return;
                }
                // A disk that takes 100 ms for a commit is too slow for all of them in 2 s.
                is(&answer, 409, "SERIALIZATION_FAILURE");
                let tried = began.elapsed();
                assert!(tried >= Duration::from_secs(1), "{tried:?}");
            }
        }
    });
    let all = tokio::time::timeout(Duration::from_secs(60), join_all(asked));
    all.await.unwrap();
    let found = workspace.all("things").await;
    assert_eq!(found[0].get("n"), Some(&Bson::Int32(24)));
}

/// A change that takes too long is 504 in its time, and ends on the server, too.
#[tokio::test]
async fn a_slow_change_ends() {
    let limit = Duration::from_millis(300);
    let bounds = Bounds {
        max_time: limit,
        ..bounds()
    };
    let served = Served::with(bounds, Some(5)).await;
    let workspace = served.workspace().await;
    let many = (0..2_000).map(|n| workspace.mark(doc! { "_id": n, "s": "x".repeat(400) }));
    workspace.fill("things", many).await;
    // Each of these looks at every document.
    let patterns: Vec<Value> = (0..8)
        .map(|n| json!({"s": {"$regex": format!(".*.*[{n}y]")}}))
        .collect();
    let operations = json!({"operations": [{"updateMany": {"filter": {"$or": patterns}, "update": {"$set": {"a": 1}}}}]});
    let began = Instant::now();
    let answer = post(&served, &workspace, "bulk", operations).await;
    is(&answer, 504, "STATEMENT_TIMEOUT");
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    let admin = served.client.database("admin");
    let ours = doc! { "currentOp": 1, "ns": format!("{}.things", workspace.database.name()) };
    postern_harness::wait_for("the change to end", Duration::from_secs(20), async || {
        let running = admin.run_command(ours.clone()).await?;
        anyhow::ensure!(running.get_array("inprog")?.is_empty(), "{running}");
        Ok(())
    })
    .await
    .unwrap();
    // What it held is free.
    let change = Ask::new(&workspace, Method::PATCH, "documents/1");
    let patient = Served::new().await;
    let change = change.json(&json!({"a": 2})).send(&patient).await;
    assert_eq!(change.status.as_u16(), 200, "{}", change.text());
}

#[tokio::test]
async fn pages_end_behind_what_is_no_number() {
    let (served, workspace) = world().await;
    let numbers = [
        Bson::Double(f64::NAN),
        Bson::Decimal128("NaN".parse().unwrap()),
        Bson::Decimal128("NaN".parse().unwrap()),
        Bson::Decimal128("-Infinity".parse().unwrap()),
        Bson::Decimal128("1.5".parse().unwrap()),
        Bson::Int32(2),
        Bson::Null,
        Bson::String("x".to_owned()),
    ];
    let seed = (0..).zip(&numbers);
    let seed = seed.map(|(id, n)| workspace.mark(doc! { "_id": id, "n": n }));
    workspace.fill("things", seed).await;
    for sort in ["n", "-n"] {
        let page = async |rest: String| {
            let path = format!("documents?sort={sort}{rest}");
            let answer = Ask::new(&workspace, Method::GET, &path).send(&served).await;
            answer.json()
        };
        let ids = |page: &Value| -> Vec<i64> {
            let data = page["data"].as_array().unwrap();
            data.iter().map(|it| it["_id"].as_i64().unwrap()).collect()
        };
        let whole = ids(&page(String::new()).await);
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        while paged.len() <= numbers.len() {
            let page = page(format!("&limit=1{cursor}")).await;
            paged.extend(ids(&page));
            match page["pagination"]["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(paged, whole, "sort={sort}");
    }
}

#[tokio::test]
async fn a_merge_patch_is_what_the_rfc_says() {
    let (served, workspace) = world().await;
    for (stored, patch, becomes) in [
        (
            json!({"a": {"x": 1, "y": 2}}),
            json!({"a": {}}),
            json!({"a": {"x": 1, "y": 2}}),
        ),
        (
            json!({"a": 5}),
            json!({"a": {"b": 1}}),
            json!({"a": {"b": 1}}),
        ),
        (
            json!({"a": [1, 2]}),
            json!({"a": {"0": 9}}),
            json!({"a": {"0": 9}}),
        ),
        (json!({}), json!({"a": {"b": null}}), json!({"a": {}})),
        (json!({"a": 1}), json!({}), json!({"a": 1})),
        (
            json!({"e": null}),
            json!({"a": 1}),
            json!({"e": null, "a": 1}),
        ),
        (
            json!({"a": {"b": {"c": 1, "d": 2}}, "k": 1}),
            json!({"a": {"b": {"c": null}}, "k": null}),
            json!({"a": {"b": {"d": 2}}}),
        ),
    ] {
        let Bson::Document(stored) = Bson::try_from(stored).unwrap() else {
            panic!("no document")
        };
        let mut whole = doc! { "_id": 1 };
        whole.extend(stored);
        workspace.fill("things", [workspace.mark(whole)]).await;
        let mut becomes = becomes;
        becomes["_id"] = 1.into();
        // The second time it changes nothing any more.
        for media_type in [
            "application/merge-patch+json",
            "Application/Merge-Patch+JSON; charset=utf-8",
        ] {
            let ask = Ask::new(&workspace, Method::PATCH, "documents/1");
            let ask = ask.body(media_type, patch.to_string());
            let answer = ask.send(&served).await;
            assert_eq!(answer.json(), becomes, "{media_type} {patch}");
        }
        let found = Ask::new(&workspace, Method::GET, "documents/1");
        assert_eq!(found.send(&served).await.json(), becomes, "{patch}");
    }
}

#[tokio::test]
async fn what_is_told_of_a_document_is_so() {
    let bounds = Bounds {
        max_bytes: 1_000,
        ..bounds()
    };
    let served = Served::with(bounds, Some(5)).await;
    let workspace = served.workspace().await;
    let body = json!({"name": "things", "indexes": [{"keys": {"first_name": 1}, "unique": true}]});
    post(&served, &workspace, "collections", body).await;
    let ada = || {
        post(
            &served,
            &workspace,
            "documents",
            json!({"first_name": "a_1, b: 2"}),
        )
    };
    assert_eq!(ada().await.status.as_u16(), 201);
    let twice = ada().await;
    is(&twice, 409, "DUPLICATE_KEY");
    let message = "a document with this first_name exists";
    assert_eq!(twice.json()["error"]["message"], message);
    for (n, (id, found)) in [
        (json!(""), true),
        (json!(".."), true),
        (json!("a b"), true),
        (json!({"$numberDecimal": "0.1"}), false),
        (json!({"$numberDouble": "NaN"}), false),
        (json!("a/b"), false),
        (json!("a\0b"), false),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"_id": id, "first_name": n});
        let made = post(&served, &workspace, "documents", body).await;
        assert_eq!(made.status.as_u16(), 201, "{}", made.text());
        let location = made.headers.get("location");
        assert_eq!(location.is_some(), found, "{id}");
        if let Some(location) = location {
            let path = location.to_str().unwrap();
            let (_, id_in_path) = path.rsplit_once('/').unwrap();
            let path = format!("documents/{id_in_path}");
            let read = Ask::new(&workspace, Method::GET, &path).send(&served).await;
            assert_eq!(read.json()["_id"], id);
        }
    }
    let zero = json!({"first_name": "t", "t": {"$timestamp": {"t": 0, "i": 0}}});
    let zero = post(&served, &workspace, "documents", zero).await;
    is(&zero, 400, "VALIDATION_ERROR");
    let large = json!({"_id": 7, "first_name": "large", "text": "x".repeat(1_000)});
    post(&served, &workspace, "documents", large).await;
    let read = Ask::new(&workspace, Method::GET, "documents/7").send(&served);
    is(&read.await, 400, "VALIDATION_ERROR");
}

/// A change of a document that is larger than an answer may be is told by its validator.
#[tokio::test]
async fn a_change_is_answered_within_the_bound() {
    let bounds = Bounds {
        max_bytes: 1_000,
        ..bounds()
    };
    let served = Served::with(bounds, Some(5)).await;
    let workspace = served.workspace().await;
    let change = async |method: &Method, path: &str, body: &Value, key: &str| {
        let ask = Ask::new(&workspace, method.clone(), path).json(body);
        ask.header("idempotency-key", key).send(&served).await
    };
    let large = json!({"text": "x".repeat(1_000)});
    for (n, (method, path, body, status)) in [
        (Method::PUT, "documents/1?upsert=true", large.clone(), 201),
        (Method::PUT, "documents/1", large, 204),
        (Method::PATCH, "documents/1", json!({"a": 1}), 204),
        (
            Method::PATCH,
            "documents/1",
            json!({"$unset": {"text": 1}}),
            200,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let key = n.to_string();
        let first = change(&method, path, &body, &key).await;
        assert_eq!(first.status.as_u16(), status, "{}", first.text());
        assert_eq!(first.text().is_empty(), status != 200, "{}", first.text());
        let again = change(&method, path, &body, &key).await;
        assert_eq!(again.headers["x-idempotency-replayed"], "true");
        for answer in [&first, &again] {
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(answer.headers["etag"], first.headers["etag"]);
        }
    }
    let read = Ask::new(&workspace, Method::GET, "documents/1").send(&served);
    assert_eq!(read.await.json(), json!({"_id": 1, "a": 1}));
}
