//! Pipelines and filters by the hundred against two tenants in one collection: whatever the
//! wall lets through answers as it does where the other tenant has nothing, errors too, and
//! neither tenant's fields come back.
//!
//! Databases of workspaces are apart; here they are not, so that the predicate alone is
//! what holds. Beside it stands a database with our own documents only. What is asked is
//! [`drawn`]. A failed run prints its seed; `LEAKS_SEED=…` does it again.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod drawn;

use std::slice;
use std::time::Duration;

use bson::{Bson, Document, doc};
use drawn::{any_filter, any_pipeline};
use futures::TryStreamExt as _;
use mongodb::{Collection, Database};
use postern_harness::mongo::Mongo;
use proptest::strategy::{Strategy, ValueTree as _};
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
