//! Names: collections, fields, and paths of fields.

use super::{At, Refused, TENANT, WORKSPACE};

/// The longest collection name; with the database's it stays below the server's 255 bytes.
const MAX_COLLECTION: usize = 120;
/// The longest path of a field.
const MAX_PATH: usize = 512;
/// The deepest one; the server nests documents 100 deep.
const MAX_SEGMENTS: usize = 50;

/// A collection's name, as it may stand in a URL or in `$lookup.from`.
///
/// # Errors
/// The rule, when the name breaks it.
pub(crate) fn collection(name: &str) -> Result<&str, String> {
    let mut bytes = name.bytes();
    let good = name.len() <= MAX_COLLECTION
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && !name.starts_with("system.")
        && !name.starts_with(super::RESERVED_COLLECTION)
        && !name.contains("..")
        && !name.ends_with('.');
    if good {
        Ok(name)
    } else {
        Err(format!(
            "must be a collection's name: a letter, then letters, digits, `_`, `-` or `.`, at most {MAX_COLLECTION}, \
             neither `system.…` nor `{}…`",
            super::RESERVED_COLLECTION
        ))
    }
}

/// One name in a document that is stored or made: not empty, no `$` in front, no dot, no NUL.
pub(super) fn field_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("has a field without a name")
    } else if name.starts_with('$') {
        Err("has a name that begins with `$`, which is for operators")
    } else if name.contains('.') {
        Err("has a dot in its name; nest an object instead")
    } else if name.contains('\0') {
        Err("has a NUL in its name")
    } else {
        Ok(())
    }
}

/// A dotted path of fields, `a.b.0.c`. The tenant's fields are not there.
///
/// # Errors
/// The rule, when the path breaks it.
pub(crate) fn field_path(path: &str) -> Result<&str, String> {
    let root = path.split('.').next().unwrap_or_default();
    if [TENANT, WORKSPACE].contains(&root) {
        return Err(format!("names {root}, which is not part of your documents"));
    }
    nested_path(path)
}

/// The same within an object of a document, where any name may stand.
///
/// # Errors
/// The rule, when the path breaks it.
pub(super) fn nested_path(path: &str) -> Result<&str, String> {
    if path.len() > MAX_PATH {
        return Err(format!("is a path of more than {MAX_PATH} bytes"));
    }
    let mut segments = path.split('.');
    if segments.clone().count() > MAX_SEGMENTS {
        return Err(format!("is a path of more than {MAX_SEGMENTS} fields"));
    }
    match segments.find_map(|name| field_name(name).err()) {
        None => Ok(path),
        Some(rule) => Err(rule.to_owned()),
    }
}

/// The same for the path of an update, where `$[]` stands for all elements of an array.
pub(super) fn update_path<'p>(path: &'p str, at: &At<'_>) -> Result<&'p str, Refused> {
    let mut segments: Vec<_> = path.split('.').collect();
    for segment in segments.iter_mut().skip(1) {
        if *segment == "$[]" {
            *segment = "0";
        }
    }
    field_path(&segments.join(".")).map_err(|rule| at.refused(rule))?;
    if path == "_id" || path.starts_with("_id.") {
        return Err(at.refused("changes _id, which stays as it is"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_collections() {
        for good in ["orders", "a", "Orders.2024-05_x"] {
            assert!(collection(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1a",
            "$cmd",
            "a$b",
            "system.users",
            "postern.record",
            "a..b",
            "a.",
            "a b",
            "a\0",
            "é",
            "../x",
        ] {
            assert!(collection(bad).is_err(), "{bad}");
        }
        assert!(collection(&"a".repeat(MAX_COLLECTION + 1)).is_err());
    }

    #[test]
    fn paths_of_fields() {
        for good in [
            "a",
            "a.b.0.c",
            "__proto__",
            "a._tenantId",
            "_id",
            "_tenantIds",
        ] {
            assert!(field_path(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a.",
            ".a",
            "a..b",
            "$a",
            "a.$b",
            "_tenantId",
            "_workspaceId.x",
            "a\0",
        ] {
            assert!(field_path(bad).is_err(), "{bad}");
        }
        assert!(field_path(&"a.".repeat(MAX_SEGMENTS + 1)).is_err());
        assert!(field_path(&"a".repeat(MAX_PATH + 1)).is_err());
        assert!(nested_path("_tenantId").is_ok());
    }

    #[test]
    fn paths_of_updates() {
        for good in ["a.$[]", "a.$[].b", "a.$[].$[].b", "a.$[].$[]"] {
            assert!(update_path(good, &At::root("u")).is_ok(), "{good}");
        }
        for bad in [
            "$[]",
            "$[].a",
            "a.$",
            "a.$[x]",
            "_id",
            "_id.x",
            "_tenantId.$[]",
        ] {
            assert!(update_path(bad, &At::root("u")).is_err(), "{bad}");
        }
    }
}
