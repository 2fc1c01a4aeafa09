//! Merge patches (RFC 7396): what a document becomes, from what it is and the patch.
//!
//! MongoDB's operators cannot say it (a path through a value that is no object is refused,
//! an empty object replaces one), so the fields that the patch names are merged here, in
//! the transaction that reads and writes them.

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document};
use postern_common::Failure;

use crate::wall::{At, Refused, document};

/// A patch that only names what may be stored.
///
/// # Errors
/// A name or a value that may not, and `_id`, which stays as it is.
pub(crate) fn read(patch: Document, at: &At<'_>) -> Result<Document, Refused> {
    document(&patch, at)?;
    if patch.contains_key("_id") {
        return Err(at.field("_id").refused("changes _id, which stays as it is"));
    }
    Ok(patch)
}

/// The patch as operators over this document; empty: nothing is to be done.
///
/// # Errors
/// When the server sent bytes that are no BSON.
pub(crate) fn operators(patch: &Document, found: &RawDocumentBuf) -> Result<Document, Failure> {
    let (mut set, mut unset) = (Document::new(), Document::new());
    for (name, value) in patch {
        if *value == Bson::Null {
            unset.insert(name, "");
            continue;
        }
        let there = found.get(name).map_err(Failure::internal)?;
        let there = there.map(Bson::try_from).transpose();
        let there = there.map_err(Failure::internal)?;
        set.insert(name, merged(there, value));
    }
    let named = [("$set", set), ("$unset", unset)];
    let named = named.into_iter().filter(|(_, fields)| !fields.is_empty());
    Ok(named
        .map(|(name, fields)| (name.to_owned(), fields.into()))
        .collect())
}

/// MergePatch of the RFC.
fn merged(there: Option<Bson>, patch: &Bson) -> Bson {
    let Bson::Document(patch) = patch else {
        return patch.clone();
    };
    let mut whole = match there {
        Some(Bson::Document(there)) => there,
        _ => Document::new(),
    };
    for (name, value) in patch {
        if *value == Bson::Null {
            whole.remove(name);
        } else {
            let there = whole.get(name).cloned();
            whole.insert(name, merged(there, value));
        }
    }
    Bson::Document(whole)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn what_the_rfc_shows() {
        for (there, patch, becomes) in [
            (doc! {"a": "b"}, doc! {"a": "c"}, doc! {"$set": {"a": "c"}}),
            (doc! {"a": "b"}, doc! {"b": "c"}, doc! {"$set": {"b": "c"}}),
            (
                doc! {"a": "b"},
                doc! {"a": null},
                doc! {"$unset": {"a": ""}},
            ),
            (
                doc! {"a": ["b"]},
                doc! {"a": "c"},
                doc! {"$set": {"a": "c"}},
            ),
            (
                doc! {"a": "c"},
                doc! {"a": ["b"]},
                doc! {"$set": {"a": ["b"]}},
            ),
            (
                doc! {"a": {"b": "c"}},
                doc! {"a": {"b": "d", "c": null}},
                doc! {"$set": {"a": {"b": "d"}}},
            ),
            (
                doc! {"a": [{"b": "c"}]},
                doc! {"a": [1]},
                doc! {"$set": {"a": [1]}},
            ),
            (
                doc! {},
                doc! {"a": {"bb": {"ccc": null}}},
                doc! {"$set": {"a": {"bb": {}}}},
            ),
            (doc! {"a": 1}, doc! {}, doc! {}),
        ] {
            let found = RawDocumentBuf::from_document(&there).unwrap();
            let patch = read(patch, &At::root("body")).unwrap();
            assert_eq!(
                operators(&patch, &found).unwrap(),
                becomes,
                "{there} {patch}"
            );
        }
    }

    #[test]
    fn what_may_not_be_named() {
        for (patch, at) in [
            (doc! {"$set": {"a": 1}}, "body.$set"),
            (doc! {"a.b": 1}, "body.a.b"),
            (doc! {"a": {"$b": null}}, "body.a.$b"),
            (doc! {"_tenantId": null}, "body._tenantId"),
            (doc! {"_id": 1}, "body._id"),
        ] {
            assert_eq!(read(patch, &At::root("body")).unwrap_err().at, at);
        }
    }
}
