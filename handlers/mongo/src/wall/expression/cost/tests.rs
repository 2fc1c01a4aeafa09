//! What grows or loops is behind a check; what is usual passes.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::wall::{At, Budget, Refused};

fn read(expression: &Bson) -> Result<Expression, Refused> {
    let mut budget = Budget {
        stripped: true,
        ..Budget::default()
    };
    Expression::read(expression, &mut budget, &At::root("e"))
}

fn sent(expression: &Bson) -> String {
    let read = read(expression).unwrap();
    read.to_bson(Load::of(&[&read])).to_string()
}

#[test]
fn what_is_handed_on_grows_by_addition() {
    for usual in [
        bson!({"$concatArrays": ["$$value", "$$this"]}),
        bson!({"$concat": ["$$value", {"$cond": [{"$eq": ["$$value", ""]}, "", ","]}, "$$this"]}),
        bson!({"$add": ["$$value", {"$multiply": ["$$value", "$$this.n"]}]}),
        bson!({"$cond": [{"$in": ["$$this", "$$value"]}, "$$value", {"$concatArrays": ["$$value", ["$$this"]]}]}),
        bson!({"sum": {"$add": ["$$value.sum", "$$this"]}, "n": {"$add": ["$$value.n", 1]}}),
        bson!({"$mergeObjects": ["$$value", "$$this"]}),
        bson!({"$setUnion": ["$$value", {"$map": {"input": "$b", "in": {"$toUpper": "$$this"}}}]}),
    ] {
        read(&bson!({"$reduce": {"input": "$a", "initialValue": [], "in": usual}})).unwrap();
    }
    for doubling in [
        bson!({"$concatArrays": ["$$value", "$$value"]}),
        bson!(["$$value", "$$value"]),
        bson!({"a": "$$value", "b": "$$value"}),
        bson!({"$concat": ["$$value", {"$toUpper": "$$value"}]}),
        bson!({"$let": {"vars": {"x": ["$$value"]}, "in": {"$concatArrays": ["$$x", "$$x"]}}}),
        bson!({"$map": {"input": [1, 2], "in": "$$value"}}),
        bson!({"$cond": ["$b", {"$concatArrays": ["$$value", "$$value"]}, ["$$this", "$$this", "$$this"]]}),
        bson!({"$zip": {"inputs": ["$$value", "$$value"]}}),
        bson!({"$concat": ["$$value", {"$reduce": {"input": ["a"], "initialValue": "$$value", "in": "$$value"}}]}),
    ] {
        let reduce =
            bson!({"$reduce": {"input": "$a", "initialValue": [1], "in": doubling.clone()}});
        assert_eq!(read(&reduce).unwrap_err().at, "e.$reduce.in", "{doubling}");
    }
}

#[test]
fn loops_and_copies_are_checked() {
    for checked in [
        bson!({"$map": {"input": "$a", "in": 1}}),
        bson!({"$filter": {"input": "$a", "cond": {"$eq": ["$$this", "$b"]}}}),
        bson!({"$reduce": {"input": "$a", "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}}),
        bson!(["$x", "$x"]),
        bson!({"$concatArrays": ["$x", "$x"]}),
        bson!({"$let": {"vars": {"y": ["$x", 1]}, "in": {"$concatArrays": ["$$y", "$$y"]}}}),
        bson!({"$setUnion": ["$a", [1]]}),
        bson!({"$range": [0, "$n"]}),
        bson!({"$indexOfBytes": ["$s", "$t"]}),
        bson!({"$split": ["$s", ","]}),
        bson!({"$regexMatch": {"input": "$s", "regex": "a*b"}}),
    ] {
        assert!(sent(&checked).contains(MARK), "{checked}");
    }
    for free in [
        bson!("$a"),
        bson!({"$add": ["$a", {"$multiply": ["$b", "$c"]}]}),
        bson!({"$cond": [{"$eq": ["$a", "$b"]}, "$a", "$b"]}),
        bson!({"$range": [0, 100]}),
        bson!({"$size": "$a"}),
        bson!({"$toUpper": "$s"}),
    ] {
        assert!(!sent(&free).contains(MARK), "{free}");
    }
    // Two loops share what one may cost.
    let two = bson!({"$add": [{"$size": {"$map": {"input": "$a", "in": 1}}}, {"$size": {"$map": {"input": "$a", "in": 1}}}]});
    assert!(sent(&two).contains("50000000"));
}

#[test]
fn variables_of_ours_are_not_bound() {
    for bad in [
        bson!({"$let": {"vars": {"posternTimes0": 0}, "in": 1}}),
        bson!({"$map": {"input": "$a", "as": "posternIn0", "in": 1}}),
    ] {
        read(&bad).unwrap_err();
    }
    read(&bson!({"$let": {"vars": {"x": 1}, "in": "$$posternTimes0"}})).unwrap_err();
}
