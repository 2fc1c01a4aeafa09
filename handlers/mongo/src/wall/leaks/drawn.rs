//! Pipelines and filters, drawn: from the grammar of what is allowed, from the same with a
//! part exchanged for something sly, from names thrown together.

use bson::{Bson, bson, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) type Made = BoxedStrategy<Bson>;

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

pub(super) fn any_filter() -> Made {
    let mutated = (filter(3), 1..20_usize, sly()).prop_map(|(mut whole, mut at, with)| {
        exchange(&mut whole, &mut at, &with);
        whole
    });
    prop_oneof![5 => filter(3), 4 => mutated, 1 => raw()].boxed()
}

pub(super) fn any_pipeline() -> BoxedStrategy<Vec<Bson>> {
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
