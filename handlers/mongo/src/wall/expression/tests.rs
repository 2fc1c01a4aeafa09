//! Expressions: what passes as it is, and what is named.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bson::bson;

use super::*;

fn read(expression: &Bson) -> Result<Expression, Refused> {
    let mut budget = Budget {
        stripped: true,
        ..Budget::default()
    };
    Expression::read(expression, &mut budget, &At::root("e"))
}

#[test]
fn what_passes_stays_as_it_is() {
    for expression in [
        bson!("$a.b"),
        bson!("text"),
        bson!("$$ROOT"),
        bson!("$$NOW"),
        bson!({"$add": ["$a", 1, {"$abs": "$b"}]}),
        bson!({"$size": "$a"}),
        bson!({"$cond": [{"$gt": ["$a", 1]}, "x", "y"]}),
        bson!({"$cond": {"if": true, "then": 1, "else": 2}}),
        bson!({"$literal": "$a"}),
        bson!({"$let": {"vars": {"x": "$a"}, "in": {"$add": ["$$x", 1]}}}),
        bson!({"$switch": {"branches": [{"case": true, "then": 1}], "default": 2}}),
        bson!({"$dateToString": {"date": "$d", "format": "%Y"}}),
        bson!({"x": "$a"}),
        bson!({"$year": {"date": "$d", "timezone": "UTC"}}),
    ] {
        assert_eq!(
            read(&expression).unwrap().to_bson(Load::default()),
            expression,
            "{expression}"
        );
    }
}

#[test]
fn what_does_not_is_named() {
    for (expression, at) in [
        (
            bson!({"$function": {"body": "x", "args": [], "lang": "js"}}),
            "e.$function",
        ),
        (bson!({"$accumulator": {}}), "e.$accumulator"),
        (bson!({"$getField": "_tenantId"}), "e.$getField"),
        (
            bson!({"$add": [1, {"$meta": "textScore"}]}),
            "e.$add[1].$meta",
        ),
        (bson!("$_tenantId"), "e"),
        (bson!("$$ROOT._workspaceId"), "e"),
        (bson!("$$USER_ROLES"), "e"),
        (bson!("$$item"), "e"),
        (
            bson!({"$map": {"input": [], "as": "ROOT", "in": 1}}),
            "e.$map.as",
        ),
        (
            bson!({"$let": {"vars": {"x": 1}, "in": 1, "more": 1}}),
            "e.$let.more",
        ),
        (
            bson!({"$regexMatch": {"input": "$a", "regex": "$b"}}),
            "e.$regexMatch.regex",
        ),
        (
            bson!({"$regexMatch": {"input": "$a", "regex": {"$concat": ["(a+)", "+"]}}}),
            "e.$regexMatch.regex",
        ),
        (bson!({"$add": 1, "$abs": 2}), "e"),
        (bson!({"a": {"_tenantId": 1}}), "e.a._tenantId"),
        (bson!({"$trim": "x"}), "e.$trim"),
        (bson!({"$convert": {"input": 1}}), "e.$convert"),
    ] {
        assert_eq!(read(&expression).unwrap_err().at, at, "{expression}");
    }
}

#[test]
fn the_document_is_closed_while_it_carries_the_tenants_fields() {
    let mut budget = Budget::default();
    for whole in ["$$ROOT", "$$CURRENT", "$$ROOT.a"] {
        assert!(Expression::read(&bson!(whole), &mut budget, &At::root("e")).is_err());
    }
}

#[test]
fn tables_are_sorted_out() {
    let names: Vec<_> = LISTED.iter().collect();
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(names.len(), unique.len());
    for code in [
        "$function",
        "$accumulator",
        "$where",
        "$getField",
        "$setField",
        "$unsetField",
        "$meta",
    ] {
        assert!(!names.contains(&&code), "{code}");
    }
}
