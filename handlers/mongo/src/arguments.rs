//! What a list is asked for: `filter`, `filter.a.b=gte:10`, `projection`, `sort`,
//! `limit`, `skip`, `cursor`, `count`, `json`.

use bson::{Bson, DateTime};
use postern_common::Failure;
use postern_common::query::Query;
use postern_contract::Detail;
use serde_json::Value;

use crate::render::Form;
use crate::wall::{At, Budget, Filter, Projection, Refused, Sort, json, value};

/// Documents of a page, unless it says.
const LIMIT: u32 = 20;
/// What is asked for beyond it is cut.
const MAX_LIMIT: u32 = 1_000;
/// What is skipped is read all the same; beyond this a cursor does better.
const MAX_SKIP: u32 = 1_000_000;
/// Documents that an `in` or `nin` of an argument may name.
const MAX_LIST: usize = 200;

/// A list's arguments, but the cursor: what that means depends on them.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) filter: Filter,
    pub(crate) projection: Projection,
    pub(crate) sort: Sort,
    pub(crate) limit: u32,
    pub(crate) skip: u32,
    pub(crate) cursor: Option<String>,
    pub(crate) count: Count,
    pub(crate) form: Form,
}

/// How the whole list is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Count {
    /// All that match.
    #[default]
    Exact,
    /// All in the collection, from its statistics; the filter plays no part.
    Estimated,
    /// Not at all.
    None,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` with every complaint.
    pub(crate) fn read(mut query: Query) -> Result<Self, Failure> {
        let mut budget = Budget::default();
        let whole = query.optional("filter", |text| {
            whole_filter(text, &mut budget).map_err(|refused| refused.to_string())
        });
        let mut filter = whole.unwrap_or_default();
        for condition in query.prefixed("filter.", |path, text| {
            condition(path, text, &mut budget)
                .map_err(|Refused { at, reason }| Detail::new(at, reason))
        }) {
            filter = filter.and(condition);
        }
        let told = |refused: Refused| refused.reason;
        let projection = query.optional("projection", |text| {
            Projection::read(text, &At::root("projection")).map_err(told)
        });
        let sort = query.optional("sort", |text| {
            Sort::parse(text, &At::root("sort")).map_err(told)
        });
        let (default, most) = (LIMIT, MAX_LIMIT);
        let arguments = Self {
            filter,
            projection: projection.unwrap_or_default(),
            sort: sort.unwrap_or_default(),
            limit: query
                .optional("limit", |text| number(text, 1, most, true))
                .unwrap_or(default),
            skip: query
                .optional("skip", |text| number(text, 0, MAX_SKIP, false))
                .unwrap_or_default(),
            cursor: query.optional("cursor", |text| Ok(text.to_owned())),
            count: query.optional("count", count).unwrap_or_default(),
            form: form(&mut query),
        };
        query.finish()?;
        Ok(arguments)
    }
}

/// `json=relaxed|canonical`.
pub(crate) fn form(query: &mut Query) -> Form {
    let read = |text: &str| match text {
        "relaxed" => Ok(Form::Relaxed),
        "canonical" => Ok(Form::Canonical),
        _ => Err("must be relaxed or canonical".to_owned()),
    };
    query.optional("json", read).unwrap_or_default()
}

fn count(text: &str) -> Result<Count, String> {
    match text {
        "exact" => Ok(Count::Exact),
        "estimated" => Ok(Count::Estimated),
        "none" => Ok(Count::None),
        _ => Err("must be exact, estimated or none".to_owned()),
    }
}

/// A whole number; above the greatest it is cut to it, or refused.
fn number(text: &str, least: u32, most: u32, cut: bool) -> Result<u32, String> {
    let rule = || {
        let beyond = if cut {
            format!("; above {most} it is cut to {most}")
        } else {
            format!(" to {most}")
        };
        format!("must be a whole number from {least}{beyond}")
    };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(rule());
    }
    // More digits than a u32 holds are above the maximum all the same.
    match text.parse::<u32>().unwrap_or(u32::MAX) {
        number if number < least => Err(rule()),
        number if number > most && !cut => Err(rule()),
        number => Ok(number.min(most)),
    }
}

fn whole_filter(text: &str, budget: &mut Budget) -> Result<Filter, Refused> {
    let at = At::root("filter");
    match value(json(text.as_bytes(), &at)?, &at)? {
        Bson::Document(filter) => Filter::read(&filter, budget, &at),
        _ => Err(at.refused("must be an object")),
    }
}

/// `filter.<path>=[<operator>:]<value>`. What comes before the colon is an operator only
/// if there is one of the name: `filter.at=12:30` asks for the text.
fn condition(path: &str, text: &str, budget: &mut Budget) -> Result<Filter, Refused> {
    let root = At::root("filter");
    let at = root.field(path);
    let (operator, rest) = text.split_once(':').unwrap_or(("", text));
    let compare = |operator, text: &str| Filter::compare(path, operator, scalar(text, &at)?, &at);
    match operator {
        "eq" => compare("$eq", rest),
        "ne" => compare("$ne", rest),
        "gt" => compare("$gt", rest),
        "gte" => compare("$gte", rest),
        "lt" => compare("$lt", rest),
        "lte" => compare("$lte", rest),
        "in" => Filter::among(path, "$in", list(rest, &at)?, &at),
        "nin" => Filter::among(path, "$nin", list(rest, &at)?, &at),
        "exists" => match rest {
            "true" => Filter::exists(path, true, &at),
            "false" => Filter::exists(path, false, &at),
            _ => Err(at.refused("must be exists:true or exists:false")),
        },
        "regex" => Filter::regex(path, rest, budget, &at),
        _ => compare("$eq", text),
    }
}

/// A single value: a JSON scalar, an instant, an ObjectId, else the text itself.
fn scalar(text: &str, at: &At<'_>) -> Result<Bson, Refused> {
    if crate::wall::is_beyond(text) {
        return Err(at.refused(crate::wall::BEYOND));
    }
    Ok(plain(text))
}

fn plain(text: &str) -> Bson {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Null) => return Bson::Null,
        Ok(Value::Bool(value)) => return Bson::Boolean(value),
        Ok(Value::String(value)) => return Bson::String(value),
        Ok(Value::Number(number)) => {
            if let Some(number) = crate::wall::number(&number) {
                return number;
            }
        }
        _ => {}
    }
    if let Some(date) = instant(text) {
        return Bson::DateTime(date);
    }
    match bson::oid::ObjectId::parse_str(text) {
        Ok(id) => Bson::ObjectId(id),
        Err(_) => Bson::String(text.to_owned()),
    }
}

/// An instant of RFC 3339, or a day, which begins at midnight UTC.
fn instant(text: &str) -> Option<DateTime> {
    // Nothing shorter is a day, and other parsers' forms are text here.
    if text.len() < 10 || !text.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let instant = match text.parse::<jiff::Timestamp>() {
        Ok(instant) => instant,
        Err(_) if text.len() == 10 => format!("{text}T00:00:00Z").parse().ok()?,
        Err(_) => return None,
    };
    Some(DateTime::from_millis(instant.as_millisecond()))
}

/// Values between commas; one with a comma in it stands in double quotes.
fn list(text: &str, at: &At<'_>) -> Result<Vec<Bson>, Refused> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        let end = if rest.starts_with('"') {
            quoted(rest).ok_or_else(|| at.refused("has a quote that does not end"))?
        } else {
            rest.find(',').unwrap_or(rest.len())
        };
        let (one, after) = rest.split_at(end);
        values.push(scalar(one, at)?);
        if values.len() > MAX_LIST {
            return Err(at.refused(format!(
                "must have at most {MAX_LIST} values; filter={{…}} takes more"
            )));
        }
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(values),
            None => return Err(at.refused("has something between a quote and the comma")),
        }
    }
}

/// Where the JSON string at the beginning ends.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text
        .char_indices()
        .skip(1)
        .find(|(_, c)| match (*c, escaped) {
            (_, true) => {
                escaped = false;
                false
            }
            ('\\', false) => {
                escaped = true;
                false
            }
            (c, false) => c == '"',
        });
    end.map(|(at, _)| at + 1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use bson::{Document, doc};
    use proptest::prelude::*;

    use super::*;

    fn read(raw: &str) -> Result<Arguments, Failure> {
        Arguments::read(Query::parse(Some(raw)).unwrap())
    }

    fn filter(raw: &str) -> Document {
        read(raw).unwrap().filter.to_bson()
    }

    #[test]
    fn values_have_the_type_they_look_like() {
        let date = |text: &str| instant(text).unwrap();
        for (raw, wanted) in [
            ("filter.a=1", doc! {"a": {"$eq": 1}}),
            ("filter.a=1.5", doc! {"a": {"$eq": 1.5}}),
            (
                "filter.a=4294967296",
                doc! {"a": {"$eq": 4_294_967_296_i64}},
            ),
            ("filter.a=true", doc! {"a": {"$eq": true}}),
            ("filter.a=null", doc! {"a": {"$eq": null}}),
            ("filter.a=bob", doc! {"a": {"$eq": "bob"}}),
            ("filter.a=eq:%2210%22", doc! {"a": {"$eq": "10"}}),
            ("filter.a=12:30", doc! {"a": {"$eq": "12:30"}}),
            ("filter.a=eq:eq:b", doc! {"a": {"$eq": "eq:b"}}),
            ("filter.a.b=gte:10", doc! {"a.b": {"$gte": 10}}),
            (
                "filter.a=lt:2024-01-15T10:00:00Z",
                doc! {"a": {"$lt": date("2024-01-15T10:00:00Z")}},
            ),
            (
                "filter.a=2024-01-15",
                doc! {"a": {"$eq": date("2024-01-15T00:00:00Z")}},
            ),
            (
                "filter._id=507f1f77bcf86cd799439011",
                doc! {"_id": {"$eq": bson::oid::ObjectId::parse_str("507f1f77bcf86cd799439011").unwrap()}},
            ),
            (
                "filter.a=in:1,b,%22c,d%22",
                doc! {"a": {"$in": [1, "b", "c,d"]}},
            ),
            ("filter.a=nin:", doc! {"a": {"$nin": [""]}}),
            ("filter.a=exists:false", doc! {"a": {"$exists": false}}),
            ("filter.a=regex:^x", doc! {"a": {"$regex": "^x"}}),
            (
                "filter.a=%7B%22$gt%22:1%7D",
                doc! {"a": {"$eq": "{\"$gt\":1}"}},
            ),
            (
                "filter.a=gt:1&filter.a=lt:5",
                doc! {"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 5}}]},
            ),
            (
                "filter=%7B%22a%22:%7B%22$oid%22:%22507f1f77bcf86cd799439011%22%7D%7D",
                doc! {"a": {"$eq": bson::oid::ObjectId::parse_str("507f1f77bcf86cd799439011").unwrap()}},
            ),
            ("", doc! {}),
        ] {
            assert_eq!(filter(raw), wanted, "{raw}");
        }
    }

    #[test]
    fn whole_numbers_are_not_rounded() {
        for bad in [
            "filter.n=9223372036854775808",
            "filter.n=gt:-9223372036854775809",
            "filter.n=in:1,18446744073709551617",
            "filter=%7B%22n%22:18446744073709551617%7D",
        ] {
            let told = read(bad).unwrap_err().verdict().details.first().cloned();
            assert!(told.unwrap().reason.contains("$numberDecimal"), "{bad}");
        }
        let text = filter("filter.n=%229223372036854775808%22");
        assert_eq!(text, doc! {"n": {"$eq": "9223372036854775808"}});
    }

    #[test]
    fn every_bad_argument_is_listed() {
        let failure = read("filter._tenantId=x&filter.$where=1&filter=%5B%5D&limit=-1&skip=x&count=all&json=x&sort=_tenantId&other=1").unwrap_err();
        let mut named: Vec<_> = failure
            .verdict()
            .details
            .iter()
            .map(|detail| detail.field.to_string())
            .collect();
        named.sort();
        assert_eq!(
            named,
            [
                "count",
                "filter",
                "filter.$where",
                "filter._tenantId",
                "json",
                "limit",
                "other",
                "skip",
                "sort"
            ]
        );
    }

    #[test]
    fn pages() {
        let page = |raw: &str| read(raw).map(|it| (it.limit, it.skip)).ok();
        assert_eq!(page(""), Some((20, 0)));
        assert_eq!(page("limit=5000&skip=3"), Some((1_000, 3)));
        assert_eq!(page("limit=0"), None);
        assert_eq!(page("skip=1000001"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(path in "\\PC{0,20}", text in "\\PC{0,40}") {
            let _ = condition(&path, &text, &mut Budget::default());
        }

        /// Whatever a client writes as a value stays a value.
        #[test]
        fn values_are_never_operators(text in "[${}\":a-z0-9\\[\\],]{0,40}") {
            prop_assert!(!matches!(plain(&text), Bson::Document(_) | Bson::Array(_)));
        }
    }
}
