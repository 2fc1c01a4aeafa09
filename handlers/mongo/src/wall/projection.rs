//! Projections and sort orders.

use bson::{Bson, Document, doc};

use super::{At, Budget, Refused, TENANT, WORKSPACE, path};

/// Keys of one sort; the server takes 32.
const MAX_SORT_KEYS: usize = 16;

/// Which fields of a document are shown. The tenant's never are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Projection {
    /// All.
    #[default]
    All,
    /// These, and `_id` unless it is left out.
    Include {
        /// Paths.
        paths: Vec<String>,
        /// Whether `_id` comes too.
        id: bool,
    },
    /// All but these.
    Exclude(Vec<String>),
}

impl Projection {
    /// Reads a list as it stands in a query: `a,b.c` shows these, `-a,-b.c` all others.
    ///
    /// # Errors
    /// When it mixes the two or names what is not there.
    pub(crate) fn read(text: &str, at: &At<'_>) -> Result<Self, Refused> {
        let (mut shown, mut hidden) = (Vec::<String>::new(), Vec::<String>::new());
        for name in text.split(',').map(str::trim) {
            let (list, name) = match name.strip_prefix('-') {
                Some(name) => (&mut hidden, name),
                None => (&mut shown, name),
            };
            let path = path::field_path(name).map_err(|rule| at.refused(rule))?;
            list.push(path.to_owned());
        }
        for paths in [&shown, &hidden] {
            if let Some(both) = overlap(paths) {
                return Err(at.refused(format!("names {both} and what is in it, or twice")));
            }
        }
        match (shown.is_empty(), hidden.as_slice()) {
            (true, _) => Ok(Self::Exclude(hidden)),
            (false, []) => Ok(Self::Include { paths: shown, id: true }),
            (false, [id]) if id == "_id" => Ok(Self::Include { paths: shown, id: false }),
            _ => Err(at.refused("must either name what is shown or, each with a `-`, what is not; only `-_id` goes with both")),
        }
    }

    /// The stage that leaves the hidden fields out, but keeps one of the tenant's, in which
    /// a list carries its order's keys.
    pub(crate) fn keeping(&self, carrier: &str) -> Document {
        let hidden = [TENANT, WORKSPACE].into_iter();
        let hidden = hidden.filter(|name| *name != carrier);
        match self {
            Self::All => doc! { "$unset": hidden.collect::<Vec<_>>() },
            Self::Exclude(paths) => {
                let hidden = hidden.chain(paths.iter().map(String::as_str));
                doc! { "$unset": hidden.collect::<Vec<_>>() }
            }
            Self::Include { paths, id } => {
                let shown = paths.iter().map(String::as_str).chain([carrier]);
                let shown = shown.map(|path| (path.to_owned(), Bson::Int32(1)));
                let mut fields: Document = shown.collect();
                if !id {
                    fields.insert("_id", 0);
                }
                doc! { "$project": fields }
            }
        }
    }
}

/// A path that is also the beginning of another one.
fn overlap(paths: &[String]) -> Option<&str> {
    let mut sorted: Vec<Vec<&str>> = paths.iter().map(|path| path.split('.').collect()).collect();
    sorted.sort();
    let found = sorted.windows(2).find_map(|pair| match pair {
        [one, next] if next.starts_with(one) => Some(one.join(".")),
        _ => None,
    })?;
    paths.iter().map(String::as_str).find(|path| *path == found)
}

/// Fields, each with 1 or -1.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sort(pub(crate) Vec<(String, i32)>);

impl Sort {
    /// Reads the object of a `$sort`.
    pub(super) fn read(
        fields: &Document,
        budget: &mut Budget,
        at: &At<'_>,
    ) -> Result<Self, Refused> {
        let mut keys = Vec::with_capacity(fields.len().min(MAX_SORT_KEYS));
        for (name, value) in fields {
            let at = at.field(name);
            budget.node(&at)?;
            let path = budget.path(name, &at)?;
            keys.push((path.to_owned(), direction(value, &at)?));
        }
        Self::bounded(keys, at)
    }

    /// Reads a list as it stands in a query: `-a,b`.
    ///
    /// # Errors
    /// When it names what is not there, or the same twice.
    pub(crate) fn parse(text: &str, at: &At<'_>) -> Result<Self, Refused> {
        let mut keys: Vec<(String, i32)> = Vec::new();
        for name in text.split(',').map(str::trim) {
            let (name, direction) = match name.strip_prefix('-') {
                Some(name) => (name, -1),
                None => (name, 1),
            };
            let path = path::field_path(name).map_err(|rule| at.refused(rule))?;
            if keys.iter().any(|(other, _)| other == path) {
                return Err(at.refused(format!("names {path} twice")));
            }
            keys.push((path.to_owned(), direction));
        }
        Self::bounded(keys, at)
    }

    fn bounded(keys: Vec<(String, i32)>, at: &At<'_>) -> Result<Self, Refused> {
        if keys.is_empty() || keys.len() > MAX_SORT_KEYS {
            return Err(at.refused(format!("must name 1 to {MAX_SORT_KEYS} fields")));
        }
        Ok(Self(keys))
    }

    pub(crate) fn to_bson(&self) -> Document {
        self.0
            .iter()
            .map(|(path, direction)| (path.clone(), Bson::Int32(*direction)))
            .collect()
    }
}

/// 1 or -1, of any numeric type.
pub(super) fn direction(value: &Bson, at: &At<'_>) -> Result<i32, Refused> {
    match value {
        Bson::Int32(1) | Bson::Int64(1) => Ok(1),
        Bson::Int32(-1) | Bson::Int64(-1) => Ok(-1),
        Bson::Double(one) if one.abs() == 1.0 => Ok(if *one > 0.0 { 1 } else { -1 }),
        _ => Err(at.refused("must be 1 or -1")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_tenants_fields_are_never_shown() {
        let read = |text| Projection::read(text, &At::root("projection"));
        let stage = |text| read(text).unwrap().keeping(TENANT);
        let all = Projection::All.keeping(TENANT);
        assert_eq!(all, doc! {"$unset": [WORKSPACE]});
        assert_eq!(stage("-a"), doc! {"$unset": [WORKSPACE, "a"]});
        let some = doc! {"$project": {"a": 1, "b.c": 1, TENANT: 1}};
        assert_eq!(stage("a, b.c"), some);
        let no_id = doc! {"$project": {"a": 1, TENANT: 1, "_id": 0}};
        assert_eq!(stage("a,-_id"), no_id);
        for bad in [
            "",
            "a,-b",
            "_tenantId",
            "-_workspaceId",
            "a,,b",
            "$a",
            "a,a",
            "a.b,ab,a",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sorts() {
        let parse = |text| Sort::parse(text, &At::root("sort"));
        assert_eq!(parse("-a,b.c").unwrap().to_bson(), doc! {"a": -1, "b.c": 1});
        assert_eq!(parse("--a").unwrap().to_bson(), doc! {"-a": -1});
        for bad in ["", "a,a", "a,-a", "_tenantId", "-_tenantId"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
