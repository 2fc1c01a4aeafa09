//! Updates: which fields change, and how.

use bson::{Bson, Document, doc};

use super::projection::direction;
use super::value::stored;
use super::{At, Budget, Filter, Refused, array, object, path, string, whole};

/// Changes, by operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update(Vec<(&'static str, Vec<(String, Change)>)>);

#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// The operator's operand, as it is stored or computed with.
    Value(Bson),
    /// `$push` and `$addToSet` of several.
    Each {
        items: Vec<Bson>,
        position: Option<i64>,
        slice: Option<i64>,
        sort: Option<Bson>,
    },
    /// `$pull` of what a filter describes.
    PullDocuments(Filter),
    /// `$pull` of what operators describe; they stand under a name for the filter's sake.
    PullValues(Filter),
    /// `$rename` to another path.
    Rename(String),
    /// `$currentDate`.
    Now {
        timestamp: bool,
    },
    Unset,
}

const OPERATORS: [&str; 11] = [
    "$set",
    "$unset",
    "$inc",
    "$push",
    "$pull",
    "$addToSet",
    "$min",
    "$max",
    "$mul",
    "$rename",
    "$currentDate",
];
/// Items of one `$each`.
const MAX_EACH: usize = 1_000;

impl Update {
    /// Reads an update: operators, or plain fields, which are set.
    ///
    /// # Errors
    /// What has no place in one, and where it stands.
    pub(crate) fn read(
        update: &Document,
        budget: &mut Budget,
        at: &At<'_>,
    ) -> Result<Self, Refused> {
        if update.is_empty() {
            return Err(at.refused("must change something"));
        }
        if !update.keys().any(|name| name.starts_with('$')) {
            return Ok(Self(vec![("$set", changes("$set", update, budget, at)?)]));
        }
        let mut operators = Vec::with_capacity(update.len());
        for (name, fields) in update {
            let at = at.field(name);
            let Some(operator) = OPERATORS.into_iter().find(|known| known == name) else {
                return Err(at.unknown("operator", &OPERATORS));
            };
            match object(fields, &at)? {
                none if none.is_empty() => return Err(at.refused("must name a field")),
                fields => operators.push((operator, changes(operator, fields, budget, &at)?)),
            }
        }
        Ok(Self(operators))
    }

    /// As the server takes it.
    pub(crate) fn to_bson(&self) -> Document {
        let fields = |changes: &[(String, Change)]| -> Document {
            changes
                .iter()
                .map(|(path, change)| (path.clone(), change.to_bson()))
                .collect()
        };
        self.0
            .iter()
            .map(|(operator, changes)| ((*operator).to_owned(), Bson::Document(fields(changes))))
            .collect()
    }
}

fn changes(
    operator: &str,
    fields: &Document,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Vec<(String, Change)>, Refused> {
    let mut read = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let at = at.field(name);
        budget.node(&at)?;
        let path = path::update_path(name, &at)?;
        read.push((path.to_owned(), change(operator, value, budget, &at)?));
    }
    Ok(read)
}

fn change(
    operator: &str,
    value: &Bson,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Change, Refused> {
    match operator {
        "$unset" => Ok(Change::Unset),
        "$inc" | "$mul" => match value {
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => {
                Ok(Change::Value(value.clone()))
            }
            _ => Err(at.refused("must be a number")),
        },
        "$rename" => {
            let to = path::field_path(string(value, at)?).map_err(|rule| at.refused(rule))?;
            if to == "_id" || to.starts_with("_id.") {
                return Err(at.refused("changes _id, which stays as it is"));
            }
            Ok(Change::Rename(to.to_owned()))
        }
        "$currentDate" => now(value, at),
        "$push" | "$addToSet" => match value {
            Bson::Document(modifiers) if modifiers.contains_key("$each") => {
                each(operator, modifiers, budget, at)
            }
            value => plain(value, at),
        },
        "$pull" => pull(value, budget, at),
        _ => plain(value, at),
    }
}

fn plain(value: &Bson, at: &At<'_>) -> Result<Change, Refused> {
    stored(value, at)?;
    Ok(Change::Value(value.clone()))
}

fn now(value: &Bson, at: &At<'_>) -> Result<Change, Refused> {
    let kind = match value {
        Bson::Boolean(true) => "date",
        Bson::Document(kind) if kind.len() == 1 => kind.get_str("$type").unwrap_or_default(),
        _ => "",
    };
    match kind {
        "date" => Ok(Change::Now { timestamp: false }),
        "timestamp" => Ok(Change::Now { timestamp: true }),
        _ => Err(at.refused("must be true or {\"$type\": \"date\" | \"timestamp\"}")),
    }
}

fn each(
    operator: &str,
    modifiers: &Document,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Change, Refused> {
    let known: &[&str] = match operator {
        "$push" => &["$each", "$position", "$slice", "$sort"],
        _ => &["$each"],
    };
    if let Some(name) = modifiers
        .keys()
        .find(|name| !known.contains(&name.as_str()))
    {
        return Err(at.field(name).unknown("modifier", known));
    }
    let list_at = at.field("$each");
    let items = modifiers
        .get("$each")
        .map_or(Ok([].as_slice()), |items| array(items, &list_at))?;
    if items.len() > MAX_EACH {
        return Err(list_at.refused(format!("must have at most {MAX_EACH} items")));
    }
    for (index, item) in items.iter().enumerate() {
        stored(item, &list_at.index(index))?;
    }
    let number = |name: &str| {
        let at = at.field(name);
        modifiers
            .get(name)
            .map(|value| whole(value, i64::from(i32::MIN), i64::from(i32::MAX), &at))
            .transpose()
    };
    let sort = match modifiers.get("$sort") {
        None => None,
        Some(Bson::Document(fields)) => {
            let sort = budget.inside(|budget| {
                super::projection::Sort::read(fields, budget, &at.field("$sort"))
            })?;
            Some(Bson::Document(sort.to_bson()))
        }
        Some(value) => Some(Bson::Int32(direction(value, &at.field("$sort"))?)),
    };
    Ok(Change::Each {
        items: items.to_vec(),
        position: number("$position")?,
        slice: number("$slice")?,
        sort,
    })
}

/// The name under which a `$pull`'s operators are read as a filter.
const ELEMENT: &str = "element";

fn pull(value: &Bson, budget: &mut Budget, at: &At<'_>) -> Result<Change, Refused> {
    let Bson::Document(condition) = value else {
        return match value {
            Bson::RegularExpression(_) => Err(at.refused("must be {\"$regex\": …}")),
            value => plain(value, at),
        };
    };
    if condition.contains_key("$expr") {
        return Err(at.refused("takes no $expr"));
    }
    if condition
        .keys()
        .any(|name| name.starts_with('$') && !["$and", "$or", "$nor"].contains(&name.as_str()))
    {
        let filter = Filter::read(&doc! { ELEMENT: condition.clone() }, budget, at)?;
        return Ok(Change::PullValues(filter));
    }
    let filter = budget.inside(|budget| Filter::read(condition, budget, at))?;
    Ok(Change::PullDocuments(filter))
}

impl Change {
    fn to_bson(&self) -> Bson {
        match self {
            Self::Value(value) => value.clone(),
            Self::Each {
                items,
                position,
                slice,
                sort,
            } => {
                let mut modifiers = doc! { "$each": items.clone() };
                for (name, number) in [("$position", position), ("$slice", slice)] {
                    if let Some(number) = number {
                        modifiers.insert(name, *number);
                    }
                }
                if let Some(sort) = sort {
                    modifiers.insert("$sort", sort.clone());
                }
                Bson::Document(modifiers)
            }
            Self::PullDocuments(filter) => Bson::Document(filter.to_bson()),
            Self::PullValues(filter) => filter.to_bson().remove(ELEMENT).unwrap_or_default(),
            Self::Rename(to) => Bson::String(to.clone()),
            Self::Now { timestamp: true } => Bson::Document(doc! { "$type": "timestamp" }),
            Self::Now { timestamp: false } => Bson::Boolean(true),
            Self::Unset => Bson::String(String::new()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn read(update: &Document) -> Result<Update, Refused> {
        Update::read(update, &mut Budget::default(), &At::root("update"))
    }

    #[test]
    fn what_passes_means_the_same() {
        for (update, rebuilt) in [
            (doc! {"a": 1}, doc! {"$set": {"a": 1}}),
            (
                doc! {"$set": {"a.b": 1, "c.$[].d": 2}},
                doc! {"$set": {"a.b": 1, "c.$[].d": 2}},
            ),
            (doc! {"$unset": {"a": 1}}, doc! {"$unset": {"a": ""}}),
            (
                doc! {"$inc": {"a": 1}, "$mul": {"b": 2.5}},
                doc! {"$inc": {"a": 1}, "$mul": {"b": 2.5}},
            ),
            (
                doc! {"$push": {"a": {"$each": [1, 2], "$slice": -3, "$sort": -1}}},
                doc! {"$push": {"a": {"$each": [1, 2], "$slice": -3_i64, "$sort": -1}}},
            ),
            (
                doc! {"$pull": {"a": {"$gt": 3}}},
                doc! {"$pull": {"a": {"$gt": 3}}},
            ),
            (
                doc! {"$pull": {"a": {"b": 3}}},
                doc! {"$pull": {"a": {"b": {"$eq": 3}}}},
            ),
            (doc! {"$pull": {"a": 3}}, doc! {"$pull": {"a": 3}}),
            (
                doc! {"$pull": {"a": {"_tenantId": 3}}},
                doc! {"$pull": {"a": {"_tenantId": {"$eq": 3}}}},
            ),
            (
                doc! {"$push": {"a": {"$each": [], "$sort": {"_tenantId": 1}}}},
                doc! {"$push": {"a": {"$each": [], "$sort": {"_tenantId": 1}}}},
            ),
            (
                doc! {"$set": {"a.$[].$[].b": 1}},
                doc! {"$set": {"a.$[].$[].b": 1}},
            ),
            (doc! {"$rename": {"a": "b"}}, doc! {"$rename": {"a": "b"}}),
            (
                doc! {"$currentDate": {"a": {"$type": "date"}}},
                doc! {"$currentDate": {"a": true}},
            ),
        ] {
            assert_eq!(read(&update).unwrap().to_bson(), rebuilt, "{update}");
        }
    }

    #[test]
    fn what_does_not_is_named() {
        for (update, at) in [
            (doc! {}, "update"),
            (doc! {"$set": {}}, "update.$set"),
            (doc! {"$set": {"a": 1}, "b": 2}, "update.b"),
            (doc! {"$setOnInsert": {"a": 1}}, "update.$setOnInsert"),
            (doc! {"$set": {"_tenantId": "x"}}, "update.$set._tenantId"),
            (doc! {"_tenantId": "x"}, "update._tenantId"),
            (
                doc! {"$set": {"_tenantId.0": "x"}},
                "update.$set._tenantId.0",
            ),
            (
                doc! {"$unset": {"_workspaceId": 1}},
                "update.$unset._workspaceId",
            ),
            (doc! {"$rename": {"a": "_tenantId"}}, "update.$rename.a"),
            (
                doc! {"$rename": {"_tenantId": "a"}},
                "update.$rename._tenantId",
            ),
            (doc! {"$rename": {"a": "_id"}}, "update.$rename.a"),
            (doc! {"$set": {"_id": 1}}, "update.$set._id"),
            (doc! {"$set": {"a": {"$b": 1}}}, "update.$set.a.$b"),
            (doc! {"$set": {"a": {"b.c": 1}}}, "update.$set.a.b.c"),
            (
                doc! {"$push": {"a": {"$each": [], "$where": 1}}},
                "update.$push.a.$where",
            ),
            (
                doc! {"$pull": {"a": {"$where": 1}}},
                "update.$pull.a.element.$where",
            ),
            (doc! {"$set": {"a.$[x].b": 1}}, "update.$set.a.$[x].b"),
            (doc! {"$set": {"a.$.b": 1}}, "update.$set.a.$.b"),
            (doc! {"$inc": {"a": "1"}}, "update.$inc.a"),
        ] {
            assert_eq!(read(&update).unwrap_err().at, at, "{update}");
        }
    }
}
