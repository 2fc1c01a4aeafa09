//! What a collection may be told of its documents: a JSON Schema by allow-list, and
//! indexes.

use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::IndexModel;
use serde_json::Value;

use crate::wall::{At, Budget, Refused, TENANT, WORKSPACE, field_path, take_schema};

/// Keywords whose value is a number, a text or a list of plain values.
const PLAIN: [&str; 18] = [
    "bsonType",
    "type",
    "required",
    "enum",
    "title",
    "description",
    "pattern",
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "additionalProperties",
];
const MAX_INDEXES: usize = 20;
const MAX_KEYS: usize = 16;
/// Ten years.
const MAX_EXPIRY_S: i64 = 315_360_000;

/// Reads `{"jsonSchema": {…}}` as the server's validator.
///
/// # Errors
/// The keyword that is not allowed, and where it stands.
pub(crate) fn read(value: &Bson, at: &At<'_>) -> Result<Document, Refused> {
    let object = value
        .as_document()
        .ok_or_else(|| at.refused("must be an object"))?;
    if let Some(other) = object.keys().find(|name| *name != "jsonSchema") {
        return Err(at
            .field(other)
            .refused("is not known here; known is jsonSchema"));
    }
    let at = at.field("jsonSchema");
    let schema = object
        .get("jsonSchema")
        .ok_or_else(|| at.refused("is missing"))?;
    let schema = self::schema(schema, Of::Document, &mut Budget::default(), &at)?;
    Ok(doc! { "$jsonSchema": schema })
}

/// What a schema is of. Every document holds the tenant's fields besides the client's own:
/// a schema of one has to let them be, and not to count them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Document,
    Value,
}

/// How many those are.
const OURS: i64 = 2;

/// A bound on how many properties there are, with this many more.
fn counted(value: &Bson, more: i64) -> Option<Bson> {
    let count = match value {
        Bson::Int32(count) => i64::from(*count),
        Bson::Int64(count) => *count,
        _ => return None,
    };
    let known = 0..=1_000_000;
    (known.contains(&count)).then(|| Bson::Int64(count + more))
}

/// Lets the fields be that every document has.
fn open(schema: &mut Document) {
    if matches!(
        schema.get("additionalProperties"),
        None | Some(Bson::Boolean(true))
    ) {
        return;
    }
    let mut properties = match schema.remove("properties") {
        Some(Bson::Document(properties)) => properties,
        _ => Document::new(),
    };
    for name in ["_id", TENANT, WORKSPACE] {
        if !properties.contains_key(name) {
            properties.insert(name, doc! {});
        }
    }
    schema.insert("properties", properties);
}

fn schema(value: &Bson, of: Of, budget: &mut Budget, at: &At<'_>) -> Result<Document, Refused> {
    let object = value
        .as_document()
        .ok_or_else(|| at.refused("must be an object"))?;
    take_schema(budget, at, |budget| {
        let mut read = Document::new();
        for (keyword, value) in object {
            let at = at.field(keyword);
            let checked = match keyword.as_str() {
                "properties" => {
                    let fields = value
                        .as_document()
                        .ok_or_else(|| at.refused("must be an object"))?;
                    let mut properties = Document::new();
                    for (name, value) in fields {
                        let at = at.field(name);
                        field_path(name).map_err(|rule| at.refused(rule))?;
                        properties.insert(name, schema(value, Of::Value, budget, &at)?);
                    }
                    Bson::Document(properties)
                }
                "items" => Bson::Document(schema(value, Of::Value, budget, &at)?),
                "not" => Bson::Document(schema(value, of, budget, &at)?),
                "allOf" | "anyOf" | "oneOf" => {
                    let Bson::Array(items) = value else {
                        return Err(at.refused("must be an array"));
                    };
                    let mut schemas = Vec::with_capacity(items.len());
                    for (index, item) in items.iter().enumerate() {
                        schemas.push(Bson::Document(schema(item, of, budget, &at.index(index))?));
                    }
                    Bson::Array(schemas)
                }
                "pattern" => {
                    let text = value
                        .as_str()
                        .ok_or_else(|| at.refused("must be a string"))?;
                    budget.pattern(text, &at)?;
                    value.clone()
                }
                "additionalProperties" if !matches!(value, Bson::Boolean(_)) => {
                    Bson::Document(schema(value, Of::Value, budget, &at)?)
                }
                "minProperties" | "maxProperties" => {
                    let more = if of == Of::Document { OURS } else { 0 };
                    counted(value, more)
                        .ok_or_else(|| at.refused("must be a whole number from 0 to 1000000"))?
                }
                "required" => {
                    let names = value.as_array().map(Vec::as_slice).unwrap_or_default();
                    for (index, name) in names.iter().enumerate() {
                        let name = name.as_str().unwrap_or_default();
                        field_path(name).map_err(|rule| at.index(index).refused(rule))?;
                    }
                    value.clone()
                }
                plain if PLAIN.contains(&plain) => value.clone(),
                _ => {
                    return Err(at.refused(
                        "is no keyword that is allowed here; docs/mongo.md lists those that are",
                    ));
                }
            };
            read.insert(keyword, checked);
        }
        if of == Of::Document {
            open(&mut read);
        }
        Ok(read)
    })
}

/// The schema as the client wrote it, but for what was let in for the tenant's fields.
#[must_use]
pub(crate) fn shown(validator: &Document) -> Value {
    let mut validator = validator.clone();
    let mut schema = validator.remove("$jsonSchema").unwrap_or(Bson::Null);
    if let Bson::Document(schema) = &mut schema {
        take_out(schema);
    }
    serde_json::json!({ "jsonSchema": schema.into_relaxed_extjson() })
}

fn take_out(schema: &mut Document) {
    if let Ok(properties) = schema.get_document_mut("properties") {
        properties.remove(TENANT);
        properties.remove(WORKSPACE);
    }
    for name in ["minProperties", "maxProperties"] {
        if let Some(count) = schema.get_mut(name)
            && let Some(own) = counted(count, -OURS)
        {
            *count = own;
        }
    }
    if let Ok(schema) = schema.get_document_mut("not") {
        take_out(schema);
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for one in schema.get_array_mut(name).into_iter().flatten() {
            if let Bson::Document(schema) = one {
                take_out(schema);
            }
        }
    }
}

/// An index that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) keys: Document,
    pub(crate) unique: bool,
    pub(crate) sparse: bool,
    pub(crate) expire_after: Option<Duration>,
}

impl Index {
    /// As the driver calls it.
    fn name(&self) -> String {
        let keys = self
            .keys
            .iter()
            .map(|(path, direction)| format!("{path}_{direction}"));
        keys.collect::<Vec<_>>().join("_")
    }

    /// One that is there.
    pub(crate) fn of(model: &IndexModel) -> Self {
        let options = model.options.as_ref();
        let is = |flag: Option<bool>| flag.unwrap_or_default();
        Self {
            keys: model.keys.clone(),
            unique: is(options.and_then(|options| options.unique)),
            sparse: is(options.and_then(|options| options.sparse)),
            expire_after: options.and_then(|options| options.expire_after),
        }
    }

    pub(crate) fn shown(&self) -> Value {
        serde_json::json!({
            "keys": Bson::Document(self.keys.clone()).into_relaxed_extjson(),
            "unique": self.unique,
            "sparse": self.sparse,
            "expireAfterSeconds": self.expire_after.map(|after| after.as_secs()),
        })
    }
}

/// Reads a list of indexes.
///
/// # Errors
/// What is wrong with one, and where it stands.
pub(crate) fn indexes(value: &Bson, at: &At<'_>) -> Result<Vec<Index>, Refused> {
    let Bson::Array(items) = value else {
        return Err(at.refused("must be an array"));
    };
    if items.len() > MAX_INDEXES {
        return Err(at.refused(format!("must have at most {MAX_INDEXES} items")));
    }
    let mut read: Vec<Index> = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let at = at.index(place);
        let index = index(item, &at)?;
        if read.iter().any(|other| other.name() == index.name()) {
            let rule = "has the fields and directions of one before it, or the name that follows from them";
            return Err(at.field("keys").refused(rule));
        }
        read.push(index);
    }
    Ok(read)
}

fn index(value: &Bson, at: &At<'_>) -> Result<Index, Refused> {
    let object = value
        .as_document()
        .ok_or_else(|| at.refused("must be an object"))?;
    let known = ["keys", "unique", "sparse", "expireAfterSeconds"];
    if let Some(other) = object.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(at
            .field(other)
            .refused(format!("is not known here; known are {}", known.join(", "))));
    }
    let flag = |name: &str| match object.get(name) {
        None => Ok(false),
        Some(Bson::Boolean(flag)) => Ok(*flag),
        Some(_) => Err(at.field(name).refused("must be true or false")),
    };
    let keys_at = at.field("keys");
    let Some(Bson::Document(keys)) = object.get("keys") else {
        return Err(keys_at.refused("must be an object of fields, each 1 or -1"));
    };
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(keys_at.refused(format!("must name 1 to {MAX_KEYS} fields")));
    }
    let mut read = Document::new();
    for (path, direction) in keys {
        let at = keys_at.field(path);
        field_path(path).map_err(|rule| at.refused(rule))?;
        match direction {
            Bson::Int32(1) => read.insert(path, 1),
            Bson::Int32(-1) => read.insert(path, -1),
            _ => return Err(at.refused("must be 1 or -1")),
        };
    }
    if read.len() == 1 && read.contains_key("_id") {
        return Err(keys_at.refused("is _id alone, which every collection has an index on"));
    }
    let expiry_at = at.field("expireAfterSeconds");
    if object.contains_key("expireAfterSeconds") && read.len() > 1 {
        return Err(expiry_at.refused("goes with one field only"));
    }
    let expire_after = match object.get("expireAfterSeconds") {
        None => None,
        Some(Bson::Int32(seconds)) if (0..=MAX_EXPIRY_S).contains(&i64::from(*seconds)) => Some(
            Duration::from_secs(u64::try_from(*seconds).unwrap_or_default()),
        ),
        Some(_) => {
            return Err(
                expiry_at.refused(format!("must be a whole number from 0 to {MAX_EXPIRY_S}"))
            );
        }
    };
    Ok(Index {
        keys: read,
        unique: flag("unique")?,
        sparse: flag("sparse")?,
        expire_after,
    })
}

/// Where a document broke the validator, from the server's explanation.
#[must_use]
pub(crate) fn failing(details: &Document) -> Option<String> {
    fn walk(rule: &Document, path: &str, left: u8) -> Option<String> {
        let left = left.checked_sub(1)?;
        let join = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        if let Ok(missing) = rule.get_array("missingProperties")
            && let Some(Bson::String(name)) = missing.first()
        {
            return Some(format!("{} is missing", join(name)));
        }
        if let Ok(surplus) = rule.get_array("additionalProperties")
            && let Some(Bson::String(name)) = surplus.first()
        {
            return Some(format!("{} is not in the schema", join(name)));
        }
        for list in [
            "schemaRulesNotSatisfied",
            "propertiesNotSatisfied",
            "schemasNotSatisfied",
            "details",
        ] {
            for item in rule
                .get_array(list)
                .into_iter()
                .flatten()
                .filter_map(Bson::as_document)
            {
                let named = ["propertyName", "failingProperty"]
                    .iter()
                    .find_map(|name| item.get_str(name).ok());
                let inner = match (named, item.get("itemIndex")) {
                    (Some(name), _) => join(name),
                    (_, Some(Bson::Int32(index))) => join(&index.to_string()),
                    _ => path.to_owned(),
                };
                if let Some(found) = walk(item, &inner, left) {
                    return Some(found);
                }
            }
        }
        let keyword = rule.get_str("operatorName").ok()?;
        let what = if path.is_empty() {
            "the document"
        } else {
            path
        };
        let leaf = rule.contains_key("reason") && keyword != "$jsonSchema";
        leaf.then(|| format!("{what} breaks {keyword}"))
    }
    let rules = details.get_document("details").unwrap_or(details);
    walk(rules, "", 40)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use bson::bson;

    use super::*;

    #[test]
    fn a_closed_schema_lets_the_tenants_fields_be() {
        let asked = bson!({"jsonSchema": {"bsonType": "object", "required": ["a"], "properties": {"a": {"bsonType": "int"}}, "additionalProperties": false}});
        let validator = read(&asked, &At::root("validator")).unwrap();
        let properties = validator
            .get_document("$jsonSchema")
            .unwrap()
            .get_document("properties")
            .unwrap();
        assert!(
            [TENANT, WORKSPACE, "_id", "a"]
                .iter()
                .all(|name| properties.contains_key(name))
        );
        assert!(!shown(&validator).to_string().contains("_tenantId"));
    }

    #[test]
    fn the_tenants_fields_are_not_counted_and_not_shown() {
        let asked = bson!({"jsonSchema": {
            "minProperties": 1_i64, "maxProperties": 2_i64, "additionalProperties": {"bsonType": "int"},
            "properties": {"_id": {}, "deep": {"maxProperties": 3_i64, "additionalProperties": false}},
            "allOf": [{"additionalProperties": false, "properties": {"_id": {}, "a": {}}}],
            "not": {"minProperties": 9_i64},
        }});
        let validator = read(&asked, &At::root("validator")).unwrap();
        let schema = validator.get_document("$jsonSchema").unwrap();
        let due = doc! {
            "minProperties": 3_i64, "maxProperties": 4_i64, "additionalProperties": {"bsonType": "int"},
            "allOf": [{"additionalProperties": false, "properties": {"_id": {}, "a": {}, TENANT: {}, WORKSPACE: {}}}],
            "not": {"minProperties": 11_i64},
            "properties": {
                "_id": {}, "deep": {"maxProperties": 3_i64, "additionalProperties": false},
                TENANT: {}, WORKSPACE: {},
            },
        };
        assert_eq!(*schema, due);
        let shown = Bson::try_from(shown(&validator)).unwrap();
        let same = |value: &Bson| value.clone().into_relaxed_extjson();
        assert_eq!(same(&shown), same(&asked));
        for bad in [bson!(-1), bson!(1.5), bson!("2")] {
            let asked = bson!({"jsonSchema": {"maxProperties": bad}});
            assert!(read(&asked, &At::root("validator")).is_err());
        }
    }

    #[test]
    fn keywords_are_an_allow_list() {
        for bad in [
            bson!({"jsonSchema": {"$ref": "x"}}),
            bson!({"jsonSchema": {"properties": {"_tenantId": {}}}}),
            bson!({"jsonSchema": {"properties": {"a": {"encrypt": {}}}}}),
            bson!({"jsonSchema": {"pattern": "x".repeat(1_000)}}),
            bson!({"$where": "1"}),
        ] {
            assert!(read(&bad, &At::root("validator")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_failing_path_is_found() {
        let told = doc! {"failingDocumentId": 1, "details": {"operatorName": "$jsonSchema", "schemaRulesNotSatisfied": [
        {"operatorName": "properties", "propertiesNotSatisfied": [
            {"propertyName": "a", "details": [{"operatorName": "properties", "propertiesNotSatisfied": [
                {"propertyName": "b", "details": [{"operatorName": "minimum", "reason": "comparison failed"}]}]}]}]}]}};
        assert_eq!(failing(&told).unwrap(), "a.b breaks minimum");
        let told = doc! {"details": {"operatorName": "$jsonSchema", "schemaRulesNotSatisfied": [
        {"operatorName": "required", "missingProperties": ["x"]}]}};
        assert_eq!(failing(&told).unwrap(), "x is missing");
        let told = doc! {"details": {"operatorName": "$jsonSchema", "schemaRulesNotSatisfied": [
        {"operatorName": "maxProperties", "reason": "specified number of properties was not satisfied"}]}};
        assert_eq!(failing(&told).unwrap(), "the document breaks maxProperties");
    }

    #[test]
    fn indexes_are_checked() {
        let good = bson!([{"keys": {"a": 1, "b.c": -1}, "unique": true}, {"keys": {"at": 1}, "expireAfterSeconds": 60}]);
        assert_eq!(indexes(&good, &At::root("indexes")).unwrap().len(), 2);
        let good = bson!([{"keys": {"a": 1, "b": 1}}, {"keys": {"b": 1, "a": 1}}, {"keys": {"a": -1, "_id": 1}}]);
        assert_eq!(indexes(&good, &At::root("indexes")).unwrap().len(), 3);
        for bad in [
            bson!([{"keys": {}}]),
            bson!([{"keys": {"a": "text"}}]),
            bson!([{"keys": {"_tenantId": 1}}]),
            bson!([{"keys": {"a": 1}, "collation": {}}]),
            bson!([{"keys": {"_id": -1}}]),
            bson!([{"keys": {"_id": 1}, "sparse": true}]),
            bson!([{"keys": {"a": 1, "b": 1}, "expireAfterSeconds": 60}]),
            bson!([{"keys": {"a": 1}}, {"keys": {"a": 1}, "unique": true}]),
            bson!([{"keys": {"a": 1, "b": 1}}, {"keys": {"a_1_b": 1}}]),
        ] {
            assert!(indexes(&bad, &At::root("indexes")).is_err(), "{bad}");
        }
    }
}
