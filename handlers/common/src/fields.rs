//! Reading a JSON object field by field, so that a refusal lists every bad one.
//!
//! [`Fields`] collects complaints instead of returning at the first; what the
//! reader never asked for is unknown and refused as well, and so is a name that stands
//! twice: readers of JSON differ on which of the two counts (RFC 8259, 4).

use std::fmt;

use postern_contract::Detail;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::Failure;

/// The members of a body, and what is wrong with them so far.
#[derive(Debug)]
pub struct Fields {
    members: Map<String, Value>,
    known: Vec<&'static str>,
    details: Vec<Detail>,
}

/// What a PATCH says of a field (RFC 7396).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch<T> {
    /// Not named: it stays.
    Keep,
    /// `null`: it goes.
    Remove,
    /// A new value.
    Set(T),
}

impl Fields {
    /// Reads a body that has to be one JSON object.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` when it is not JSON, nested deeper than 128 levels, or not an object.
    pub fn parse(body: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            Failure::invalid_field("body", format!("must be a JSON object: {error}"))
        })
    }

    /// A member, taken out; `null` counts as a value.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.members.remove(name)
    }

    /// Notes a complaint.
    pub fn complain(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.details.push(Detail::new(field, reason));
    }

    /// A member that has to be there.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(name) {
            Some(value) => self.judge(name, read(value)),
            None => {
                self.complain(name, "is required");
                None
            }
        }
    }

    /// A member that may be absent or `null`.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.judge(name, read(value)),
        }
    }

    /// A member of a merge patch that cannot be removed.
    pub fn patch<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(name) {
            None => None,
            Some(Value::Null) => {
                self.complain(name, "cannot be removed");
                None
            }
            Some(value) => self.judge(name, read(value)),
        }
    }

    /// A member of a merge patch that can be removed.
    pub fn patch_removable<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Patch<T> {
        match self.take(name) {
            None => Patch::Keep,
            Some(Value::Null) => Patch::Remove,
            Some(value) => self
                .judge(name, read(value))
                .map_or(Patch::Keep, Patch::Set),
        }
    }

    fn judge<T>(&mut self, name: &'static str, read: Result<T, String>) -> Option<T> {
        read.map_err(|reason| self.complain(name, reason)).ok()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` with every complaint, unknown members included.
    pub fn finish(mut self) -> Result<(), Failure> {
        let known = self.known.join(", ");
        for name in self.members.keys().take(MAX_DETAILS) {
            self.details.push(Detail::new(
                shown(name),
                format!("is not known here; known are {known}"),
            ));
        }
        if self.details.is_empty() {
            Ok(())
        } else {
            Err(Failure::invalid(self.details))
        }
    }
}

/// Of each kind of complaint: a body may have a hundred thousand members.
const MAX_DETAILS: usize = 50;

/// A member's name, for a complaint.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let (mut members, mut details) = (Map::new(), Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.contains_key(&name) && details.len() < MAX_DETAILS {
                        details.push(Detail::new(shown(&name), "stands twice: name it once"));
                    }
                    members.insert(name, value);
                }
                Ok(Fields {
                    members,
                    known: Vec::new(),
                    details,
                })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The value's kind, for messages.
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A text without control characters, `min` to `max` characters after trimming.
pub fn text(min: usize, max: usize) -> impl Fn(Value) -> Result<String, String> {
    move |value| {
        let Value::String(text) = value else {
            return Err(format!("must be a string, not {}", kind(&value)));
        };
        if text.chars().any(char::is_control) {
            return Err("must not hold control characters".into());
        }
        let text = text.trim().to_owned();
        let length = text.chars().count();
        if (min..=max).contains(&length) {
            Ok(text)
        } else {
            Err(format!("must have {min} to {max} characters"))
        }
    }
}

/// `^[a-z][a-z0-9-]{1,61}[a-z0-9]$`.
///
/// # Errors
/// The rule, when the value breaks it.
pub fn slug(value: Value) -> Result<String, String> {
    let rule = || {
        "must be 3 to 63 characters of a-z, 0-9 and -, starting with a letter and not ending with -"
            .to_owned()
    };
    let Value::String(slug) = value else {
        return Err(rule());
    };
    let bytes = slug.as_bytes();
    let good = (3..=63).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last() != Some(&b'-')
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if good { Ok(slug) } else { Err(rule()) }
}

/// A mail address as far as one can tell without sending mail.
///
/// # Errors
/// The rule, when the value breaks it.
pub fn email(value: Value) -> Result<String, String> {
    let address = text(3, 254)(value)?;
    let good = address.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && domain.contains('.')
            && domain.split('.').all(|label| !label.is_empty())
            && !address.contains(char::is_whitespace)
            && !domain.contains('@')
    });
    if good {
        Ok(address)
    } else {
        Err("must be a mail address".into())
    }
}

/// An id of one kind.
///
/// # Errors
/// The id's rule, when the value breaks it.
pub fn id<T: std::str::FromStr<Err = postern_contract::id::IdError>>(
    value: Value,
) -> Result<T, String> {
    match value {
        Value::String(text) => text
            .parse()
            .map_err(|error: postern_contract::id::IdError| error.to_string()),
        other => Err(format!("must be a string, not {}", kind(&other))),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_bad_field_is_listed() {
        let mut fields = Fields::parse(br#"{"slug":"A","surprise":1,"plan":7}"#).unwrap();
        fields.required("slug", slug);
        fields.required("displayName", text(1, 100));
        fields.optional("plan", text(1, 10));
        let verdict_failure = fields.finish().unwrap_err();
        let verdict = verdict_failure.verdict();
        let named: Vec<_> = verdict
            .details
            .iter()
            .map(|detail| detail.field.as_str())
            .collect();
        assert_eq!(named, ["slug", "displayName", "plan", "surprise"]);
        assert_eq!(verdict.status, 400);
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        let mut fields = Fields::parse(br#"{"slug":"abc","plan":"x","sl\u0075g":"abd"}"#).unwrap();
        fields.required("slug", slug);
        fields.required("plan", text(1, 10));
        let failure = fields.finish().unwrap_err();
        let verdict = failure.verdict();
        assert_eq!((verdict.status, verdict.details.len()), (400, 1));
        assert_eq!(verdict.message, "slug stands twice: name it once");
        let many = format!("{{{}\"a\":1}}", r#""a":1,"#.repeat(100_000));
        let failure = Fields::parse(many.as_bytes())
            .unwrap()
            .finish()
            .unwrap_err();
        assert!(failure.verdict().details.len() <= 2 * MAX_DETAILS);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = "[".repeat(20_000);
        for body in [
            "",
            "null",
            "[]",
            "7",
            "{",
            "\u{0}",
            "{\"a\":\"\\ud800\"}",
            deep.as_str(),
        ] {
            assert_eq!(
                Fields::parse(body.as_bytes()).unwrap_err().verdict().status,
                400,
                "{body:.10}"
            );
        }
        assert!(Fields::parse(b"\xff").is_err());
    }

    #[test]
    fn merge_patch_tells_absent_from_null() {
        let mut fields = Fields::parse(br#"{"a":null,"b":"x"}"#).unwrap();
        assert_eq!(fields.patch_removable("a", text(1, 9)), Patch::Remove);
        assert_eq!(
            fields.patch_removable("b", text(1, 9)),
            Patch::Set("x".into())
        );
        assert_eq!(fields.patch_removable("c", text(1, 9)), Patch::Keep);
        fields.finish().unwrap();
    }

    #[test]
    fn rules() {
        for good in ["abc", "a-1", "acme-corp", &"a".repeat(63)] {
            assert!(slug(json!(good)).is_ok(), "{good}");
        }
        for bad in [
            json!("ab"),
            json!("1ab"),
            json!("ab-"),
            json!("Abc"),
            json!("a_b"),
            json!("a".repeat(64)),
            json!(7),
        ] {
            assert!(slug(bad.clone()).is_err(), "{bad}");
        }
        assert!(email(json!("admin@acme.example.com")).is_ok());
        for bad in [
            "",
            "a@b",
            "@b.c",
            "a@b@c.d",
            "a b@c.d",
            "a@.b",
            "a@b.c\u{0}",
        ] {
            assert!(email(json!(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(text(1, 5)(json!("  hi ")).unwrap(), "hi");
        assert!(text(1, 5)(json!("   ")).is_err());
    }
}
