//! Free data of the operator on a tenant: an object, merged by PATCH (RFC 7396).

use postern_common::fields::kind;
use serde_json::{Map, Value};

/// Bytes of its JSON form.
const MAX: usize = 16 << 10;

pub(crate) fn read(value: Value) -> Result<Map<String, Value>, String> {
    let Value::Object(map) = value else {
        return Err(format!("must be an object, not {}", kind(&value)));
    };
    bounded(&map)?;
    let value = Value::Object(map);
    if holds_nul(&value) {
        return Err("must not hold U+0000".into());
    }
    match value {
        Value::Object(map) => Ok(map),
        _ => Err("must be an object".into()),
    }
}

pub(crate) fn bounded(map: &Map<String, Value>) -> Result<(), String> {
    let length = serde_json::to_string(map).map_or(usize::MAX, |text| text.len());
    if length <= MAX {
        Ok(())
    } else {
        Err(format!("may have at most {MAX} bytes as JSON"))
    }
}

/// PostgreSQL's jsonb has no U+0000. The depth is bounded by the parser's 128.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// RFC 7396, section 2: null removes, objects merge, everything else replaces.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(inner) => {
                let slot = target.entry(name.clone()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(slot) = slot {
                    merge(slot, inner);
                }
            }
            other => {
                target.insert(name.clone(), other.clone());
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    /// The cases of RFC 7396, appendix A, whose documents are objects.
    #[test]
    fn merges_as_the_rfc_says() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let mut merged = target.as_object().unwrap().clone();
            merge(&mut merged, patch.as_object().unwrap());
            assert_eq!(Value::Object(merged), result, "{target} + {patch}");
        }
    }

    #[test]
    fn bounds() {
        assert!(read(json!([])).is_err());
        assert!(read(json!({"a": {"b": ["\u{0}"]}})).is_err());
        assert!(read(json!({"a": "x".repeat(MAX)})).is_err());
        assert!(read(json!({"a": 1})).is_ok());
    }
}
