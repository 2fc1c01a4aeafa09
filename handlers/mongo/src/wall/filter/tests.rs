//! Filters: what passes and means the same, and what is named.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::wall::Wall;

fn read(filter: Document) -> Result<Filter, Refused> {
    Filter::read(&filter, &mut Budget::default(), &At::root("filter"))
}

#[test]
fn what_passes_means_the_same() {
    for (filter, rebuilt) in [
        (doc! {}, doc! {}),
        (doc! {"a": 1}, doc! {"a": {"$eq": 1}}),
        (
            doc! {"a.b": {"$gt": 1, "$lt": 5}},
            doc! {"a.b": {"$gt": 1, "$lt": 5}},
        ),
        (
            doc! {"a": {"$regex": "^x", "$options": "i"}},
            doc! {"a": {"$options": "i", "$regex": "^x"}},
        ),
        (
            doc! {"$or": [{"a": 1}, {"b": {"$in": [1, "x"]}}], "c": {"$not": {"$size": 2}}},
            doc! {"$and": [{"$or": [{"a": {"$eq": 1}}, {"b": {"$in": [1, "x"]}}]}, {"c": {"$not": {"$size": 2_i64}}}]},
        ),
        (
            doc! {"a": {"$elemMatch": {"$gt": 1}}},
            doc! {"a": {"$elemMatch": {"$gt": 1}}},
        ),
        (
            doc! {"a": {"$elemMatch": {"b": 1}}},
            doc! {"a": {"$elemMatch": {"b": {"$eq": 1}}}},
        ),
        (doc! {"a": {}}, doc! {"a": {"$eq": {}}}),
    ] {
        assert_eq!(read(filter.clone()).unwrap().to_bson(), rebuilt, "{filter}");
    }
}

#[test]
fn what_does_not_is_named() {
    for (filter, at) in [
        (doc! {"$where": "1"}, "filter.$where"),
        (doc! {"a": {"$where": "1"}}, "filter.a.$where"),
        (
            doc! {"$or": [{"b": 1}, {"$jsonSchema": {}}]},
            "filter.$or[1].$jsonSchema",
        ),
        (doc! {"_tenantId": "t"}, "filter._tenantId"),
        (
            doc! {"$nor": [{"_workspaceId.x": {"$exists": true}}]},
            "filter.$nor[0]._workspaceId.x",
        ),
        (doc! {"a": {"$eq": {"$gt": 1}}}, "filter.a.$eq"),
        (doc! {"a": {"$gt": 1, "b": 2}}, "filter.a.b"),
        (doc! {"a": {"b": 1, "$gt": 2}}, "filter.a"),
        (doc! {"a": {"$options": "i"}}, "filter.a.$options"),
        (
            doc! {"a": {"$regex": "x", "$options": "e"}},
            "filter.a.$regex",
        ),
        (doc! {"$and": []}, "filter.$and"),
        (doc! {"$expr": {"$function": {}}}, "filter.$expr.$function"),
        (
            doc! {"$expr": {"$eq": ["$_tenantId", 1]}},
            "filter.$expr.$eq[0]",
        ),
        (
            doc! {"$expr": {"$eq": ["$$ROOT", 1]}},
            "filter.$expr.$eq[0]",
        ),
        (doc! {"$text": {"$search": "x"}}, "filter.$text"),
        (
            doc! {"a": {"$in": [Bson::RegularExpression(bson::Regex { pattern: "x".into(), options: String::new() })]}},
            "filter.a.$in",
        ),
    ] {
        assert_eq!(read(filter.clone()).unwrap_err().at, at, "{filter}");
    }
}

#[test]
fn the_predicate_stays_whatever_is_asked() {
    let wall = Wall::new("t", "w");
    let asked = read(doc! {"$or": [{"a": 1}, {"a": {"$exists": false}}]}).unwrap();
    let whole = wall.and(&asked);
    assert_eq!(whole.get_str("_tenantId").unwrap(), "t");
    assert_eq!(whole.get_str("_workspaceId").unwrap(), "w");
    assert!(whole.contains_key("$and"));
    assert_eq!(wall.and(&Filter::default()), wall.predicate());
}

/// Whatever order the server puts conditions in, it computes of nobody else's documents.
#[test]
fn what_is_computed_is_behind_the_predicate() {
    let wall = Wall::new("t", "w");
    let filter = doc! {"$or": [{"$expr": {"$toInt": "$secret"}}, {"$nor": [{"$expr": "$a"}]}]};
    let text = wall.and(&read(filter).unwrap()).to_string();
    let guarded = format!("\"$expr\": {{ \"$cond\": [{}", wall.holds());
    assert_eq!(text.matches("$expr").count(), 2);
    assert_eq!(text.matches(&guarded).count(), 2, "{text}");
}

#[test]
fn upserts_store_what_inserts_may() {
    let upserts = |filter: Document| read(filter).unwrap().upserts(&At::root("filter"));
    for good in [
        doc! {"_id": "a", "n": {"$gt": 1}},
        doc! {"a.b": {"$in": [1]}},
        doc! {"_id": {"$type": "object"}},
    ] {
        upserts(good).unwrap();
    }
    for bad in [
        doc! {"_id": {"a": 1}},
        doc! {"_id": true},
        doc! {"_id": {"$in": [Bson::Null]}},
        doc! {"_id.x": 5},
        doc! {"$and": [{"$or": [{"q": {"a.b": 1}}]}]},
        doc! {"r": Bson::MinKey},
        doc! {"a": {"$all": [{"": 1}]}},
        doc! {"$expr": "$a"},
    ] {
        assert!(upserts(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn depth_size_and_patterns_are_bounded() {
    let mut deep = doc! {"a": 1};
    for _ in 0..100 {
        deep = doc! {"$and": [deep]};
    }
    assert!(read(deep).unwrap_err().reason.contains("levels"));
    let wide: Document = (0..3_000)
        .map(|n| (format!("f{n}"), Bson::Int32(n)))
        .collect();
    assert!(
        read(wide)
            .unwrap_err()
            .reason
            .contains("operators and fields")
    );
    assert!(read(doc! {"a": {"$in": vec![1; 1_001]}}).is_err());
    let regexes: Document = (0..9)
        .map(|n| (format!("f{n}"), Bson::Document(doc! {"$regex": "x"})))
        .collect();
    assert!(read(regexes).unwrap_err().reason.contains("regular"));
    assert!(read(doc! {"a": {"$regex": "x".repeat(300)}}).is_err());
}
