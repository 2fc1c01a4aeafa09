//! Bodies of requests that make or alter tables.

use std::collections::{BTreeSet, HashMap};

use postern_common::Failure;
use postern_common::fields::{Fields, kind};
use postern_contract::Detail;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::catalog::is_scope;
use crate::parse::shown;

use super::{Column, Identity, Index, OnDelete, Reference, types};

/// A table to be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Create {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) primary_key: Vec<String>,
    pub(crate) unique: Vec<Vec<String>>,
    pub(crate) references: Vec<Reference>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) comment: Option<String>,
}

/// What becomes of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alter {
    pub(crate) drop: Vec<String>,
    pub(crate) rename: Vec<(String, String)>,
    pub(crate) add: Vec<Column>,
    pub(crate) unique: Vec<Vec<String>>,
    pub(crate) references: Vec<Reference>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) comment: Option<String>,
}

/// Columns of a table at most: PostgreSQL's own bound is 1,600.
const MAX_COLUMNS: usize = 1_000;
/// Keys, references or indexes of one request.
const MAX_KEYS: usize = 64;
/// Columns of one key: PostgreSQL's own bound is 32, of which the workspace takes one.
const MAX_KEY: usize = 31;

impl Create {
    /// Reads a body.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(body: &[u8], mut fields: Fields) -> Result<Self, Failure> {
        let name = fields.required("name", name);
        let written = written(body, "columns");
        let columns = fields.required("columns", |value| columns(value, &written));
        let primary_key = fields.optional("primaryKey", |value| names(&value, "primaryKey"));
        let unique = fields.optional("unique", |value| lists(&value, "unique"));
        let references = fields.optional("foreignKeys", |value| references(&value));
        let indexes = fields.optional("indexes", |value| indexes(&value));
        let comment = fields.optional("comment", comment);
        if let (Some(columns), Some(_)) = (&columns, &name)
            && columns.list.is_empty()
        {
            fields.complain("columns", "must hold one at least");
        }
        fields.finish()?;
        let (Some(name), Some(columns)) = (name, columns) else {
            return Err(Failure::internal("a field that was read is missing"));
        };
        let mut create = Self {
            name,
            primary_key: primary_key.unwrap_or_default(),
            unique: unique.unwrap_or_default(),
            references: references.unwrap_or_default(),
            indexes: indexes.unwrap_or_default(),
            comment,
            columns: columns.list,
        };
        if create.primary_key.is_empty() {
            create.primary_key = columns.primary_key;
        } else if !columns.primary_key.is_empty() {
            let reason = "names the primary key, and so do columns; use one of them";
            return Err(Failure::invalid_field("primaryKey", reason));
        }
        create.unique.extend(columns.unique);
        create.references.extend(columns.references);
        let known: BTreeSet<&str> = create.columns.iter().map(|c| c.name.as_str()).collect();
        let keys = create.unique.iter().chain([&create.primary_key]);
        let named = keys
            .chain(create.references.iter().map(|reference| &reference.columns))
            .chain(create.indexes.iter().map(|index| &index.columns))
            .flatten();
        for name in named {
            if !known.contains(name.as_str()) {
                let reason = format!("holds no {}, which a key or an index names", shown(name));
                return Err(Failure::invalid_field("columns", reason));
            }
        }
        for column in &mut create.columns {
            if create.primary_key.contains(&column.name) {
                column.nullable = false;
            }
        }
        Ok(create)
    }
}

impl Alter {
    /// Reads a body.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(body: &[u8], mut fields: Fields) -> Result<Self, Failure> {
        let drop = fields.optional("dropColumns", |value| names(&value, "dropColumns"));
        let rename = fields.optional("renameColumns", renames);
        let written = written(body, "addColumns");
        let add = fields.optional("addColumns", |value| columns(value, &written));
        let unique = fields.optional("addUnique", |value| lists(&value, "addUnique"));
        let references = fields.optional("addForeignKeys", |value| references(&value));
        let indexes = fields.optional("addIndexes", |value| indexes(&value));
        let comment = fields.optional("comment", comment);
        if add.as_ref().is_some_and(|add| !add.primary_key.is_empty()) {
            fields.complain(
                "addColumns",
                "cannot hold a primary key; a table gets it when it is made",
            );
        }
        fields.finish()?;
        let add = add.unwrap_or_default();
        let mut alter = Self {
            drop: drop.unwrap_or_default(),
            rename: rename.unwrap_or_default(),
            unique: unique.unwrap_or_default(),
            references: references.unwrap_or_default(),
            indexes: indexes.unwrap_or_default(),
            comment,
            add: add.list,
        };
        alter.unique.extend(add.unique);
        alter.references.extend(add.references);
        if alter == Self::default() {
            let reason = "changes nothing: use addColumns, dropColumns, renameColumns, addUnique, addForeignKeys, \
                          addIndexes or comment";
            return Err(Failure::invalid(vec![Detail::new("body", reason)]));
        }
        Ok(alter)
    }
}

/// Columns, and the keys that stand with them.
#[derive(Default)]
struct Columns {
    list: Vec<Column>,
    primary_key: Vec<String>,
    unique: Vec<Vec<String>>,
    references: Vec<Reference>,
}

/// `[A-Za-z_][A-Za-z0-9_]*`, 63 bytes at most, none that the platform fills.
fn identifier(text: &str) -> Result<String, String> {
    let first = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    let good = (1..=63).contains(&text.len())
        && text.as_bytes().first().is_some_and(first)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !good {
        return Err(format!(
            "{:?} is no name: 1 to 63 of A-Z, a-z, 0-9 and _, not beginning with a digit",
            shown(text)
        ));
    }
    if is_scope(text) {
        return Err(format!("{text} is made and filled by the platform"));
    }
    Ok(text.to_owned())
}

fn name(value: Value) -> Result<String, String> {
    match &value {
        Value::String(text) => identifier(text),
        other => Err(format!("must be a string, not {}", kind(other))),
    }
}

fn comment(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) if text.len() <= 1_000 && !text.contains('\0') => Ok(text),
        _ => Err("must be a string of at most 1000 bytes".to_owned()),
    }
}

fn array(value: &Value, most: usize) -> Result<&Vec<Value>, String> {
    match value {
        Value::Array(items) if items.len() <= most => Ok(items),
        Value::Array(_) => Err(format!("must hold at most {most}")),
        other => Err(format!("must be an array, not {}", kind(other))),
    }
}

fn names(value: &Value, what: &str) -> Result<Vec<String>, String> {
    let names = array(value, MAX_KEY)?
        .iter()
        .map(|item| name(item.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<_> = names.iter().collect();
    if names.is_empty() || distinct.len() < names.len() {
        return Err(format!("{what} must name one column at least, each once"));
    }
    Ok(names)
}

fn lists(value: &Value, what: &str) -> Result<Vec<Vec<String>>, String> {
    let lists = array(value, MAX_KEYS)?;
    lists.iter().map(|list| names(list, what)).collect()
}

fn renames(value: Value) -> Result<Vec<(String, String)>, String> {
    let Value::Object(members) = value else {
        return Err(format!(
            "must be an object of old and new names, not {}",
            kind(&value)
        ));
    };
    if members.len() > MAX_KEYS {
        return Err(format!("must hold at most {MAX_KEYS}"));
    }
    members
        .into_iter()
        .map(|(old, new)| Ok((identifier(&old)?, name(new)?)))
        .collect()
}

fn object(value: &Value, known: &[&str]) -> Result<Map<String, Value>, String> {
    let Value::Object(members) = value else {
        return Err(format!("must hold objects, not {}", kind(value)));
    };
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(members.clone()),
        Some(name) => Err(format!(
            "{} is not known; known are {}",
            shown(name),
            known.join(", ")
        )),
    }
}

fn flag(members: &Map<String, Value>, name: &str, default: bool) -> Result<bool, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(format!("{name} must be a boolean, not {}", kind(other))),
    }
}

/// The columns' members as they were written: a number of a default keeps its digits.
fn written(body: &[u8], list: &str) -> Vec<HashMap<String, Box<RawValue>>> {
    let members: HashMap<String, Box<RawValue>> = serde_json::from_slice(body).unwrap_or_default();
    let list = members
        .get(list)
        .map(|list| serde_json::from_str(list.get()));
    // What is no list of objects is refused where its values are read.
    list.and_then(Result::ok).unwrap_or_default()
}

fn columns(value: Value, written: &[HashMap<String, Box<RawValue>>]) -> Result<Columns, String> {
    let mut columns = Columns::default();
    for (place, item) in array(&value, MAX_COLUMNS)?.iter().enumerate() {
        let members = object(
            item,
            &[
                "name",
                "type",
                "nullable",
                "default",
                "identity",
                "primaryKey",
                "unique",
                "references",
            ],
        )?;
        let name = members.get("name").and_then(Value::as_str);
        let name = identifier(name.ok_or("a column needs a name")?)?;
        let said = |reason: String| format!("{name}: {reason}");
        if columns.list.iter().any(|column| column.name == name) {
            return Err(said("stands twice".into()));
        }
        let of = members.get("type").and_then(Value::as_str);
        let of = types::read(of.ok_or_else(|| said("type must be a string".into()))?)
            .map_err(|rule| said(format!("type {rule}")))?;
        let identity = match members.get("identity").unwrap_or(&Value::Null) {
            Value::Null | Value::Bool(false) => None,
            Value::Bool(true) => Some(Identity::ByDefault),
            Value::String(word) if word == "byDefault" => Some(Identity::ByDefault),
            Value::String(word) if word == "always" => Some(Identity::Always),
            _ => return Err(said("identity must be \"always\" or \"byDefault\"".into())),
        };
        if identity.is_some() && !matches!(of.as_str(), "int2" | "int4" | "int8") {
            return Err(said("identity needs a smallint, integer or bigint".into()));
        }
        let default = match members.get("default").unwrap_or(&Value::Null) {
            Value::Null => None,
            _ if identity.is_some() => {
                return Err(said("has an identity and can have no default".into()));
            }
            value => {
                let text = written
                    .get(place)
                    .and_then(|members| members.get("default"));
                let text = text.map_or_else(|| value.to_string(), |text| text.get().to_owned());
                let default = types::default(value, &text, &of);
                Some(default.map_err(|rule| said(format!("default {rule}")))?)
            }
        };
        let is_key = flag(&members, "primaryKey", false)?;
        if is_key {
            columns.primary_key.push(name.clone());
        }
        if flag(&members, "unique", false)? {
            columns.unique.push(vec![name.clone()]);
        }
        if let Some(value) = members.get("references") {
            columns.references.push(column_reference(value, &name)?);
        }
        columns.list.push(Column {
            nullable: flag(&members, "nullable", !is_key && identity.is_none())?,
            name,
            of,
            default,
            identity,
        });
    }
    Ok(columns)
}

fn on_delete(members: &Map<String, Value>) -> Result<OnDelete, String> {
    match members.get("onDelete").unwrap_or(&Value::Null) {
        Value::Null => Ok(OnDelete::NoAction),
        Value::String(word) => match word.as_str() {
            "noAction" => Ok(OnDelete::NoAction),
            "restrict" => Ok(OnDelete::Restrict),
            "cascade" => Ok(OnDelete::Cascade),
            "setNull" => Ok(OnDelete::SetNull),
            _ => Err("onDelete must be noAction, restrict, cascade or setNull".into()),
        },
        _ => Err("onDelete must be a string".into()),
    }
}

/// `{"table": "customers", "column": "id", "onDelete": "cascade"}`
fn column_reference(value: &Value, column: &str) -> Result<Reference, String> {
    let members = object(value, &["table", "column", "onDelete"])?;
    let table = members.get("table").and_then(Value::as_str);
    let target = match members.get("column") {
        None | Some(Value::Null) => Vec::new(),
        Some(target) => vec![name(target.clone())?],
    };
    Ok(Reference {
        columns: vec![column.to_owned()],
        table: identifier(table.ok_or("references needs a table")?)?,
        target_columns: target,
        on_delete: on_delete(&members)?,
    })
}

/// `{"columns": ["a"], "table": "t", "references": ["b"], "onDelete": "cascade"}`
fn references(value: &Value) -> Result<Vec<Reference>, String> {
    let one = |value: &Value| {
        let members = object(value, &["columns", "table", "references", "onDelete"])?;
        let table = members.get("table").and_then(Value::as_str);
        let own = members
            .get("columns")
            .ok_or("a foreign key needs columns")?;
        let target = match members.get("references") {
            None | Some(Value::Null) => Vec::new(),
            Some(target) => names(target, "references")?,
        };
        Ok(Reference {
            columns: names(own, "columns")?,
            table: identifier(table.ok_or("a foreign key needs a table")?)?,
            target_columns: target,
            on_delete: on_delete(&members)?,
        })
    };
    array(value, MAX_KEYS)?.iter().map(one).collect()
}

/// `{"columns": ["a"], "method": "gin"}`
fn indexes(value: &Value) -> Result<Vec<Index>, String> {
    const METHODS: [&str; 5] = ["btree", "gin", "gist", "hash", "brin"];
    let one = |value: &Value| {
        let members = object(value, &["columns", "method"])?;
        let columns = members.get("columns").ok_or("an index needs columns")?;
        let method = match members.get("method").unwrap_or(&Value::Null) {
            Value::Null => "btree",
            Value::String(word) => METHODS
                .into_iter()
                .find(|method| method == word)
                .ok_or("method must be btree, gin, gist, hash or brin")?,
            _ => return Err("method must be a string".to_owned()),
        };
        Ok(Index {
            columns: names(columns, "columns")?,
            method,
        })
    };
    array(value, MAX_KEYS)?.iter().map(one).collect()
}
