//! Pipelines and filters by the hundred against two tenants in one collection: whatever the
//! wall lets through answers as it does where the other tenant has nothing, errors too, and
//! neither tenant's fields come back.
//!
//! Databases of workspaces are apart; here they are not, so that the predicate alone is
//! what holds. Beside it stands a database with our own documents only. Pipelines come from the grammar of what is allowed, from the same with a
//! part exchanged for something sly, and from names thrown together. A failed run prints
//! its seed; `LEAKS_SEED=…` does it again.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::slice;
use std::time::Duration;

use bson::{Bson, Document, bson, doc};
use futures::TryStreamExt as _;
use mongodb::{Collection, Database};
use postern_harness::mongo::Mongo;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::sync::OnceCell;

use super::{At, Budget, Filter, Pipeline, TENANT, WORKSPACE, Wall, barrier};
use crate::failure::number;

/// Pipelines and filters of one run.
const PIPELINES: usize = 1_000;
const FILTERS: usize = 400;
/// A server that does badly with one is not waited for; nothing is known of it then.
const MAX_TIME: Duration = Duration::from_secs(5);

/// How often both are asked where they differ.
const DRAWS: usize = 20;

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

fn any_filter() -> Made {
    let mutated = (filter(3), 1..20_usize, sly()).prop_map(|(mut whole, mut at, with)| {
        exchange(&mut whole, &mut at, &with);
        whole
    });
    prop_oneof![5 => filter(3), 4 => mutated, 1 => raw()].boxed()
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

/// The same collections twice.
struct World {
    /// The other tenant's documents stand among our own.
    shared: Database,
    /// They do not.
    alone: Database,
}

impl World {
    async fn new(name: &str) -> Self {
        static SERVER: OnceCell<Mongo> = OnceCell::const_new();
        let server = SERVER
            .get_or_init(async || Mongo::start().await.unwrap())
            .await;
        // A runtime of its own for each test, so a client, too.
        let client = server.client().await.unwrap();
        let world = Self {
            shared: client.database(name),
            alone: client.database(&format!("{name}-alone")),
        };
        let wall = Wall::new(OWN[0], OWN[1]);
        let own = |n: i32| {
            wall.mark(doc! { "_id": n, "a": n % 3, "n": n, "l": [n, {"x": n}], "o": {"x": n, "y": "mine"}, "ref": 3 - n, "secret": "mine" })
        };
        let theirs = |n: i32| {
            doc! { "_id": 100 + n, "a": n % 3, "n": n, "l": [n, {"x": FOREIGN}], "o": {"x": FOREIGN}, "ref": 3 - n, "secret": FOREIGN,
            TENANT: format!("tenant-{FOREIGN}"), WORKSPACE: format!("workspace-{FOREIGN}") }
        };
        for collection in ["things", "others"] {
            let both = (0..4).flat_map(|n| [own(n), theirs(n)]);
            for (database, documents) in [
                (&world.shared, both.collect::<Vec<_>>()),
                (&world.alone, (0..4).map(own).collect()),
            ] {
                let collection = database.collection::<Document>(collection);
                collection.insert_many(documents).await.unwrap();
            }
        }
        world
    }

    /// What both say. The server gives sets and groups in an order drawn by lot, so that a
    /// `$limit` behind them is, too: where they differ both are asked again, and what both
    /// may say is no difference.
    async fn ask<F>(&self, ask: impl Fn(Collection<Document>) -> F) -> [Said; 2]
    where
        F: Future<Output = mongodb::error::Result<Vec<Document>>>,
    {
        let said = async |database: &Database| Said::of(ask(database.collection("things")).await);
        let mut all = [Vec::new(), Vec::new()];
        for _ in 0..DRAWS {
            let both = [said(&self.shared).await, said(&self.alone).await];
            let [shared, alone] = &both;
            if both.contains(&Said::Nothing) || all[1].contains(shared) || shared == alone {
                return [shared.clone(), alone.clone()].map(|said| match said {
                    Said::Nothing => Said::Nothing,
                    _ => shared.clone(),
                });
            }
            if all[0].contains(alone) {
                return [alone.clone(), alone.clone()];
            }
            for (all, said) in all.iter_mut().zip(both) {
                all.push(said);
            }
        }
        all.map(|all| all.into_iter().next_back().unwrap())
    }
}

/// What a client gets to know.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    /// In any order, those of arrays too.
    Documents(Vec<String>),
    /// The number of an error.
    Refused(Option<i32>),
    /// It was not waited for.
    Nothing,
}

impl Said {
    fn of(found: mongodb::error::Result<Vec<Document>>) -> Self {
        match found {
            Ok(found) => {
                let text = |it| {
                    sorted(Bson::Document(it))
                        .into_canonical_extjson()
                        .to_string()
                };
                let mut found: Vec<_> = found.into_iter().map(text).collect();
                found.sort();
                Self::Documents(found)
            }
            Err(error) => match number(&error) {
                Some(MAX_TIME_EXPIRED) => Self::Nothing,
                number => Self::Refused(number),
            },
        }
    }
}

const MAX_TIME_EXPIRED: i32 = 50;

/// With its arrays in an order that does not depend on the server's.
fn sorted(value: Bson) -> Bson {
    match value {
        Bson::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(sorted).collect();
            items.sort_by_key(Bson::to_string);
            Bson::Array(items)
        }
        Bson::Document(fields) => {
            let fields = fields.into_iter().map(|(name, it)| (name, sorted(it)));
            Bson::Document(fields.collect())
        }
        other => other,
    }
}

/// What was said that should not have been: where it is not the same for both, or names
/// what nobody may see and the client did not write.
fn leak(said: &[Said; 2], asked: &str) -> Option<String> {
    let [shared, alone] = said;
    if said.contains(&Said::Nothing) {
        return None;
    }
    if shared != alone {
        return Some(format!("{shared:?} instead of {alone:?}"));
    }
    let shown = format!("{shared:?}");
    let secrets = [FOREIGN, OWN[0], OWN[1], TENANT, WORKSPACE];
    let found = secrets.into_iter();
    let mut found = found.filter(|it| shown.contains(it) && !asked.contains(it));
    found.next().map(|secret| format!("{secret} comes back"))
}

#[derive(Default)]
struct Run {
    /// How many were let through, and how many of these were answered by both.
    accepted: usize,
    answered: usize,
    found: Option<String>,
}

impl Run {
    /// Whether something leaks.
    fn saw(&mut self, said: &[Said; 2], asked: &str, seed: u64) -> bool {
        self.accepted += 1;
        self.answered += usize::from(!said.contains(&Said::Nothing));
        let found = leak(said, asked);
        self.found = found.map(|leak| format!("LEAKS_SEED={seed}: {leak}, asked {asked}"));
        self.found.is_some()
    }

    /// Nothing does, and enough was looked at for that to mean something.
    fn holds(&self, least: usize) {
        assert_eq!(self.found, None);
        let Self {
            accepted, answered, ..
        } = self;
        assert!(*accepted >= least, "{accepted} were let through only");
        assert!(
            *answered * 2 >= *accepted,
            "{answered} of {accepted} were answered only"
        );
    }
}

fn runner() -> (u64, TestRunner) {
    let seed: u64 = match std::env::var("LEAKS_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("LEAKS_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    (seed, TestRunner::new_with_rng(Config::default(), rng))
}

/// Tries pipelines until something leaks or there are enough. `changed` is what becomes of
/// the pipeline that the wall made.
async fn run(world: &World, changed: impl Fn(&mut Vec<Document>)) -> Run {
    let (seed, mut runner) = runner();
    let (strategy, wall) = (any_pipeline(), Wall::new(OWN[0], OWN[1]));
    let mut run = Run::default();
    for _ in 0..PIPELINES {
        let asked = strategy.new_tree(&mut runner).unwrap().current();
        let Ok(read) = Pipeline::read(&asked, &mut Budget::default(), &At::root("pipeline")) else {
            continue;
        };
        let mut stages = read.to_bson(&wall);
        changed(&mut stages);
        let asked = Bson::Array(asked).to_string();
        // What is drawn by lot differs by itself.
        if asked.contains("$sample") {
            continue;
        }
        let said = world.ask(|things| aggregated(things, stages.clone()));
        if run.saw(&said.await, &asked, seed) {
            break;
        }
    }
    run
}

async fn aggregated(
    things: Collection<Document>,
    stages: Vec<Document>,
) -> mongodb::error::Result<Vec<Document>> {
    let found = things.aggregate(stages).max_time(MAX_TIME).await?;
    found.try_collect().await
}

/// Tries filters: what they find, how many, what they change and what they remove. `walled`
/// is what becomes of a filter.
async fn run_filters(world: &World, walled: impl Fn(&Filter) -> Document) -> Run {
    let (seed, mut runner) = runner();
    let strategy = any_filter();
    let mut run = Run::default();
    for turn in 0..FILTERS {
        let asked = strategy.new_tree(&mut runner).unwrap().current();
        let Bson::Document(fields) = &asked else {
            continue;
        };
        let Ok(read) = Filter::read(fields, &mut Budget::default(), &At::root("filter")) else {
            continue;
        };
        let (matched, asked) = (walled(&read), asked.to_string());
        let turn = i32::try_from(turn).unwrap();
        let said = world.ask(|things| effects(things, matched.clone(), turn));
        if run.saw(&said.await, &asked, seed) {
            break;
        }
    }
    run
}

/// What a client gets to know by its filter, in a list, a count, a change and a removal. The
/// last two are undone.
async fn effects(
    things: Collection<Document>,
    matched: Document,
    turn: i32,
) -> mongodb::error::Result<Vec<Document>> {
    let hidden = doc! { TENANT: 0, WORKSPACE: 0 };
    let found = things.find(matched.clone()).projection(hidden);
    let found = found.max_time(MAX_TIME).await?;
    let mut told: Vec<Document> = found.try_collect().await?;
    let count = things.count_documents(matched.clone()).max_time(MAX_TIME);
    let count = i64::try_from(count.await?).unwrap();
    let mut session = things.client().start_session().await?;
    session.start_transaction().await?;
    let change = doc! { "$set": { "changed": turn } };
    let changed = things.update_many(matched.clone(), change);
    let changed = changed.session(&mut session).await?;
    let removed = things.delete_many(matched).session(&mut session).await?;
    session.abort_transaction().await?;
    let [matched, modified] = [changed.matched_count, changed.modified_count];
    told.push(doc! {
        "count": count, "matched": i64::try_from(matched).unwrap(),
        "modified": i64::try_from(modified).unwrap(),
        "removed": i64::try_from(removed.deleted_count).unwrap(),
    });
    Ok(told)
}

#[tokio::test]
async fn nothing_of_the_other_tenant_comes_back() {
    let world = World::new("walled").await;
    run(&world, |_| {}).await.holds(PIPELINES / 5);
}

#[tokio::test]
async fn nothing_of_the_other_tenant_is_found_or_changed() {
    let world = World::new("filtered").await;
    let wall = Wall::new(OWN[0], OWN[1]);
    let run = run_filters(&world, |filter| wall.and(filter)).await;
    run.holds(FILTERS / 5);
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
    let world = World::new("gaps").await;
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
        let run = run(&world, make).await;
        assert!(
            run.found.is_some(),
            "{gap}: {} pipelines do not see it",
            run.accepted
        );
    }
    let run = run_filters(&world, Filter::to_bson).await;
    assert!(
        run.found.is_some(),
        "{} filters do not see it",
        run.accepted
    );
}

/// A yes or no by an error alone is seen, too: this one has no wall before its condition.
#[tokio::test]
async fn an_error_is_a_difference() {
    let world = World::new("errors").await;
    let divides = doc! { "$divide": [1, { "$subtract": ["$_id", 100] }] };
    let stages = [
        doc! { "$match": { "$expr": { "$ne": [divides, 7] } } },
        barrier(),
        doc! { "$match": Wall::new(OWN[0], OWN[1]).predicate() },
    ];
    let said = world.ask(|things| aggregated(things, stages.to_vec()));
    let said = said.await;
    assert!(
        matches!(said, [Said::Refused(_), Said::Documents(_)]),
        "{said:?}"
    );
    assert!(leak(&said, "").is_some());
}
