//! Pages that go on behind a document, whatever was inserted meanwhile.
//!
//! Documents are ordered by the keys that the client named, and by `_id` behind them.
//! A position is the last document's keys; what comes behind it is a condition that an
//! index can answer. The server's `$gt` and `$lt` compare within one type, its sort
//! goes over all types, so the types that stand behind are named besides.

use bson::{Array, Bson, Document, doc};

use crate::wall::Sort;

/// Types in the order in which the server sorts them, each under the names that
/// `$type` knows. Null and a missing field are the same to it.
const ORDER: [&[&str]; 14] = [
    &["minKey"],
    &["null"],
    &["number"],
    &["symbol", "string"],
    &["object"],
    &["array"],
    &["binData"],
    &["objectId"],
    &["bool"],
    &["date"],
    &["timestamp"],
    &["regex"],
    &["dbPointer", "javascript", "javascriptWithScope"],
    &["maxKey"],
];
const NULL: usize = 1;

fn rank(value: &Bson) -> usize {
    match value {
        Bson::MinKey => 0,
        Bson::Null | Bson::Undefined => NULL,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => 2,
        Bson::Symbol(_) | Bson::String(_) => 3,
        Bson::Document(_) => 4,
        Bson::Array(_) => 5,
        Bson::Binary(_) => 6,
        Bson::ObjectId(_) => 7,
        Bson::Boolean(_) => 8,
        Bson::DateTime(_) => 9,
        Bson::Timestamp(_) => 10,
        Bson::RegularExpression(_) => 11,
        Bson::DbPointer(_) | Bson::JavaScriptCode(_) | Bson::JavaScriptCodeWithScope(_) => 12,
        Bson::MaxKey => 13,
    }
}

/// An order that no two documents share a place in.
pub(crate) fn total(sort: &Sort) -> Sort {
    let mut keys = sort.0.clone();
    if !keys.iter().any(|(path, _)| path == "_id") {
        keys.push(("_id".to_owned(), 1));
    }
    Sort(keys)
}

/// The text of a position. None where a key is an array: the server sorts by one of its
/// elements, so there is no one place behind it.
pub(crate) fn position(keys: Array) -> Option<String> {
    if keys.iter().any(|key| matches!(key, Bson::Array(_))) {
        return None;
    }
    Some(Bson::Array(keys).into_canonical_extjson().to_string())
}

/// What stands behind a position in this order; none when it is no position of it.
pub(crate) fn behind(sort: &Sort, position: &str) -> Option<Document> {
    let json: serde_json::Value = serde_json::from_str(position).ok()?;
    let Ok(Bson::Array(last)) = Bson::try_from(json) else {
        return None;
    };
    if last.len() != sort.0.len() {
        return None;
    }
    let keys: Vec<_> = sort.0.iter().zip(&last).collect();
    let mut places = Vec::with_capacity(keys.len());
    for (at, ((path, direction), value)) in keys.iter().enumerate() {
        let mut place: Vec<Document> = keys
            .iter()
            .take(at)
            .map(|((path, _), value)| doc! { path: { "$eq": (*value).clone() } })
            .collect();
        place.push(beyond(path, *direction > 0, value));
        places.push(doc! { "$and": place });
    }
    Some(doc! { "$or": places })
}

/// The server takes every NaN for the same number, of whichever type and sign.
fn is_nan(value: &Bson) -> bool {
    match value {
        Bson::Double(number) => number.is_nan(),
        Bson::Decimal128(number) => number.to_string().ends_with("NaN"),
        _ => false,
    }
}

/// Values of one key that come after this one.
fn beyond(path: &str, ascending: bool, value: &Bson) -> Document {
    let nan = is_nan(value);
    let rank = rank(value);
    let mut any = Vec::new();
    // Within the type; NaN is the smallest number, and compares with none.
    match (ascending, nan) {
        _ if rank == NULL => {}
        (true, true) => any.push(doc! { path: { "$gte": f64::NEG_INFINITY } }),
        (false, true) => {}
        (true, false) => any.push(doc! { path: { "$gt": value.clone() } }),
        (false, false) => {
            any.push(doc! { path: { "$lt": value.clone() } });
            if rank == 2 {
                any.push(doc! { path: { "$eq": f64::NAN } });
            }
        }
    }
    let others = if ascending {
        ORDER.get(rank + 1..)
    } else {
        ORDER.get(..rank)
    };
    let names: Vec<&str> = others
        .unwrap_or_default()
        .iter()
        .flat_map(|names| names.iter().copied())
        .filter(|name| *name != "null")
        .collect();
    if !names.is_empty() {
        any.push(doc! { path: { "$type": names } });
    }
    if !ascending && rank > NULL {
        // Missing fields, too.
        any.push(doc! { path: { "$eq": Bson::Null } });
    }
    if ascending && rank < NULL {
        any.push(doc! { path: { "$eq": Bson::Null } });
    }
    if any.is_empty() {
        // Nothing comes after the greatest.
        return doc! { path: { "$in": [] } };
    }
    doc! { "$or": any }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn sort(keys: &[(&str, i32)]) -> Sort {
        Sort(
            keys.iter()
                .map(|(path, direction)| ((*path).to_owned(), *direction))
                .collect(),
        )
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let keys = vec![
            Bson::Int64(7),
            Bson::Double(f64::NAN),
            Bson::Null,
            Bson::String("x".into()),
        ];
        let text = position(keys).unwrap();
        let sort = sort(&[("a", 1), ("b", -1), ("c", 1), ("_id", 1)]);
        assert!(behind(&sort, &text).is_some());
        assert!(
            behind(&total(&Sort::default()), &text).is_none(),
            "another order"
        );
        assert!(position(vec![Bson::Array(Vec::new())]).is_none());
    }

    #[test]
    fn nothing_is_behind_itself() {
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        let equal_to_nan = doc! { "a": { "$eq": f64::NAN } }.to_string();
        for nan in [Bson::Double(f64::NAN), decimal("NaN"), decimal("-NaN")] {
            let down = beyond("a", false, &nan).to_string();
            assert!(!down.contains(&equal_to_nan), "{down}");
            assert!(!down.contains("$lt"), "{down}");
            let up = beyond("a", true, &nan).to_string();
            assert!(up.contains("$gte"), "{up}");
        }
        let one = beyond("a", false, &decimal("1")).to_string();
        assert!(one.contains("$lt") && one.contains(&equal_to_nan), "{one}");
    }

    #[test]
    fn an_order_is_total() {
        assert_eq!(total(&sort(&[("a", -1)])).0.len(), 2);
        assert_eq!(total(&sort(&[("_id", -1)])).0.len(), 1);
    }
}
