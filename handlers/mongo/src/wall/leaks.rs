//! Pipelines by the thousand against two tenants in one collection: whatever the wall
//! lets through, nothing of the other tenant comes back, nor either tenant's fields.
//!
//! Databases of workspaces are apart; here they are not, so that the predicate alone is
//! what holds. Pipelines come from the grammar of what is allowed, from the same with a
//! part exchanged for something sly, and from names thrown together. A failed run prints
//! its seed; `LEAKS_SEED=…` does it again.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::slice;
use std::time::{Duration, Instant};

use bson::{Bson, Document, bson, doc};
use futures::TryStreamExt as _;
use mongodb::Database;
use postern_harness::mongo::Mongo;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::sync::OnceCell;

use super::{At, Budget, Pipeline, TENANT, WORKSPACE, Wall};

/// Pipelines of one run, and how long it may take: slow machines look at fewer.
const PIPELINES: usize = 1_500;
const TIME: Duration = Duration::from_secs(20);
/// A server that does badly with a pipeline is not waited for.
const MAX_TIME: Duration = Duration::from_secs(2);

/// What nobody may see; no pipeline has these in it.
const FOREIGN: &str = "theirs-4f1d0c";
const OWN: [&str; 2] = ["own-tenant-7c2a9e", "own-workspace-b83d51"];

// --- pipelines ---------------------------------------------------------------------

type Made = BoxedStrategy<Bson>;

fn name() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a", "n", "l", "o", "j", "secret", "_id", "o.x", "l.0", "j.secret", "ref",
    ])
}

/// Names of fields that are made: none is another's beginning.
fn field() -> impl Strategy<Value = String> {
    select(vec!["p", "q", "r", "j", "secret"]).prop_map(str::to_owned)
}

fn object(fields: impl Strategy<Value = Vec<(String, Bson)>> + 'static) -> Made {
    fields
        .prop_map(|fields| Bson::Document(fields.into_iter().collect()))
        .boxed()
}

fn leaf() -> Made {
    prop_oneof![
        4 => name().prop_map(|name| Bson::String(format!("${name}"))),
        3 => Just(bson!("$$ROOT")),
        1 => Just(bson!("$$CURRENT")),
        1 => Just(bson!("$$ROOT.o")),
        1 => (0..9_i32).prop_map(Bson::Int32),
        1 => Just(Bson::Null),
        1 => Just(bson!("text")),
    ]
    .boxed()
}

fn expression(depth: u32) -> Made {
    let Some(depth) = depth.checked_sub(1) else {
        return leaf();
    };
    let inner = || expression(depth);
    let list = || Just(bson!({"$cond": [{"$isArray": "$l"}, "$l", ["$$ROOT"]]}));
    prop_oneof![
        4 => leaf(),
        2 => object(vec((field(), inner()), 1..3)),
        1 => vec(inner(), 0..3).prop_map(Bson::Array),
        1 => (inner(), inner()).prop_map(|(a, b)| bson!({"$eq": [a, b]})),
        1 => (inner(), inner(), inner()).prop_map(|(a, b, c)| bson!({"$cond": [a, b, c]})),
        1 => (inner(), inner()).prop_map(|(a, b)| bson!({"$ifNull": [a, b]})),
        1 => Just(bson!({"$objectToArray": "$$ROOT"})),
        1 => inner().prop_map(|a| bson!({"$mergeObjects": ["$$ROOT", {"x": a}]})),
        1 => inner().prop_map(|a| bson!({"$literal": a})),
        1 => (inner(), inner()).prop_map(|(a, b)| bson!({"$let": {"vars": {"v": a}, "in": {"x": "$$v", "y": b}}})),
        1 => (list(), inner()).prop_map(|(l, a)| bson!({"$map": {"input": l, "in": {"x": "$$this", "y": a}}})),
        1 => (list(), inner()).prop_map(|(l, a)| bson!({"$filter": {"input": l, "as": "e", "cond": {"$ne": ["$$e", a]}}})),
        1 => (list(), inner()).prop_map(|(l, a)| bson!({"$reduce": {"input": l, "initialValue": [], "in": {"$concatArrays": ["$$value", ["$$this", a]]}}})),
        1 => (inner(), inner()).prop_map(|(a, b)| bson!({"$switch": {"branches": [{"case": a, "then": b}], "default": "$$ROOT"}})),
    ]
    .boxed()
}

fn filter(depth: u32) -> Made {
    let tests = select(vec![
        bson!({"$exists": true}),
        bson!({"$exists": false}),
        bson!({"$ne": 3}),
        bson!({"$gte": 0}),
        bson!({"$nin": ["x"]}),
        bson!({"$not": {"$type": "string"}}),
        bson!({"$elemMatch": {"$gt": 0}}),
        bson!({"$regex": "e"}),
    ]);
    let test = (name(), tests).prop_map(|(name, test)| Bson::Document(doc! { name: test }));
    let Some(depth) = depth.checked_sub(1) else {
        return prop_oneof![1 => Just(bson!({})), 3 => test].boxed();
    };
    let several = || vec(filter(depth), 1..3).prop_map(Bson::Array);
    prop_oneof![
        1 => Just(bson!({})),
        3 => test,
        2 => several().prop_map(|filters| bson!({"$or": filters})),
        1 => several().prop_map(|filters| bson!({"$and": filters})),
        1 => several().prop_map(|filters| bson!({"$nor": filters})),
        1 => expression(depth).prop_map(|e| bson!({"$expr": e})),
    ]
    .boxed()
}

fn accumulated(depth: u32) -> Made {
    let operator = select(vec![
        "$push",
        "$addToSet",
        "$first",
        "$last",
        "$max",
        "$min",
    ]);
    let one = (operator, expression(depth))
        .prop_map(|(operator, e)| Bson::Document(doc! { operator: e }));
    object(vec((field(), one), 1..3))
}

fn lookup(depth: u32) -> Made {
    let from = || select(vec!["things", "others", "nothing"]);
    let target = || select(vec!["j", "l", "o.j"]);
    let inner = || pipeline(depth).prop_map(Bson::Array);
    let joined = select(vec!["a", "n", "ref", "_id"]);
    prop_oneof![
        (from(), joined.clone(), joined.clone(), target()).prop_map(
            |(from, a, b, to)| bson!({"from": from, "localField": a, "foreignField": b, "as": to})
        ),
        (from(), inner(), target())
            .prop_map(|(from, stages, to)| bson!({"from": from, "pipeline": stages, "as": to})),
        (from(), inner(), leaf(), target()).prop_map(|(from, stages, v, to)| bson!({
            "from": from, "let": {"v": v}, "pipeline": stages, "as": to
        })),
        (from(), joined.clone(), joined, inner(), target()).prop_map(
            |(from, a, b, stages, to)| bson!({
                "from": from, "localField": a, "foreignField": b, "pipeline": stages, "as": to
            })
        ),
    ]
    .boxed()
}

fn stage(depth: u32) -> Made {
    let inner = depth.saturating_sub(1);
    let e = || expression(inner);
    let simple = prop_oneof![
        3 => filter(inner).prop_map(|it| bson!({"$match": it})),
        1 => (1..9_i32).prop_map(|n| bson!({"$limit": n})),
        1 => (0..3_i32).prop_map(|n| bson!({"$skip": n})),
        1 => select(vec![bson!({"_id": 1}), bson!({"n": -1, "a": 1})]).prop_map(|it| bson!({"$sort": it})),
        2 => (e(), accumulated(inner)).prop_map(|(id, fields)| {
            let mut group = doc! { "_id": id };
            group.extend(fields.as_document().unwrap().clone());
            bson!({"$group": group})
        }),
        2 => object(vec((field(), e()), 1..3)).prop_map(|it| bson!({"$project": it})),
        1 => Just(bson!({"$project": {"n": 0}})),
        2 => object(vec((field(), e()), 1..3)).prop_map(|it| bson!({"$addFields": it})),
        1 => object(vec((field(), e()), 1..3)).prop_map(|it| bson!({"$set": it})),
        1 => name().prop_map(|it| bson!({"$unset": it})),
        1 => (name(), any::<bool>()).prop_map(|(it, keep)| bson!({"$unwind": {"path": format!("${it}"), "preserveNullAndEmptyArrays": keep}})),
        1 => Just(bson!({"$count": "c"})),
        1 => (e(), accumulated(inner)).prop_map(|(by, out)| bson!({"$bucketAuto": {"groupBy": by, "buckets": 3, "output": out}})),
        1 => accumulated(inner).prop_map(|out| bson!({"$bucket": {"groupBy": "$n", "boundaries": [0, 2, 100], "default": "rest", "output": out}})),
        1 => e().prop_map(|by| bson!({"$sortByCount": {"x": by}})),
        2 => e().prop_map(|it| bson!({"$replaceRoot": {"newRoot": {"x": it}}})),
        1 => Just(bson!({"$sample": {"size": 5}})),
    ];
    if depth == 0 {
        return simple.boxed();
    }
    let facets = || {
        object(vec(
            (field(), pipeline(depth - 1).prop_map(Bson::Array)),
            1..3,
        ))
    };
    prop_oneof![
        6 => simple,
        3 => lookup(depth - 1).prop_map(|it| bson!({"$lookup": it})),
        1 => facets().prop_map(|it| bson!({"$facet": it})),
    ]
    .boxed()
}

fn pipeline(depth: u32) -> BoxedStrategy<Vec<Bson>> {
    vec(stage(depth), 0..4).boxed()
}

/// What is put in somewhere: most of it the wall has to refuse.
fn sly() -> Made {
    select(vec![
        bson!("$_tenantId"),
        bson!("$$ROOT._tenantId"),
        bson!("$$CURRENT._workspaceId"),
        bson!("$o._tenantId"),
        bson!("_tenantId"),
        bson!("_workspaceId"),
        bson!("$$v"),
        bson!("$$this"),
        bson!("things"),
        bson!("$"),
        bson!("$$"),
        bson!(""),
        bson!([{"$unionWith": "things"}]),
        bson!({"$unionWith": {"coll": "things", "pipeline": []}}),
        bson!({"$graphLookup": {"from": "things", "startWith": "$a", "connectFromField": "a", "connectToField": "n", "as": "j"}}),
        bson!({"$lookup": {"from": "things", "pipeline": [], "as": "j"}}),
        bson!({"from": "things", "pipeline": [], "as": "j"}),
        bson!({"$getField": "_tenantId"}),
        bson!({"$function": {"body": "return 1", "args": [], "lang": "js"}}),
        bson!({"$objectToArray": "$$ROOT"}),
        bson!({"$where": "true"}),
        bson!({"$out": "others"}),
        bson!({"$literal": "$_tenantId"}),
        bson!({"_tenantId": 1}),
        bson!({"_tenantId": "$$REMOVE"}),
        bson!({"$not": [true]}),
        bson!([]),
        bson!({}),
        Bson::Null,
        bson!(-1),
    ])
    .boxed()
}

/// Names thrown together.
fn raw() -> Made {
    let names = select(vec![
        "$match",
        "$lookup",
        "$unionWith",
        "$facet",
        "$project",
        "$group",
        "$addFields",
        "$expr",
        "$or",
        "$replaceRoot",
        "newRoot",
        "pipeline",
        "from",
        "as",
        "let",
        "in",
        "vars",
        "coll",
        "$let",
        "$push",
        "$$ROOT",
        "_tenantId",
        "_id",
        "a",
        "localField",
        "foreignField",
        "$objectToArray",
        "$map",
        "input",
    ]);
    let text = select(vec![
        "$$ROOT",
        "$a",
        "things",
        "others",
        "j",
        "$_tenantId",
        "$$v",
        "text",
        "_tenantId",
    ]);
    let leaf = prop_oneof![3 => text.prop_map(Bson::from), 1 => any::<i32>().prop_map(Bson::Int32), 1 => any::<bool>().prop_map(Bson::Boolean)];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        let field = (names.clone().prop_map(str::to_owned), inner.clone());
        prop_oneof![
            1 => vec(inner, 0..4).prop_map(Bson::Array),
            3 => object(vec(field, 1..3)),
        ]
    })
    .boxed()
}

/// Puts `with` where the `at`th value stands; false where there are fewer.
fn exchange(value: &mut Bson, at: &mut usize, with: &Bson) -> bool {
    if *at == 0 {
        *value = with.clone();
        return true;
    }
    *at -= 1;
    match value {
        Bson::Array(items) => items.iter_mut().any(|item| exchange(item, at, with)),
        Bson::Document(fields) => fields
            .iter_mut()
            .any(|(_, field)| exchange(field, at, with)),
        _ => false,
    }
}

fn any_pipeline() -> BoxedStrategy<Vec<Bson>> {
    let mutated = (pipeline(3), 1..40_usize, sly()).prop_map(|(stages, at, with)| {
        let mut whole = Bson::Array(stages);
        let mut at = at;
        exchange(&mut whole, &mut at, &with);
        match whole {
            Bson::Array(stages) => stages,
            _ => Vec::new(),
        }
    });
    prop_oneof![5 => pipeline(3), 4 => mutated, 1 => vec(raw(), 1..4)].boxed()
}

// --- the store ---------------------------------------------------------------------

async fn database(name: &str) -> Database {
    static SERVER: OnceCell<Mongo> = OnceCell::const_new();
    let server = SERVER
        .get_or_init(async || Mongo::start().await.unwrap())
        .await;
    // A runtime of its own for each test, so a client, too.
    let database = server.client().await.unwrap().database(name);
    let wall = Wall::new(OWN[0], OWN[1]);
    let own = |n: i32| {
        wall.mark(doc! { "_id": n, "a": n % 3, "n": n, "l": [n, {"x": n}], "o": {"x": n, "y": "mine"}, "ref": 3 - n, "secret": "mine" })
    };
    let theirs = |n: i32| {
        doc! { "_id": 100 + n, "a": n % 3, "n": n, "l": [n, {"x": FOREIGN}], "o": {"x": FOREIGN}, "ref": 3 - n, "secret": FOREIGN,
        TENANT: format!("tenant-{FOREIGN}"), WORKSPACE: format!("workspace-{FOREIGN}") }
    };
    for collection in ["things", "others"] {
        let collection = database.collection::<Document>(collection);
        let documents = (0..4).flat_map(|n| [own(n), theirs(n)]);
        collection.insert_many(documents).await.unwrap();
    }
    database
}

/// What came back that should not have; none also where the server refused.
async fn leak(database: &Database, stages: Vec<Document>, asked: &str) -> Option<&'static str> {
    let things = database.collection::<Document>("things");
    let found = things.aggregate(stages).max_time(MAX_TIME).await.ok()?;
    let found: Vec<Document> = found.try_collect().await.ok()?;
    let found = Bson::from(found).into_canonical_extjson().to_string();
    let secrets = [FOREIGN, OWN[0], OWN[1], TENANT, WORKSPACE];
    // A name may come back where the client wrote it.
    secrets
        .into_iter()
        .find(|secret| found.contains(secret) && !asked.contains(secret))
}

struct Run {
    accepted: usize,
    found: Option<String>,
}

/// Tries pipelines until something leaks, there are enough, or the time is over. `changed`
/// is what becomes of the pipeline that the wall made.
async fn run(database: &Database, changed: impl Fn(&mut Vec<Document>)) -> Run {
    let seed: u64 = match std::env::var("LEAKS_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (strategy, wall) = (any_pipeline(), Wall::new(OWN[0], OWN[1]));
    let (mut accepted, until) = (0, Instant::now() + TIME);
    println!("LEAKS_SEED={seed}");
    for _ in 0..PIPELINES {
        let asked = strategy.new_tree(&mut runner).unwrap().current();
        if Instant::now() > until {
            break;
        }
        let Ok(read) = Pipeline::read(&asked, &mut Budget::default(), &At::root("pipeline")) else {
            continue;
        };
        accepted += 1;
        let mut stages = read.to_bson(&wall);
        changed(&mut stages);
        let asked = Bson::Array(asked).to_string();
        if let Some(secret) = leak(database, stages, &asked).await {
            let found = Some(format!(
                "LEAKS_SEED={seed}: {secret} comes back from {asked}"
            ));
            return Run { accepted, found };
        }
    }
    Run {
        accepted,
        found: None,
    }
}

#[tokio::test]
async fn nothing_of_the_other_tenant_comes_back() {
    let database = database("walled").await;
    let run = run(&database, |_| {}).await;
    assert_eq!(run.found, None);
    // Even a slow machine has looked at some.
    assert!(run.accepted >= 50, "{} were let through only", run.accepted);
}

/// Takes the wall out of the joins of a pipeline, at any depth; `which` of its two stages.
fn open_joins(stages: &mut [Document], which: &str) {
    for stage in stages {
        if let Ok(facets) = stage.get_document_mut("$facet") {
            for (_, facet) in facets.iter_mut() {
                open(facet.as_array_mut().unwrap(), which);
            }
        }
        if let Ok(lookup) = stage.get_document_mut("$lookup") {
            let inner = lookup.get_array_mut("pipeline").unwrap();
            let is_wall = |stage: &Bson| stage.as_document().unwrap().contains_key(which);
            let at = inner.iter().take(2).position(is_wall);
            inner.remove(at.unwrap());
            open(inner, which);
        }
    }
}

fn open(stages: &mut [Bson], which: &str) {
    for stage in stages {
        open_joins(slice::from_mut(stage.as_document_mut().unwrap()), which);
    }
}

/// The test above can fail: each part of the wall that is taken away is missed.
#[tokio::test]
async fn a_wall_with_a_gap_is_found() {
    let database = database("gaps").await;
    type Gap = fn(&mut Vec<Document>);
    let gaps: [(&str, Gap); 4] = [
        ("the predicate at the start", |stages| {
            drop(stages.remove(0))
        }),
        ("the fields at the start", |stages| drop(stages.remove(1))),
        ("the predicate of joins", |stages| {
            open_joins(stages, "$match")
        }),
        ("the fields of joins", |stages| open_joins(stages, "$unset")),
    ];
    for (gap, make) in gaps {
        let run = run(&database, make).await;
        assert!(
            run.found.is_some(),
            "{gap}: {} pipelines do not see it",
            run.accepted
        );
    }
}
