//! Column types and defaults, of a closed list.

use serde_json::Value;
use winnow::Parser;
use winnow::ascii::dec_uint;
use winnow::combinator::{delimited, opt, preceded};
use winnow::error::ContextError;
use winnow::token::take_while;

/// A default.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Default {
    /// `now()`
    Now,
    /// `gen_random_uuid()`
    RandomUuid,
    /// A literal, as the text that PostgreSQL reads as the column's type.
    Literal(String),
}

/// Names that a request may use, and PostgreSQL's own.
const TYPES: &[(&str, &str)] = &[
    ("text", "text"),
    ("varchar", "varchar"),
    ("char", "bpchar"),
    ("bool", "bool"),
    ("boolean", "bool"),
    ("smallint", "int2"),
    ("int2", "int2"),
    ("int", "int4"),
    ("integer", "int4"),
    ("int4", "int4"),
    ("bigint", "int8"),
    ("int8", "int8"),
    ("numeric", "numeric"),
    ("decimal", "numeric"),
    ("real", "float4"),
    ("float4", "float4"),
    ("double precision", "float8"),
    ("float8", "float8"),
    ("date", "date"),
    ("time", "time"),
    ("timetz", "timetz"),
    ("timestamp", "timestamp"),
    ("timestamptz", "timestamptz"),
    ("interval", "interval"),
    ("uuid", "uuid"),
    ("json", "json"),
    ("jsonb", "jsonb"),
    ("bytea", "bytea"),
    ("inet", "inet"),
    ("cidr", "cidr"),
    ("macaddr", "macaddr"),
    ("tsvector", "tsvector"),
    ("int4range", "int4range"),
    ("int8range", "int8range"),
    ("numrange", "numrange"),
    ("daterange", "daterange"),
    ("tsrange", "tsrange"),
    ("tstzrange", "tstzrange"),
];

/// A type as PostgreSQL writes it: `numeric(10,2)`, `text[]`.
///
/// # Errors
/// The closed list, where it is not of it.
pub(crate) fn read(text: &str) -> Result<String, String> {
    let rule = || {
        let names: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
        format!(
            "must be one of {}; varchar, char and numeric may have a size, all may end in []",
            names.join(", ")
        )
    };
    type Sizes = Option<(u16, Option<u16>)>;
    let mut grammar = (
        take_while(1.., |c: char| c.is_ascii_alphanumeric() || c == ' '),
        opt(delimited(
            '(',
            (
                dec_uint::<_, u16, ContextError>,
                opt(preceded(',', dec_uint)),
            ),
            ')',
        )),
        opt("[]"),
    );
    let (name, sizes, array): (&str, Sizes, Option<&str>) =
        grammar.parse(text).map_err(|_| rule())?;
    let lower = name.trim().to_ascii_lowercase();
    let (_, sql) = TYPES
        .iter()
        .find(|(known, _)| *known == lower)
        .ok_or_else(rule)?;
    let array = array.unwrap_or_default();
    match (*sql, sizes) {
        (_, None) => Ok(format!("{sql}{array}")),
        ("varchar" | "bpchar", Some((size @ 1.., None))) => Ok(format!("{sql}({size}){array}")),
        ("numeric", Some((precision @ 1..=1000, None))) => {
            Ok(format!("numeric({precision}){array}"))
        }
        ("numeric", Some((precision @ 1..=1000, Some(scale)))) if scale <= precision => {
            Ok(format!("numeric({precision},{scale}){array}"))
        }
        _ => Err(rule()),
    }
}

/// A default of a column of this type, as a value and as it was written. The words of
/// functions are functions where the type fits, and texts in a text column.
///
/// # Errors
/// It is no literal.
pub(crate) fn default(value: &Value, written: &str, of: &str) -> Result<Default, String> {
    let instants = ["timestamptz", "timestamp", "date", "time", "timetz"];
    match value {
        Value::String(text) if text == "now()" && instants.contains(&of) => Ok(Default::Now),
        Value::String(text) if text == "gen_random_uuid()" && of == "uuid" => {
            Ok(Default::RandomUuid)
        }
        Value::String(text) if text.contains('\0') => {
            Err("must not hold the character NUL".to_owned())
        }
        Value::String(text) => Ok(Default::Literal(text.clone())),
        Value::Number(_) => Ok(Default::Literal(written.to_owned())),
        Value::Bool(value) => Ok(Default::Literal(value.to_string())),
        Value::Object(_) | Value::Array(_) if matches!(of, "json" | "jsonb") => {
            Ok(Default::Literal(written.to_owned()))
        }
        _ => Err(
            "must be a string, a number or a boolean, \"now()\" on a date or time, \"gen_random_uuid()\" on a uuid"
                .to_owned(),
        ),
    }
}
