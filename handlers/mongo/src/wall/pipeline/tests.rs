//! Pipelines: what passes behind the wall, and what is named.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]

use bson::bson;

use super::*;

fn read(stages: Bson) -> Result<Pipeline, Refused> {
    let Bson::Array(stages) = stages else {
        panic!("no array")
    };
    Pipeline::read(&stages, &mut Budget::default(), &At::root("pipeline"))
}

fn wall() -> Wall {
    Wall::new("t", "w")
}

#[test]
fn every_stage_passes_behind_the_wall() {
    let stages = bson!([
        {"$match": {"a": {"$gt": 1}}},
        {"$lookup": {"from": "other", "localField": "a", "foreignField": "b", "as": "joined"}},
        {"$unwind": "$joined"},
        {"$addFields": {"n": {"$add": ["$a", 1]}}},
        {"$set": {"m": "$$ROOT.a"}},
        {"$unset": ["x", "y.z"]},
        {"$project": {"a": 1, "b": {"c": "$n"}, "_id": 0}},
        {"$group": {"_id": "$a", "n": {"$sum": 1}, "all": {"$push": "$$ROOT"}, "c": {"$count": {}}}},
        {"$sort": {"n": -1}},
        {"$facet": {"one": [{"$limit": 5}], "two": [{"$count": "n"}]}},
        {"$replaceRoot": {"newRoot": {"x": "$one"}}},
        {"$bucket": {"groupBy": "$a", "boundaries": [0, 10], "default": "other", "output": {"n": {"$sum": 1}}}},
        {"$bucketAuto": {"groupBy": "$a", "buckets": 3, "granularity": "R5"}},
        {"$sortByCount": "$a"},
        {"$sample": {"size": 3}},
        {"$skip": 1},
        {"$limit": 5},
        {"$count": "total"},
    ]);
    let rebuilt = read(stages).unwrap().to_bson(&wall());
    assert_eq!(
        rebuilt[0],
        doc! {"$match": {"_tenantId": "t", "_workspaceId": "w"}}
    );
    assert_eq!(rebuilt[1], doc! {"$unset": ["_tenantId", "_workspaceId"]});
    // Two more measure what the stages may have made of a document.
    assert_eq!(rebuilt.len(), 2 + STAGES.len() + 2);
}

/// Wherever documents of a collection are read, at any depth, the wall stands first.
#[test]
fn each_lookup_has_a_wall_of_its_own() {
    let inner = bson!({"$lookup": {"from": "c", "let": {"x": "$a"}, "pipeline": [{"$match": {"$expr": {"$eq": ["$a", "$$x"]}}}], "as": "j"}});
    let outer = bson!([{"$facet": {"f": [{"$lookup": {"from": "b", "localField": "a", "foreignField": "a", "pipeline": [inner], "as": "k"}}]}}]);
    let rebuilt = Bson::Array(
        read(outer)
            .unwrap()
            .to_bson(&wall())
            .into_iter()
            .map(Bson::Document)
            .collect(),
    );
    fn walls(value: &Bson, found: &mut Vec<bool>) {
        match value {
            Bson::Document(fields) => {
                if let Ok(lookup) = fields.get_document("$lookup") {
                    let head = lookup.get_array("pipeline").unwrap();
                    found.push(
                        head[0] == bson!({"$match": wall().predicate()})
                            && head[1] == bson!({"$unset": ["_tenantId", "_workspaceId"]}),
                    );
                }
                fields.values().for_each(|field| walls(field, found));
            }
            Bson::Array(items) => items.iter().for_each(|item| walls(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walls(&rebuilt, &mut found);
    assert_eq!(found, [true, true]);
}

/// The server moves conditions, and looks at its clock now and then only.
#[test]
fn what_computes_stays_where_it_is_and_in_time() {
    let sent = |stages: Bson| read(stages).unwrap().to_bson(&wall());
    let barrier = doc! {"$limit": i64::MAX};
    let computing = bson!({"$match": {"$or": [{"$expr": {"$toInt": "$a"}}, {"b": 1}]}});
    assert_eq!(sent(bson!([computing.clone()]))[2], barrier);
    assert_eq!(sent(bson!([{"$match": {"a": 1}}])).len(), 3);
    let lookup = sent(bson!([{"$lookup": {"from": "b", "pipeline": [computing], "as": "j"}}]));
    let inner = lookup[2].get_document("$lookup").unwrap();
    assert_eq!(
        inner.get_array("pipeline").unwrap()[2],
        Bson::Document(barrier.clone())
    );
    let looping = bson!({"$addFields": {"x": {"$map": {"input": "$a", "in": 1}}}});
    assert_eq!(sent(bson!([looping])).len(), 3 + LOOKS);
    // What doubles in each stage is measured before it has doubled five times.
    let doubling = vec![bson!({"$addFields": {"x": ["$x", "$x"]}}); 30];
    let measured = sent(Bson::Array(doubling));
    assert!(measured.iter().filter(|stage| **stage == barrier).count() >= 8);
}

#[test]
fn what_does_not_pass_is_named() {
    for (stages, at) in [
        (bson!([{"$out": "x"}]), "pipeline[0].$out"),
        (bson!([{"$merge": {"into": "x"}}]), "pipeline[0].$merge"),
        (bson!([{"$unionWith": "x"}]), "pipeline[0].$unionWith"),
        (bson!([{"$graphLookup": {}}]), "pipeline[0].$graphLookup"),
        (
            bson!([{"$match": {}}, {"$facet": {"f": [{"$out": "x"}]}}]),
            "pipeline[1].$facet.f[0].$out",
        ),
        (
            bson!([{"$lookup": {"from": "a", "pipeline": [{"$unionWith": "b"}], "as": "j"}}]),
            "pipeline[0].$lookup.pipeline[0].$unionWith",
        ),
        (
            bson!([{"$lookup": {"from": {"db": "x", "coll": "y"}, "pipeline": [], "as": "j"}}]),
            "pipeline[0].$lookup.from",
        ),
        (
            bson!([{"$lookup": {"from": "system.users", "pipeline": [], "as": "j"}}]),
            "pipeline[0].$lookup.from",
        ),
        (
            bson!([{"$lookup": {"from": "postern.record", "pipeline": [], "as": "j"}}]),
            "pipeline[0].$lookup.from",
        ),
        (
            bson!([{"$lookup": {"from": "a", "localField": "_tenantId", "foreignField": "x", "as": "j"}}]),
            "pipeline[0].$lookup.localField",
        ),
        (
            bson!([{"$lookup": {"from": "a", "pipeline": [], "as": "_tenantId"}}]),
            "pipeline[0].$lookup.as",
        ),
        (
            bson!([{"$match": {"$where": "1"}}]),
            "pipeline[0].$match.$where",
        ),
        (
            bson!([{"$project": {"x": {"$function": {}}}}]),
            "pipeline[0].$project.x.$function",
        ),
        (
            bson!([{"$project": {"_tenantId": 1}}]),
            "pipeline[0].$project._tenantId",
        ),
        (
            bson!([{"$group": {"_id": 1, "x": {"$accumulator": {}}}}]),
            "pipeline[0].$group.x.$accumulator",
        ),
        (
            bson!([{"$group": {"_id": 1, "_tenantId": {"$sum": 1}}}]),
            "pipeline[0].$group._tenantId",
        ),
        (
            bson!([{"$sort": {"score": {"$meta": "textScore"}}}]),
            "pipeline[0].$sort.score",
        ),
        (bson!([{"$match": {}, "$limit": 1}]), "pipeline[0]"),
        (bson!([1]), "pipeline[0]"),
        (
            bson!([{"$unwind": {"path": "$_workspaceId"}}]),
            "pipeline[0].$unwind.path",
        ),
        (bson!([{"$count": "_tenantId"}]), "pipeline[0].$count"),
        (bson!([{"$limit": 0}]), "pipeline[0].$limit"),
    ] {
        assert_eq!(read(stages.clone()).unwrap_err().at, at, "{stages}");
    }
}

#[test]
fn stages_and_joins_are_counted() {
    assert!(
        read(Bson::Array(vec![bson!({"$limit": 1}); 65]))
            .unwrap_err()
            .reason
            .contains("stages")
    );
    let mut nested = bson!({"$limit": 1});
    for _ in 0..6 {
        nested = bson!({"$lookup": {"from": "a", "pipeline": [nested], "as": "j"}});
    }
    assert!(
        read(bson!([nested]))
            .unwrap_err()
            .reason
            .contains("in one another")
    );
}
