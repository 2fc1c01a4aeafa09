//! Filters: which documents, as a tree of what may be asked.
//!
//! Of MongoDB's query operators there are those that look at one document and need no
//! code: comparison, logic, elements, arrays, bits, `$regex`, `$mod`, `$expr`. Not there:
//! `$where` and `$function` (code), `$text` and geometry (indexes of their own),
//! `$jsonSchema` (a second language with its own depth).

use bson::{Bson, Document, doc};

use super::expression::{Expression, Load};
use super::{At, Budget, Refused, array, object, path, pattern, string, value, whole};

/// Conditions that all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filter(Vec<Condition>);

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// `$and`, `$or`, `$nor` over filters.
    Logic(&'static str, Vec<Filter>),
    /// `$expr`.
    Expression(Expression),
    /// What holds of the value at a path.
    Field(String, Vec<Test>),
}

/// One operator on one value.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// `$eq $ne $gt $gte $lt $lte`: an operator and a value that is taken as it is.
    Compare(&'static str, Bson),
    /// `$in $nin $all`.
    List(&'static str, Vec<Bson>),
    Exists(bool),
    Type(Vec<Bson>),
    Regex {
        pattern: String,
        options: String,
    },
    Not(Vec<Test>),
    /// `$elemMatch` on elements that are values.
    ElementValue(Vec<Test>),
    /// `$elemMatch` on elements that are documents.
    Element(Filter),
    Size(i64),
    Mod(i64, i64),
    /// `$bitsAllSet` and its like.
    Bits(&'static str, i64),
}

const LOGIC: [&str; 3] = ["$and", "$or", "$nor"];
const COMPARE: [&str; 6] = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"];
const LIST: [&str; 3] = ["$in", "$nin", "$all"];
const BITS: [&str; 4] = [
    "$bitsAllSet",
    "$bitsAllClear",
    "$bitsAnySet",
    "$bitsAnyClear",
];
const TOP: [&str; 4] = ["$and", "$or", "$nor", "$expr"];
const TESTS: [&str; 21] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$all",
    "$exists",
    "$type",
    "$regex",
    "$options",
    "$not",
    "$elemMatch",
    "$size",
    "$mod",
    "$bitsAllSet",
    "$bitsAllClear",
    "$bitsAnySet",
    "$bitsAnyClear",
];

/// What `$type` knows, by name and by number.
const TYPES: [(&str, i32); 22] = [
    ("double", 1),
    ("string", 2),
    ("object", 3),
    ("array", 4),
    ("binData", 5),
    ("undefined", 6),
    ("objectId", 7),
    ("bool", 8),
    ("date", 9),
    ("null", 10),
    ("regex", 11),
    ("dbPointer", 12),
    ("javascript", 13),
    ("symbol", 14),
    ("javascriptWithScope", 15),
    ("int", 16),
    ("timestamp", 17),
    ("long", 18),
    ("decimal", 19),
    ("minKey", -1),
    ("maxKey", 127),
    // Any of the four.
    ("number", 1),
];

fn is_type(value: &Bson) -> bool {
    TYPES.iter().any(|(name, number)| match value {
        Bson::String(text) => text == name,
        Bson::Int32(code) => code == number,
        _ => false,
    })
}

/// Items of one `$in`, `$nin`, `$all`, `$and`, `$or`, `$nor`.
const MAX_ITEMS: usize = 1_000;

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What has no place in one, and where it stands.
    pub(crate) fn read(
        filter: &Document,
        budget: &mut Budget,
        at: &At<'_>,
    ) -> Result<Self, Refused> {
        let mut conditions = Vec::with_capacity(filter.len());
        for (name, value) in filter {
            let at = at.field(name);
            budget.node(&at)?;
            conditions.push(budget.deeper(&at, |budget| condition(name, value, budget, &at))?);
        }
        Ok(Self(conditions))
    }

    /// The value at a path compared with another, as an argument of the query has it.
    ///
    /// # Errors
    /// When the path names the tenant's fields or is none.
    pub(crate) fn compare(
        path: &str,
        operator: &'static str,
        value: Bson,
        at: &At<'_>,
    ) -> Result<Self, Refused> {
        Self::test(path, Test::Compare(operator, value), at)
    }

    /// The value at a path among others, or not.
    pub(crate) fn among(
        path: &str,
        operator: &'static str,
        values: Vec<Bson>,
        at: &At<'_>,
    ) -> Result<Self, Refused> {
        Self::test(path, Test::List(operator, values), at)
    }

    /// Whether there is a value at a path.
    pub(crate) fn exists(path: &str, exists: bool, at: &At<'_>) -> Result<Self, Refused> {
        Self::test(path, Test::Exists(exists), at)
    }

    /// The text at a path against a pattern.
    pub(crate) fn regex(
        path: &str,
        pattern: &str,
        budget: &mut Budget,
        at: &At<'_>,
    ) -> Result<Self, Refused> {
        budget.regex(pattern, "", at)?;
        let test = Test::Regex {
            pattern: pattern.to_owned(),
            options: String::new(),
        };
        Self::test(path, test, at)
    }

    fn test(path: &str, test: Test, at: &At<'_>) -> Result<Self, Refused> {
        let path = path::field_path(path).map_err(|rule| at.refused(rule))?;
        Ok(Self(vec![Condition::Field(path.to_owned(), vec![test])]))
    }

    /// Both.
    #[must_use]
    pub(crate) fn and(mut self, mut other: Self) -> Self {
        self.0.append(&mut other.0);
        self
    }

    /// The filter as the server takes it, of documents that nobody else's are among.
    pub(crate) fn to_bson(&self) -> Document {
        self.behind(None)
    }

    /// The same where others' are: what it computes, it computes only where this
    /// expression holds. Every condition stands in a document of its own, so that none
    /// replaces another on the same field.
    pub(super) fn behind(&self, holds: Option<&Bson>) -> Document {
        self.bson(holds, Load::of(&self.expressions()))
    }

    fn bson(&self, holds: Option<&Bson>, load: Load) -> Document {
        let behind = |condition: &Condition| condition.behind(holds, load);
        match self.0.as_slice() {
            [] => Document::new(),
            [one] => behind(one),
            many => doc! { "$and": many.iter().map(behind).collect::<Vec<_>>() },
        }
    }

    /// What it computes.
    pub(super) fn expressions(&self) -> Vec<&Expression> {
        let conditions = self.0.iter().flat_map(|condition| match condition {
            Condition::Logic(_, filters) => filters.iter().flat_map(Self::expressions).collect(),
            Condition::Expression(expression) => vec![expression],
            Condition::Field(..) => Vec::new(),
        });
        conditions.collect()
    }

    /// Whether a document that it describes may be stored: an upsert takes the values
    /// that it names as equal.
    ///
    /// # Errors
    /// What may not, and where it stands.
    pub(crate) fn upserts(&self, at: &At<'_>) -> Result<(), Refused> {
        self.0.iter().try_for_each(|condition| match condition {
            Condition::Logic("$nor", _) => Ok(()),
            Condition::Logic(operator, filters) => {
                let at = at.field(operator);
                filters.iter().try_for_each(|filter| filter.upserts(&at))
            }
            Condition::Expression(_) => Err(at.field("$expr").refused("does not go with upsert")),
            Condition::Field(path, tests) => {
                let at = at.field(path);
                tests.iter().try_for_each(|test| test.upserts(path, &at))
            }
        })
    }
}

fn condition(
    name: &str,
    value: &Bson,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Condition, Refused> {
    if let Some(operator) = LOGIC.into_iter().find(|logic| *logic == name) {
        let filters = items(array(value, at)?, at)?;
        let mut read = Vec::with_capacity(filters.len());
        for (index, filter) in filters.iter().enumerate() {
            let at = at.index(index);
            read.push(Filter::read(object(filter, &at)?, budget, &at)?);
        }
        return Ok(Condition::Logic(operator, read));
    }
    if name == "$expr" {
        return Ok(Condition::Expression(Expression::read(value, budget, at)?));
    }
    if name.starts_with('$') {
        return Err(at.unknown("operator", &TOP));
    }
    let path = budget.path(name, at)?;
    let tests = match value {
        Bson::Document(operators) if has_operators(operators) => tests(operators, budget, at)?,
        Bson::RegularExpression(regex) => {
            vec![searched(&regex.pattern, &regex.options, budget, at)?]
        }
        value => vec![Test::Compare("$eq", literal(value, at)?)],
    };
    Ok(Condition::Field(path.to_owned(), tests))
}

fn has_operators(document: &Document) -> bool {
    document
        .keys()
        .next()
        .is_some_and(|name| name.starts_with('$'))
}

fn items<'v>(items: &'v [Bson], at: &At<'_>) -> Result<&'v [Bson], Refused> {
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(at.refused(format!("must have 1 to {MAX_ITEMS} items")));
    }
    Ok(items)
}

/// A value to compare with. An operator inside it would be none, but is a mistake.
fn literal(value: &Bson, at: &At<'_>) -> Result<Bson, Refused> {
    fn find(value: &Bson) -> Option<&str> {
        match value {
            Bson::Document(fields) => {
                fields
                    .iter()
                    .find_map(|(name, field)| match name.strip_prefix('$') {
                        Some(_) => Some(name.as_str()),
                        None => find(field),
                    })
            }
            Bson::Array(items) => items.iter().find_map(find),
            _ => None,
        }
    }
    match find(value) {
        None if matches!(value, Bson::RegularExpression(_)) => {
            Err(at.refused("is a pattern; write it with $regex"))
        }
        None => Ok(value.clone()),
        Some(name) => Err(at.refused(format!(
            "has {name} inside a value that is compared as it is"
        ))),
    }
}

fn searched(
    pattern: &str,
    options: &str,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Test, Refused> {
    budget.regex(pattern, options, at)?;
    Ok(Test::Regex {
        pattern: pattern.to_owned(),
        options: options.to_owned(),
    })
}

fn tests(operators: &Document, budget: &mut Budget, at: &At<'_>) -> Result<Vec<Test>, Refused> {
    let mut tests = Vec::with_capacity(operators.len());
    for (name, value) in operators {
        let at = at.field(name);
        budget.node(&at)?;
        if name == "$options" {
            if operators.contains_key("$regex") {
                continue;
            }
            return Err(at.refused("needs $regex beside it"));
        }
        tests.push(budget.deeper(&at, |budget| test(name, value, operators, budget, &at))?);
    }
    Ok(tests)
}

fn test(
    name: &str,
    value: &Bson,
    beside: &Document,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Test, Refused> {
    let of = |table: &[&'static str]| table.iter().copied().find(|operator| *operator == name);
    if let Some(operator) = of(&COMPARE) {
        return Ok(Test::Compare(operator, literal(value, at)?));
    }
    if let Some(operator) = of(&LIST) {
        let values = array(value, at)?;
        if values.len() > MAX_ITEMS {
            return Err(at.refused(format!("must have at most {MAX_ITEMS} items")));
        }
        let values: Result<_, _> = values.iter().map(|value| literal(value, at)).collect();
        return Ok(Test::List(operator, values?));
    }
    if let Some(operator) = of(&BITS) {
        return Ok(Test::Bits(operator, whole(value, 0, i64::MAX, at)?));
    }
    match name {
        "$exists" => match value.as_bool() {
            Some(exists) => Ok(Test::Exists(exists)),
            None => Err(at.refused("must be true or false")),
        },
        "$type" => {
            let types = match value {
                Bson::Array(types) => types.as_slice(),
                one => std::slice::from_ref(one),
            };
            if !types.is_empty() && types.iter().all(is_type) {
                Ok(Test::Type(types.to_vec()))
            } else {
                Err(at.refused("must be the name or number of a BSON type, or a list of them"))
            }
        }
        "$regex" => {
            let options = match beside.get("$options") {
                None => "",
                Some(options) => string(options, &at.field("$options"))?,
            };
            match value {
                Bson::RegularExpression(regex) => {
                    searched(&regex.pattern, &regex.options, budget, at)
                }
                text => searched(string(text, at)?, options, budget, at),
            }
        }
        "$not" => match value {
            Bson::RegularExpression(regex) => Ok(Test::Not(vec![searched(
                &regex.pattern,
                &regex.options,
                budget,
                at,
            )?])),
            Bson::Document(operators) if has_operators(operators) => {
                Ok(Test::Not(tests(operators, budget, at)?))
            }
            _ => Err(at.refused("must be an object of operators")),
        },
        "$elemMatch" => match object(value, at)? {
            operators
                if has_operators(operators)
                    && !operators.keys().all(|name| TOP.contains(&name.as_str())) =>
            {
                Ok(Test::ElementValue(tests(operators, budget, at)?))
            }
            filter if filter.contains_key("$expr") => {
                Err(at.refused("takes no $expr: it sees the document, not the element"))
            }
            filter => {
                let filter = budget.inside(|budget| Filter::read(filter, budget, at))?;
                Ok(Test::Element(filter))
            }
        },
        "$size" => Ok(Test::Size(whole(value, 0, i64::from(i32::MAX), at)?)),
        "$mod" => match array(value, at)? {
            [divisor, remainder] => match whole(divisor, i64::MIN, i64::MAX, at)? {
                0 => Err(at.refused("must not divide by 0")),
                divisor => Ok(Test::Mod(
                    divisor,
                    whole(remainder, i64::MIN, i64::MAX, at)?,
                )),
            },
            _ => Err(at.refused("must be [divisor, remainder]")),
        },
        _ => Err(at.unknown("operator", &TESTS)),
    }
}

impl Condition {
    fn behind(&self, holds: Option<&Bson>, load: Load) -> Document {
        match self {
            Self::Logic(operator, filters) => {
                let filters = filters.iter().map(|filter| filter.bson(holds, load));
                doc! { *operator: filters.collect::<Vec<_>>() }
            }
            Self::Expression(expression) => {
                let expression = expression.to_bson(load);
                match holds {
                    None => doc! { "$expr": expression },
                    Some(holds) => doc! { "$expr": { "$cond": [holds, expression, false] } },
                }
            }
            Self::Field(path, tests) => doc! { path: together(tests) },
        }
    }
}

/// Tests of one value. An operator may stand once in a document, and the parser took
/// them from one, so none is lost.
fn together(tests: &[Test]) -> Document {
    let mut operators = Document::new();
    for test in tests {
        test.add(&mut operators);
    }
    operators
}

impl Test {
    /// As [`Filter::upserts`].
    fn upserts(&self, path: &str, at: &At<'_>) -> Result<(), Refused> {
        let values = match self {
            Self::Compare("$eq", value) => std::slice::from_ref(value),
            Self::List("$in" | "$all", values) => values,
            _ => return Ok(()),
        };
        if path.starts_with("_id.") {
            return Err(at.refused("makes an _id that is an object"));
        }
        values.iter().try_for_each(|value| {
            if path == "_id" {
                value::id_type(value, at)?;
            }
            value::stored(value, at)
        })
    }

    fn add(&self, operators: &mut Document) {
        match self {
            Self::Compare(operator, value) => operators.insert(*operator, value.clone()),
            Self::List(operator, values) => operators.insert(*operator, values.clone()),
            Self::Exists(exists) => operators.insert("$exists", *exists),
            Self::Type(types) => operators.insert("$type", types.clone()),
            Self::Regex { pattern, options } => {
                if !options.is_empty() {
                    operators.insert("$options", options);
                }
                operators.insert("$regex", pattern::bounded(pattern))
            }
            Self::Not(tests) => operators.insert("$not", together(tests)),
            Self::ElementValue(tests) => operators.insert("$elemMatch", together(tests)),
            Self::Element(filter) => operators.insert("$elemMatch", filter.to_bson()),
            Self::Size(size) => operators.insert("$size", *size),
            Self::Mod(divisor, remainder) => {
                operators.insert("$mod", vec![Bson::Int64(*divisor), Bson::Int64(*remainder)])
            }
            Self::Bits(operator, mask) => operators.insert(*operator, *mask),
        };
    }
}

#[cfg(test)]
mod tests;
