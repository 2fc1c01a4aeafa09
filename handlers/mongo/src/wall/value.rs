//! Values: extended JSON in, BSON out, bounded.
//!
//! Numbers keep their type: a whole number is an int32 where it fits, else an int64;
//! one with a point or an exponent is a double; `{"$numberDecimal": "…"}` is a Decimal128.
//! What does not fit is refused, not rounded.

use bson::{Bson, Document};
use serde_json::Value;

use super::{At, Refused, TENANT, WORKSPACE, path};

/// The deepest value. The server takes 100, of which the wall's own operators need some.
pub(super) const MAX_DEPTH: usize = 64;

/// A value as a client wrote it, in relaxed or canonical extended JSON (v2).
///
/// # Errors
/// Where it is no extended JSON, too deep, or of a type that is code.
pub(crate) fn value(json: Value, at: &At<'_>) -> Result<Bson, Refused> {
    shallow(&json, MAX_DEPTH, at)?;
    let value = Bson::try_from(json)
        .map_err(|error| at.refused(format!("is no extended JSON: {error}")))?;
    plain(&value, at)?;
    Ok(value)
}

/// Text as JSON, every whole number of which an int64 holds: the parser would round others.
///
/// # Errors
/// Where it is no JSON, or names a number that is not kept.
pub(crate) fn json(text: &[u8], at: &At<'_>) -> Result<Value, Refused> {
    let json = serde_json::from_slice(text)
        .map_err(|error| at.refused(format!("must be JSON: {error}")))?;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b'"' => rest = after_string(after),
            b'-' | b'0'..=b'9' => {
                let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let end = rest.iter().position(|byte| !part(byte));
                let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
                if is_beyond(&String::from_utf8_lossy(number)) {
                    return Err(at.refused(BEYOND));
                }
                rest = after;
            }
            _ => rest = after,
        }
    }
    Ok(json)
}

/// What follows a string's closing quote.
fn after_string(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest {
            [b'\\', _, after @ ..] => rest = after,
            [b'"', after @ ..] => return after,
            [_, after @ ..] => rest = after,
            [] => return rest,
        }
    }
}

/// What to do with a whole number that is none of 64 bits.
pub(crate) const BEYOND: &str = "has a whole number outside -2^63 to 2^63-1; write it as {\"$numberDecimal\": \"…\"}, or in quotes as a text";

/// Whether this is a whole number in JSON, but none that an int64 holds.
#[must_use]
pub(crate) fn is_beyond(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    whole && (digits == "0" || !digits.starts_with('0')) && text.parse::<i64>().is_err()
}

/// Depth, before anything recurses over the value again.
fn shallow(json: &Value, left: usize, at: &At<'_>) -> Result<(), Refused> {
    let deeper = || {
        left.checked_sub(1)
            .ok_or_else(|| at.refused(format!("is nested more than {MAX_DEPTH} deep")))
    };
    match json {
        Value::Array(items) => {
            let left = deeper()?;
            items.iter().try_for_each(|item| shallow(item, left, at))
        }
        Value::Object(fields) => {
            let left = deeper()?;
            fields
                .values()
                .try_for_each(|field| shallow(field, left, at))
        }
        Value::Number(number) if number.is_u64() && !number.is_i64() => Err(at.refused(BEYOND)),
        _ => Ok(()),
    }
}

/// No code, and no types that the server knows from long ago only.
fn plain(value: &Bson, at: &At<'_>) -> Result<(), Refused> {
    match value {
        Bson::Array(items) => items.iter().try_for_each(|item| plain(item, at)),
        Bson::Document(fields) => fields.values().try_for_each(|field| plain(field, at)),
        Bson::JavaScriptCode(_)
        | Bson::JavaScriptCodeWithScope(_)
        | Bson::Symbol(_)
        | Bson::Undefined
        | Bson::DbPointer(_) => Err(at.refused(
            "has a value of a type that is not taken: code, symbol, undefined or a pointer",
        )),
        _ => Ok(()),
    }
}

/// A value that is stored: every name in it must be one that can be asked for later.
pub(crate) fn stored(value: &Bson, at: &At<'_>) -> Result<(), Refused> {
    match value {
        Bson::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                stored(item, &at.index(index))?;
            }
            Ok(())
        }
        Bson::Document(fields) => {
            for (name, field) in fields {
                let at = at.field(name);
                path::field_name(name).map_err(|rule| at.refused(rule))?;
                stored(field, &at)?;
            }
            Ok(())
        }
        Bson::RegularExpression(_) | Bson::MinKey | Bson::MaxKey => {
            Err(at.refused("is of a type that is for filters only"))
        }
        // The server would store its own clock, and the answer would not be what is stored.
        Bson::Timestamp(bson::Timestamp {
            time: 0,
            increment: 0,
        }) => {
            Err(at
                .refused("is the timestamp {t: 0, i: 0}; use $currentDate for the server's clock"))
        }
        _ => Ok(()),
    }
}

/// A whole document that is stored: as [`stored`], without the tenant's fields.
pub(crate) fn document(document: &Document, at: &At<'_>) -> Result<(), Refused> {
    for name in [TENANT, WORKSPACE] {
        if document.contains_key(name) {
            return Err(at.field(name).refused("is not yours to write"));
        }
    }
    if let Some(id) = document.get("_id") {
        id_type(id, &at.field("_id"))?;
    }
    for (name, field) in document {
        let at = at.field(name);
        path::field_name(name).map_err(|rule| at.refused(rule))?;
        stored(field, &at)?;
    }
    Ok(())
}

pub(super) fn id_type(id: &Bson, at: &At<'_>) -> Result<(), Refused> {
    match id {
        Bson::ObjectId(_)
        | Bson::String(_)
        | Bson::Int32(_)
        | Bson::Int64(_)
        | Bson::Double(_)
        | Bson::Decimal128(_) => Ok(()),
        Bson::Binary(binary) if binary.subtype == bson::spec::BinarySubtype::Uuid => Ok(()),
        _ => Err(at.refused("must be an ObjectId, a string, a number or a UUID")),
    }
}

/// An id as it stands in a path: 24 hex digits are an ObjectId, the usual form a UUID,
/// digits a number, `"…"` whatever is in it as a string, and anything else a string.
#[must_use]
pub(crate) fn id(text: &str) -> Bson {
    if let Ok(id) = bson::oid::ObjectId::parse_str(text) {
        return Bson::ObjectId(id);
    }
    if text.len() == 36
        && let Ok(uuid) = bson::Uuid::parse_str(text)
    {
        return uuid.into();
    }
    match serde_json::from_str(text) {
        Ok(Value::String(text)) => Some(Bson::String(text)),
        Ok(Value::Number(it)) if !is_beyond(text) => number(&it),
        _ => None,
    }
    .unwrap_or_else(|| Bson::String(text.to_owned()))
}

/// A JSON number, unless it would lose something.
#[must_use]
pub(crate) fn number(number: &serde_json::Number) -> Option<Bson> {
    match number.as_i64() {
        Some(whole) => Some(i32::try_from(whole).map_or(Bson::Int64(whole), Bson::Int32)),
        None if number.is_u64() => None,
        None => number.as_f64().map(Bson::Double),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> Result<Bson, Refused> {
        value(json, &At::root("document"))
    }

    #[test]
    fn whole_numbers_are_not_rounded() {
        let read = |text: &str| json(text.as_bytes(), &At::root("body"));
        for good in [
            "9223372036854775807",
            "[-9223372036854775808, 0, -0]",
            "{\"9223372036854775808\": \"\\\"9223372036854775808\"}",
            "[1e30, 18446744073709551617.0, -1.5E+300]",
        ] {
            read(good).unwrap();
        }
        for bad in [
            "9223372036854775808",
            "{\"a\": [1, -9223372036854775809]}",
            "{\"a\\\\\": 18446744073709551617}",
            "[1,123456789012345678901234567890]",
        ] {
            assert!(
                read(bad).unwrap_err().reason.contains("$numberDecimal"),
                "{bad}"
            );
        }
        assert!(read("{\"a\":").is_err());
    }

    #[test]
    fn numbers_keep_their_type() {
        assert_eq!(read(json!(7)).unwrap(), Bson::Int32(7));
        assert_eq!(read(json!(i64::MAX)).unwrap(), Bson::Int64(i64::MAX));
        assert_eq!(read(json!(7.0)).unwrap(), Bson::Double(7.0));
        assert!(matches!(
            read(json!({"$numberDecimal": "1.10"})).unwrap(),
            Bson::Decimal128(_)
        ));
        assert!(read(json!(u64::MAX)).is_err());
    }

    #[test]
    fn code_and_depth_are_refused() {
        assert!(read(json!({"a": {"$code": "while(true){}"}})).is_err());
        let mut deep = json!(1);
        for _ in 0..=MAX_DEPTH {
            deep = json!([deep]);
        }
        assert!(read(deep).unwrap_err().reason.contains("deep"));
    }

    #[test]
    fn stored_names() {
        for bad in [
            json!({"$a": 1}),
            json!({"a": [{"b.c": 1}]}),
            json!({"": 1}),
            json!({"a\0": 1}),
            json!({"_tenantId": "x"}),
            json!({"_id": [1]}),
            json!({"a": {"$timestamp": {"t": 0, "i": 0}}}),
        ] {
            let Ok(Bson::Document(fields)) = read(bad.clone()) else {
                continue;
            };
            assert!(document(&fields, &At::root("document")).is_err(), "{bad}");
        }
        let good =
            read(json!({"_id": "a", "__proto__": {"constructor": 1}, "nested": {"_tenantId": 1}}))
                .unwrap();
        document(good.as_document().unwrap(), &At::root("document")).unwrap();
    }

    #[test]
    fn ids_in_paths() {
        assert!(matches!(id("507f1f77bcf86cd799439011"), Bson::ObjectId(_)));
        assert!(matches!(
            id("67e55044-10b1-426f-9247-bb680e5fe0c8"),
            Bson::Binary(_)
        ));
        assert_eq!(id("42"), Bson::Int32(42));
        assert_eq!(id("\"42\""), Bson::String("42".into()));
        assert_eq!(id("4x"), Bson::String("4x".into()));
        assert_eq!(
            id("18446744073709551615"),
            Bson::String("18446744073709551615".into())
        );
        assert_eq!(
            id("18446744073709551617"),
            Bson::String("18446744073709551617".into())
        );
    }
}
