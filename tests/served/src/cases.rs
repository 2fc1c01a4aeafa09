//! Tables of cases: what every family's have in common.

use std::path::Path;

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Ask, Place};

/// A table: a file of `tests/cases`, below the crate's folder.
#[track_caller]
pub fn read<T: DeserializeOwned>(crate_folder: &str, name: &str) -> T {
    let path = Path::new(crate_folder).join("tests/cases").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A request as a table writes it: `GET rows/orders?id=eq.1`.
pub fn ask(place: &impl Place, text: &str) -> Result<Ask, String> {
    let (method, below) = text.split_once(' ').ok_or("ask needs a method")?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Ask::new(place, method, below.trim()))
}

/// The first of the `wanted` members that is not there, or differs.
pub fn missing(wanted: &Value, there: &Value) -> Option<String> {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            wanted
                .iter()
                .find_map(|(name, value)| match there.get(name) {
                    None => Some(format!("no {name}")),
                    Some(there) => missing(value, there).map(|what| format!("{name}: {what}")),
                })
        }
        (wanted, there) if wanted == there => None,
        (wanted, there) => Some(format!("{there} instead of {wanted}")),
    }
}

/// Ends a table of `count` cases.
///
/// # Panics
/// With what failed, one below the other.
#[track_caller]
pub fn finish(count: usize, failed: &[String]) {
    let (failures, told) = (failed.len(), failed.join("\n"));
    assert!(
        failed.is_empty(),
        "{failures} of {count} cases failed:\n{told}"
    );
}
