//! BSON as extended JSON (v2), written straight into an answer's body: relaxed unless
//! the client asks for the canonical form. The tenant's fields stay inside.
//!
//! The specification is `extended-json/extended-json.md` of mongodb/specifications.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bson::raw::{RawArray, RawBsonRef, RawDocument};
use bson::{DateTime, Timestamp};
use postern_common::Failure;

use crate::wall::{TENANT, WORKSPACE};

/// How numbers and dates are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Plain JSON where it says all there is to say.
    #[default]
    Relaxed,
    /// Every value with its type.
    Canonical,
}

/// Writes a document; the tenant's fields are left out of it, at the top only, where
/// they are ours.
///
/// # Errors
/// When the server sent bytes that are no BSON.
pub(crate) fn document(
    document: &RawDocument,
    form: Form,
    body: &mut Vec<u8>,
) -> Result<(), Failure> {
    fields(document, form, body, |name| {
        name != TENANT && name != WORKSPACE
    })
}

fn fields(
    document: &RawDocument,
    form: Form,
    body: &mut Vec<u8>,
    shown: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    body.push(b'{');
    let mut first = true;
    for field in document {
        let (name, value) = field.map_err(Failure::internal)?;
        if !shown(name) {
            continue;
        }
        if !first {
            body.push(b',');
        }
        first = false;
        text(name, body)?;
        body.push(b':');
        self::value(value, form, body)?;
    }
    body.push(b'}');
    Ok(())
}

fn array(items: &RawArray, form: Form, body: &mut Vec<u8>) -> Result<(), Failure> {
    body.push(b'[');
    let mut first = true;
    for item in items {
        if !first {
            body.push(b',');
        }
        first = false;
        value(item.map_err(Failure::internal)?, form, body)?;
    }
    body.push(b']');
    Ok(())
}

fn text(text: &str, body: &mut Vec<u8>) -> Result<(), Failure> {
    serde_json::to_writer(body, text).map_err(Failure::internal)
}

/// One value.
///
/// # Errors
/// As [`document`].
pub(crate) fn value(value: RawBsonRef<'_>, form: Form, body: &mut Vec<u8>) -> Result<(), Failure> {
    let canonical = form == Form::Canonical;
    // Writing into memory does not fail.
    let mut write = |args: std::fmt::Arguments<'_>| body.write_fmt(args).map_err(Failure::internal);
    match value {
        RawBsonRef::String(string) => text(string, body),
        RawBsonRef::Document(nested) => fields(nested, form, body, |_| true),
        RawBsonRef::Array(items) => array(items, form, body),
        RawBsonRef::Null | RawBsonRef::Undefined => write(format_args!("null")),
        RawBsonRef::Boolean(value) => write(format_args!("{value}")),
        RawBsonRef::Int32(number) if canonical => {
            write(format_args!("{{\"$numberInt\":\"{number}\"}}"))
        }
        RawBsonRef::Int32(number) => write(format_args!("{number}")),
        RawBsonRef::Int64(number) if canonical => {
            write(format_args!("{{\"$numberLong\":\"{number}\"}}"))
        }
        RawBsonRef::Int64(number) => write(format_args!("{number}")),
        RawBsonRef::Double(number) => double(number, canonical, body),
        RawBsonRef::Decimal128(number) => {
            write(format_args!("{{\"$numberDecimal\":\"{number}\"}}"))
        }
        RawBsonRef::ObjectId(id) => write(format_args!("{{\"$oid\":\"{}\"}}", id.to_hex())),
        RawBsonRef::DateTime(date) => self::date(date, canonical, body),
        RawBsonRef::Binary(binary) => {
            let bytes = BASE64_STANDARD.encode(binary.bytes);
            let subtype = u8::from(binary.subtype);
            write(format_args!(
                "{{\"$binary\":{{\"base64\":\"{bytes}\",\"subType\":\"{subtype:02x}\"}}}}"
            ))
        }
        RawBsonRef::Timestamp(Timestamp { time, increment }) => write(format_args!(
            "{{\"$timestamp\":{{\"t\":{time},\"i\":{increment}}}}}"
        )),
        RawBsonRef::RegularExpression(regex) => {
            write(format_args!("{{\"$regularExpression\":{{\"pattern\":"))?;
            text(regex.pattern, body)?;
            body.extend_from_slice(b",\"options\":");
            text(regex.options, body)?;
            body.extend_from_slice(b"}}");
            Ok(())
        }
        RawBsonRef::MinKey => write(format_args!("{{\"$minKey\":1}}")),
        RawBsonRef::MaxKey => write(format_args!("{{\"$maxKey\":1}}")),
        // Written by somebody past this API; shown as what they hold.
        RawBsonRef::JavaScriptCode(code) | RawBsonRef::Symbol(code) => text(code, body),
        RawBsonRef::JavaScriptCodeWithScope(code) => text(code.code, body),
        RawBsonRef::DbPointer(_) => write(format_args!("null")),
    }
}

fn double(number: f64, canonical: bool, body: &mut Vec<u8>) -> Result<(), Failure> {
    let name = if number.is_nan() {
        "NaN"
    } else if number == f64::INFINITY {
        "Infinity"
    } else if number == f64::NEG_INFINITY {
        "-Infinity"
    } else {
        if canonical {
            body.extend_from_slice(b"{\"$numberDouble\":\"");
        }
        serde_json::to_writer(&mut *body, &number).map_err(Failure::internal)?;
        if canonical {
            body.extend_from_slice(b"\"}");
        }
        return Ok(());
    };
    write!(body, "{{\"$numberDouble\":\"{name}\"}}").map_err(Failure::internal)
}

/// Years that RFC 3339 writes and the specification takes for readable: 1970 to 9999.
const READABLE_MS: std::ops::Range<i64> = 0..253_402_300_800_000;

fn date(date: DateTime, canonical: bool, body: &mut Vec<u8>) -> Result<(), Failure> {
    let ms = date.timestamp_millis();
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(instant) if !canonical && READABLE_MS.contains(&ms) => {
            let digits = if ms % 1_000 == 0 { 0 } else { 3 };
            write!(body, "{{\"$date\":\"{instant:.digits$}\"}}")
        }
        _ => write!(body, "{{\"$date\":{{\"$numberLong\":\"{ms}\"}}}}"),
    }
    .map_err(Failure::internal)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use bson::{Bson, RawDocumentBuf, doc};
    use proptest::prelude::*;

    use super::*;

    fn rendered(document: &bson::Document, form: Form) -> String {
        let raw = RawDocumentBuf::from_document(document).unwrap();
        let mut body = Vec::new();
        super::document(&raw, form, &mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn forms() {
        let date = |ms| Bson::DateTime(DateTime::from_millis(ms));
        for (value, relaxed, canonical) in [
            (Bson::Int32(7), "7", r#"{"$numberInt":"7"}"#),
            (
                Bson::Int64(i64::MAX),
                "9223372036854775807",
                r#"{"$numberLong":"9223372036854775807"}"#,
            ),
            (Bson::Double(7.0), "7.0", r#"{"$numberDouble":"7.0"}"#),
            (
                Bson::Double(f64::NAN),
                r#"{"$numberDouble":"NaN"}"#,
                r#"{"$numberDouble":"NaN"}"#,
            ),
            (
                Bson::Double(f64::NEG_INFINITY),
                r#"{"$numberDouble":"-Infinity"}"#,
                r#"{"$numberDouble":"-Infinity"}"#,
            ),
            (
                date(0),
                r#"{"$date":"1970-01-01T00:00:00Z"}"#,
                r#"{"$date":{"$numberLong":"0"}}"#,
            ),
            (
                date(1),
                r#"{"$date":"1970-01-01T00:00:00.001Z"}"#,
                r#"{"$date":{"$numberLong":"1"}}"#,
            ),
            (
                date(-1),
                r#"{"$date":{"$numberLong":"-1"}}"#,
                r#"{"$date":{"$numberLong":"-1"}}"#,
            ),
            (
                date(i64::MAX),
                r#"{"$date":{"$numberLong":"9223372036854775807"}}"#,
                r#"{"$date":{"$numberLong":"9223372036854775807"}}"#,
            ),
            (
                Bson::Decimal128("1.10".parse().unwrap()),
                r#"{"$numberDecimal":"1.10"}"#,
                r#"{"$numberDecimal":"1.10"}"#,
            ),
            (Bson::Null, "null", "null"),
            (
                Bson::String("a\"\u{1}é".into()),
                "\"a\\\"\\u0001é\"",
                "\"a\\\"\\u0001é\"",
            ),
        ] {
            assert_eq!(
                rendered(&doc! {"a": value.clone()}, Form::Relaxed),
                format!("{{\"a\":{relaxed}}}")
            );
            assert_eq!(
                rendered(&doc! {"a": value}, Form::Canonical),
                format!("{{\"a\":{canonical}}}")
            );
        }
    }

    #[test]
    fn the_tenants_fields_stay_inside() {
        let document = doc! {"_id": 1, TENANT: "t", "a": {TENANT: "mine"}, WORKSPACE: "w"};
        assert_eq!(
            rendered(&document, Form::Relaxed),
            r#"{"_id":1,"a":{"_tenantId":"mine"}}"#
        );
    }

    proptest! {
        /// What is shown is what goes in again.
        #[test]
        fn both_forms_read_as_what_they_were(
            int in any::<i32>(), long in any::<i64>(), double in any::<f64>().prop_filter("NaN differs from itself", |n| !n.is_nan()),
            ms in -100_000_000_000_000_i64..300_000_000_000_000, text in "\\PC{0,20}", bytes in any::<[u8; 12]>(),
        ) {
            let document = doc! {
                "long": i64::from(i32::MAX) + 1 + (long & 0xffff_ffff_ffff), "double": double, "int": int, "text": &text,
                "date": DateTime::from_millis(ms), "id": bson::oid::ObjectId::from_bytes(bytes),
                "nested": {"list": [int, {"text": text.clone()}, Bson::Null]},
                "binary": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: bytes.to_vec() },
            };
            for form in [Form::Relaxed, Form::Canonical] {
                let json: serde_json::Value = serde_json::from_str(&rendered(&document, form)).unwrap();
                prop_assert_eq!(Bson::try_from(json).unwrap(), Bson::Document(document.clone()));
            }
        }
    }
}
