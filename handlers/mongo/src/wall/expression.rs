//! Aggregation expressions: what is computed from a document.
//!
//! Operators stand in two tables, those with a list of arguments and those with named
//! ones; a few bind variables or have a form of their own. Not there: `$function` and
//! `$accumulator` (code), `$getField` and `$setField` (names that are computed),
//! `$meta`, `$rand`.

mod accumulator;
mod cost;
mod operators;

use bson::{Bson, Document};

pub(super) use accumulator::Accumulator;
pub(super) use cost::Load;
pub(crate) use cost::MARK;
use cost::{Loop, OURS};
use operators::{LISTED, NAMED};

use super::{At, Budget, Refused, array, object, path, string};

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    /// A value as it is.
    Value(Bson),
    /// `$literal`.
    Literal(Bson),
    /// `"$a.b"`.
    Field(String),
    /// `"$$name"` or `"$$name.a.b"`.
    Var(String),
    Object(Vec<(String, Expression)>),
    Array(Vec<Expression>),
    /// An operator over a list, or over one argument written without a list.
    Call(&'static str, Box<Expression>),
    /// An operator over named arguments.
    Named(&'static str, Vec<(&'static str, Expression)>),
    /// `$let`: variables and what is computed with them.
    Let(Vec<(String, Expression)>, Box<Expression>),
    /// `$switch`: branches and the default.
    Switch(Vec<(Expression, Expression)>, Option<Box<Expression>>),
    /// `$sortArray` by the elements or by their fields.
    SortArray(Box<Expression>, Bson),
    /// `$map`, `$filter`, `$reduce`.
    Loop(Box<Loop>),
}

/// Variables of the server that say nothing of other documents.
const SYSTEM_VARS: [&str; 2] = ["NOW", "REMOVE"];
/// Variables that hold a whole document: open once it has lost the tenant's fields.
const DOCUMENT_VARS: [&str; 2] = ["ROOT", "CURRENT"];

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What has no place in one, and where it stands.
    pub(super) fn read(value: &Bson, budget: &mut Budget, at: &At<'_>) -> Result<Self, Refused> {
        budget.node(at)?;
        budget.deeper(at, |budget| match value {
            Bson::String(text) => text_expression(text, budget, at),
            Bson::Array(items) => Ok(Self::Array(list(items, budget, at)?)),
            Bson::Document(fields) => match fields.iter().next() {
                Some((name, argument)) if name.starts_with('$') => {
                    if fields.len() > 1 {
                        return Err(at.refused("has an operator and more beside it"));
                    }
                    call(name, argument, budget, &at.field(name))
                }
                _ => Ok(Self::Object(computed(fields, budget, at)?)),
            },
            Bson::RegularExpression(_) => {
                Err(at.refused("is a pattern, which stands in `regex` only"))
            }
            plain => Ok(Self::Value(plain.clone())),
        })
    }
}

fn list(items: &[Bson], budget: &mut Budget, at: &At<'_>) -> Result<Vec<Expression>, Refused> {
    let mut read = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        read.push(Expression::read(item, budget, &at.index(index))?);
    }
    Ok(read)
}

/// Fields with what each is computed from; also the top of `$addFields`.
pub(super) fn computed(
    fields: &Document,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Vec<(String, Expression)>, Refused> {
    let mut read = Vec::with_capacity(fields.len());
    for (name, field) in fields {
        let at = at.field(name);
        path::field_path(name).map_err(|rule| at.refused(rule))?;
        read.push((name.clone(), Expression::read(field, budget, &at)?));
    }
    Ok(read)
}

fn text_expression(text: &str, budget: &Budget, at: &At<'_>) -> Result<Expression, Refused> {
    if let Some(var) = text.strip_prefix("$$") {
        let (name, rest) = match var.split_once('.') {
            None => (var, None),
            Some((name, rest)) => (name, Some(rest)),
        };
        let known = SYSTEM_VARS.contains(&name)
            || (DOCUMENT_VARS.contains(&name) && budget.stripped)
            || budget.vars.iter().any(|bound| bound == name);
        if !known {
            return Err(at.refused(format!(
                "names the variable $${}, which there is not here",
                name.escape_default()
            )));
        }
        if let Some(rest) = rest {
            path::field_path(rest).map_err(|rule| at.refused(rule))?;
        }
        return Ok(Expression::Var(var.to_owned()));
    }
    match text.strip_prefix('$') {
        Some(field) => {
            let field = path::field_path(field).map_err(|rule| at.refused(rule))?;
            Ok(Expression::Field(field.to_owned()))
        }
        None => Ok(Expression::Value(Bson::String(text.to_owned()))),
    }
}

fn call(
    name: &str,
    argument: &Bson,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Expression, Refused> {
    match name {
        "$literal" => return Ok(Expression::Literal(argument.clone())),
        "$let" => return read_let(argument, budget, at),
        "$switch" => return switch(argument, budget, at),
        "$map" => return over_elements("$map", "in", &[], argument, budget, at),
        "$filter" => return over_elements("$filter", "cond", &["limit"], argument, budget, at),
        "$reduce" => return reduce(argument, budget, at),
        "$sortArray" => return sort_array(argument, budget, at),
        _ => {}
    }
    let named = NAMED.into_iter().find(|(operator, ..)| *operator == name);
    if let (Some((operator, needed, optional)), Bson::Document(arguments)) = (named, argument) {
        if operator.starts_with("$regex") {
            constant_regex(arguments, budget, at)?;
        }
        return Ok(Expression::Named(
            operator,
            arguments_of(arguments, needed, optional, budget, at)?,
        ));
    }
    match LISTED.iter().find(|operator| **operator == name) {
        // One argument may stand without a list, and a list of one means the same.
        Some(operator) => Ok(Expression::Call(
            operator,
            Box::new(Expression::read(argument, budget, at)?),
        )),
        None if named.is_some() => Err(at.refused("must be an object of its arguments")),
        None => {
            Err(at
                .refused("is no operator that is allowed here; docs/mongo.md lists those that are"))
        }
    }
}

fn arguments_of(
    arguments: &Document,
    needed: &'static [&'static str],
    optional: &'static [&'static str],
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Vec<(&'static str, Expression)>, Refused> {
    let known = || needed.iter().chain(optional).copied();
    if let Some(missing) = needed.iter().find(|name| !arguments.contains_key(*name)) {
        return Err(at.refused(format!("needs {missing}")));
    }
    let mut read = Vec::with_capacity(arguments.len());
    for (name, argument) in arguments {
        let at = at.field(name);
        let Some(name) = known().find(|known| known == name) else {
            return Err(at.unknown("argument", &known().collect::<Vec<_>>()));
        };
        let argument = match (name, argument) {
            ("regex", Bson::RegularExpression(_)) => Expression::Value(argument.clone()),
            _ => Expression::read(argument, budget, &at)?,
        };
        read.push((name, argument));
    }
    Ok(read)
}

/// A pattern that is computed could be any pattern: it must be written out.
fn constant_regex(arguments: &Document, budget: &mut Budget, at: &At<'_>) -> Result<(), Refused> {
    let options = match arguments.get("options") {
        None => "",
        Some(options) => string(options, &at.field("options"))?,
    };
    let at = at.field("regex");
    match arguments.get("regex") {
        Some(Bson::RegularExpression(regex)) => budget.regex(&regex.pattern, &regex.options, &at),
        Some(Bson::String(pattern)) if !pattern.starts_with('$') => {
            budget.regex(pattern, options, &at)
        }
        _ => Err(at.refused("must be a pattern as a string that does not begin with `$`")),
    }
}

/// The name of a variable that a client binds.
pub(super) fn variable<'v>(name: &'v str, at: &At<'_>) -> Result<&'v str, Refused> {
    let mut bytes = name.bytes();
    if name.starts_with(OURS) {
        return Err(at.refused(format!("must not begin with {OURS}")));
    }
    let good = name.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        Ok(name)
    } else {
        Err(at.refused("must be a variable's name: a small letter, then letters, digits or `_`"))
    }
}

/// Variables with what each is computed from.
pub(super) fn variables(
    vars: &Bson,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Vec<(String, Expression)>, Refused> {
    let mut read = Vec::new();
    for (name, value) in object(vars, at)? {
        let at = at.field(name);
        read.push((
            variable(name, &at)?.to_owned(),
            Expression::read(value, budget, &at)?,
        ));
    }
    Ok(read)
}

fn only(arguments: &Document, known: &[&str], at: &At<'_>) -> Result<(), Refused> {
    match arguments
        .keys()
        .find(|name| !known.contains(&name.as_str()))
    {
        None => Ok(()),
        Some(name) => Err(at.field(name).unknown("argument", known)),
    }
}

fn needed<'v>(arguments: &'v Document, name: &str, at: &At<'_>) -> Result<&'v Bson, Refused> {
    arguments
        .get(name)
        .ok_or_else(|| at.refused(format!("needs {name}")))
}

fn read_let(argument: &Bson, budget: &mut Budget, at: &At<'_>) -> Result<Expression, Refused> {
    let arguments = object(argument, at)?;
    only(arguments, &["vars", "in"], at)?;
    let vars = variables(needed(arguments, "vars", at)?, budget, &at.field("vars"))?;
    let names: Vec<_> = vars.iter().map(|(name, _)| name.as_str()).collect();
    let within = needed(arguments, "in", at)?;
    let within = budget.bound(&names, |budget| {
        Expression::read(within, budget, &at.field("in"))
    })?;
    Ok(Expression::Let(vars, Box::new(within)))
}

fn switch(argument: &Bson, budget: &mut Budget, at: &At<'_>) -> Result<Expression, Refused> {
    let arguments = object(argument, at)?;
    only(arguments, &["branches", "default"], at)?;
    let list_at = at.field("branches");
    let mut branches = Vec::new();
    for (index, branch) in array(needed(arguments, "branches", at)?, &list_at)?
        .iter()
        .enumerate()
    {
        let at = list_at.index(index);
        let branch = object(branch, &at)?;
        only(branch, &["case", "then"], &at)?;
        let case = Expression::read(needed(branch, "case", &at)?, budget, &at.field("case"))?;
        let then = Expression::read(needed(branch, "then", &at)?, budget, &at.field("then"))?;
        branches.push((case, then));
    }
    let default = arguments
        .get("default")
        .map(|default| Expression::read(default, budget, &at.field("default")));
    Ok(Expression::Switch(
        branches,
        default.transpose()?.map(Box::new),
    ))
}

/// `$map` and `$filter`: an expression for each element, which `as` names.
fn over_elements(
    operator: &'static str,
    each: &'static str,
    optional: &[&'static str],
    argument: &Bson,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Expression, Refused> {
    let arguments = object(argument, at)?;
    let mut known = vec!["input", "as", each];
    known.extend(optional);
    only(arguments, &known, at)?;
    let element = match arguments.get("as") {
        None => "this",
        Some(name) => variable(string(name, &at.field("as"))?, &at.field("as"))?,
    };
    let input = Expression::read(needed(arguments, "input", at)?, budget, &at.field("input"))?;
    let body = needed(arguments, each, at)?;
    let body = budget.bound(&[element], |budget| {
        Expression::read(body, budget, &at.field(each))
    })?;
    let limit = optional
        .first()
        .and_then(|name| Some((*name, arguments.get(*name)?)))
        .map(|(name, limit)| Expression::read(limit, budget, &at.field(name)));
    Ok(Expression::Loop(Box::new(Loop {
        operator,
        input,
        element: element.to_owned(),
        initial: None,
        body,
        limit: limit.transpose()?,
    })))
}

fn reduce(argument: &Bson, budget: &mut Budget, at: &At<'_>) -> Result<Expression, Refused> {
    let arguments = object(argument, at)?;
    only(arguments, &["input", "initialValue", "in"], at)?;
    let input = Expression::read(needed(arguments, "input", at)?, budget, &at.field("input"))?;
    let initial = Expression::read(
        needed(arguments, "initialValue", at)?,
        budget,
        &at.field("initialValue"),
    )?;
    let body = needed(arguments, "in", at)?;
    let body = budget.bound(&["this", "value"], |budget| {
        Expression::read(body, budget, &at.field("in"))
    })?;
    let reduce = Loop {
        operator: "$reduce",
        input,
        element: "this".to_owned(),
        initial: Some(initial),
        body,
        limit: None,
    };
    if reduce.doubles() {
        return Err(at
            .field("in")
            .refused("may hold $$value more than once: it would double with every element"));
    }
    Ok(Expression::Loop(Box::new(reduce)))
}

fn sort_array(argument: &Bson, budget: &mut Budget, at: &At<'_>) -> Result<Expression, Refused> {
    let arguments = object(argument, at)?;
    only(arguments, &["input", "sortBy"], at)?;
    let input = Expression::read(needed(arguments, "input", at)?, budget, &at.field("input"))?;
    let by_at = at.field("sortBy");
    let by = match needed(arguments, "sortBy", at)? {
        Bson::Document(fields) => Bson::Document(
            budget
                .inside(|budget| super::projection::Sort::read(fields, budget, &by_at))?
                .to_bson(),
        ),
        direction => Bson::Int32(super::projection::direction(direction, &by_at)?),
    };
    Ok(Expression::SortArray(Box::new(input), by))
}

#[cfg(test)]
mod tests;
