//! What an expression may cost, and the checks that bound it.
//!
//! The server looks at its clock between documents, not within an expression: a loop in a
//! loop, or a value that doubles, takes a core or the memory past every time limit. So an
//! expression is rebuilt with checks in it. A loop looks at its elements before it begins:
//!
//! ```text
//! iterations of the loops around × elements × (operators + bytes that each iteration reads)
//! ```
//!
//! has to be within the loop's share of [`BUDGET`]. An expression that copies what is stored,
//! or goes over it often, does the same with the bytes of all that it reads. What `$reduce`
//! hands on may stand in its result once, so that it grows by addition only. Texts that are
//! searched for are short ones. What breaks a bound is told by [`MARK`].

use bson::{Bson, Document, bson, doc};

use super::Expression;
use crate::wall::pattern;

/// What the expressions of a stage may cost for one document: bytes that are read, or
/// operators at [`NODE`] each. About half a second of a core.
const BUDGET: f64 = 1e8;
/// An operator, in bytes; and one that makes an object or a list.
const NODE: f64 = 20.0;
const MAKING: f64 = 5.0;
/// Operators that a loop's check takes itself.
const CHECK: f64 = 20.0;
/// Operators that a search for a pattern may take.
const PATTERN: f64 = 5_000.0;
/// How often an expression outside loops may go over what it reads without a check.
const FREE: u64 = 8;
/// Sorting or hashing what another operator reads once.
const HEAVY: u64 = 16;
/// Numbers of one `$range`.
const MAX_RANGE: i64 = 10_000;
/// Bytes of a text that is searched for or put in, with the frame of the object around it.
const MAX_NEEDLE: i64 = 300;
/// Bytes of what is taken apart into values that need many times its room.
const MAX_SPLIT: i64 = 1 << 20;
/// Copies that one loop's result may hold of what its iterations all read.
const OUTER: u64 = 6;

/// What the server's error says when a check did not hold.
pub(crate) const MARK: &str = "postern: too much for one document";
/// Variables of ours begin so.
pub(super) const OURS: &str = "postern";

/// Operators of which the result is a single value and the cost does not depend on how
/// much their arguments hold.
const CONSTANT: [&str; 71] = [
    "$abs",
    "$acos",
    "$acosh",
    "$add",
    "$and",
    "$asin",
    "$asinh",
    "$atan",
    "$atan2",
    "$atanh",
    "$ceil",
    "$cos",
    "$cosh",
    "$dayOfMonth",
    "$dayOfWeek",
    "$dayOfYear",
    "$degreesToRadians",
    "$divide",
    "$exp",
    "$floor",
    "$hour",
    "$isArray",
    "$isNumber",
    "$isoDayOfWeek",
    "$isoWeek",
    "$isoWeekYear",
    "$ln",
    "$log",
    "$log10",
    "$millisecond",
    "$minute",
    "$mod",
    "$month",
    "$multiply",
    "$not",
    "$or",
    "$pow",
    "$radiansToDegrees",
    "$range",
    "$round",
    "$second",
    "$sin",
    "$sinh",
    "$size",
    "$sqrt",
    "$subtract",
    "$tan",
    "$tanh",
    "$toBool",
    "$toDate",
    "$toDecimal",
    "$toDouble",
    "$toInt",
    "$toLong",
    "$toObjectId",
    "$trunc",
    "$type",
    "$week",
    "$year",
    "$dateAdd",
    "$dateDiff",
    "$dateFromParts",
    "$dateFromString",
    "$dateSubtract",
    "$dateToParts",
    "$dateToString",
    "$dateTrunc",
    "$convert",
    "$arrayElemAt",
    "$first",
    "$last",
];
/// Operators that read all of their arguments and give a single value.
const READING: [&str; 21] = [
    "$allElementsTrue",
    "$anyElementTrue",
    "$avg",
    "$binarySize",
    "$bsonSize",
    "$cmp",
    "$eq",
    "$gt",
    "$gte",
    "$in",
    "$indexOfArray",
    "$indexOfBytes",
    "$indexOfCP",
    "$lt",
    "$lte",
    "$ne",
    "$stdDevPop",
    "$stdDevSamp",
    "$strLenBytes",
    "$strLenCP",
    "$sum",
];
/// Operators that sort or hash, or look for one text in another.
const SORTING: [&str; 12] = [
    "$setDifference",
    "$setEquals",
    "$setIntersection",
    "$setIsSubset",
    "$setUnion",
    "$indexOfBytes",
    "$indexOfCP",
    "$split",
    "$trim",
    "$ltrim",
    "$rtrim",
    "$replaceAll",
];

/// `$map`, `$filter` or `$reduce`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::wall) struct Loop {
    pub(super) operator: &'static str,
    pub(super) input: Expression,
    /// The name of an element.
    pub(super) element: String,
    /// What `$reduce` begins with.
    pub(super) initial: Option<Expression>,
    /// What is computed for each.
    pub(super) body: Expression,
    /// Of a `$filter`.
    pub(super) limit: Option<Expression>,
}

impl Loop {
    fn bound(&self) -> Vec<&str> {
        match &self.initial {
            None => vec![&self.element],
            Some(_) => vec!["this", "value"],
        }
    }

    /// Whether what is handed on may stand in the result more than once.
    pub(super) fn doubles(&self) -> bool {
        let mut vars = vec![("this".to_owned(), 0), ("value".to_owned(), 1)];
        self.initial.is_some() && self.body.copies(0, &mut vars) > 1
    }

    /// Its result's copies; `free` as in [`Expression::copies`].
    fn copies(&self, free: u64, vars: &mut Vec<(String, u64)>) -> u64 {
        let elements = self.input.copies(free, vars);
        if self.operator == "$filter" {
            return elements;
        }
        let initial = self
            .initial
            .as_ref()
            .map_or(0, |initial| initial.copies(free, vars));
        let mut body = |elements: u64| {
            let before = vars.len();
            vars.extend(self.bound().into_iter().map(|name| (name.to_owned(), 0)));
            if let Some(element) = vars.get_mut(before) {
                element.1 = elements;
            }
            let copies = self.body.copies(free, vars);
            vars.truncate(before);
            copies
        };
        // What each iteration reads of what is around is there as often as there are
        // elements; its check bounds that, unless it is what a `$reduce` hands on.
        let outer = match body(0) {
            0 => 0,
            _ if free == 0 => return u64::MAX,
            _ => OUTER,
        };
        initial.saturating_add(body(elements)).saturating_add(outer)
    }

    /// Behind its check.
    fn to_bson(&self, scope: Scope) -> Bson {
        let inner = Scope {
            depth: scope.depth + 1,
            ..scope
        };
        let (input, times) = (
            format!("{OURS}In{}", scope.depth),
            format!("{OURS}Times{}", scope.depth),
        );
        let elements = Bson::String(format!("$${input}"));
        let mut arguments = doc! { "input": &elements };
        match &self.initial {
            Some(initial) => {
                arguments.insert("initialValue", initial.bson(scope));
                arguments.insert("in", self.body.bson(inner));
            }
            None => {
                arguments.insert("as", &self.element);
                let each = if self.operator == "$map" {
                    "in"
                } else {
                    "cond"
                };
                arguments.insert(each, self.body.bson(inner));
            }
        }
        if let Some(limit) = &self.limit {
            arguments.insert("limit", limit.bson(scope));
        }

        let around = scope.times();
        let count = bson!({ "$cond": [{ "$isArray": [&elements] }, { "$size": &elements }, 0] });
        let goes_over = Bson::Double(1.0 + self.body.goes_over() as f64);
        let mut refs = Vec::new();
        self.body.refs(
            &mut self.bound().into_iter().map(str::to_owned).collect(),
            &mut refs,
        );
        let handed_on = self.initial.as_ref().filter(|initial| {
            let mut vars = vec![("this".to_owned(), 1), ("value".to_owned(), 1)];
            self.body.copies(1, &mut vars) > 0 || initial.copies(1, &mut Vec::new()) > 0
        });
        if let Some(initial) = handed_on {
            // At most all that it is made of, in every iteration.
            initial.refs(&mut Vec::new(), &mut refs);
            refs.push(elements.clone());
        }
        let literals = Bson::Double(self.body.literals());
        let read =
            bson!({ "$multiply": [&goes_over, { "$add": [literals, size(&Bson::Array(refs))] }] });
        let each = bson!({ "$add": [Bson::Double(NODE * self.body.operators()), read] });
        let once = bson!({ "$multiply": [around.clone(), goes_over, size(&elements)] });
        let cost = bson!({ "$add": [{ "$multiply": [format!("$${times}"), each] }, once] });
        let call = Bson::Document(
            [(self.operator.to_owned(), Bson::Document(arguments))]
                .into_iter()
                .collect(),
        );
        let checked = within(cost, scope.share, call);
        let counted = bson!({ "$let": { "vars": { times: { "$multiply": [around, count] } }, "in": checked } });
        bson!({ "$let": { "vars": { input: self.input.bson(scope) }, "in": counted } })
    }
}

/// Bytes of a value.
fn size(value: &Bson) -> Bson {
    bson!({ "$bsonSize": { "v": value } })
}

/// The expression if this is at most so much, else an error that is ours. It must depend
/// on the document: the server computes what does not before it begins.
fn within(cost: Bson, most: f64, expression: Bson) -> Bson {
    let error = bson!({ "$toInt": { "$concat": [MARK, " ", { "$type": "$$ROOT" }] } });
    bson!({ "$cond": [{ "$lte": [cost, most] }, expression, error] })
}

/// The value, if it has at most so many bytes.
fn short(value: Bson, most: i64) -> Bson {
    match &value {
        Bson::String(text) if !text.starts_with('$') && text.len() < 256 => return value,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Null => return value,
        _ => {}
    }
    let name = format!("{OURS}Value");
    let held = Bson::String(format!("$${name}"));
    let checked = within(size(&held), most as f64, held);
    bson!({ "$let": { "vars": { name: value }, "in": checked } })
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Loops around it.
    depth: usize,
    /// What each loop may cost.
    share: f64,
}

impl Scope {
    /// How often it is computed.
    fn times(self) -> Bson {
        match self.depth.checked_sub(1) {
            None => Bson::Double(1.0),
            Some(outer) => Bson::String(format!("$${OURS}Times{outer}")),
        }
    }
}

/// What the expressions of one stage share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    loops: usize,
    checked: usize,
}

impl Load {
    pub(crate) fn of(expressions: &[&Expression]) -> Self {
        Self {
            loops: expressions.iter().map(|one| one.loops()).sum(),
            checked: expressions.iter().filter(|one| one.is_checked()).count(),
        }
    }

    /// Whether the server has to look at its clock more often than it does by itself.
    pub(crate) fn is_slow(self) -> bool {
        self.loops > 0
    }
}

impl Expression {
    /// As the server takes it, with its checks.
    pub(crate) fn to_bson(&self, load: Load) -> Bson {
        let share = |parts: usize| BUDGET / parts.max(1) as f64;
        let whole = self.bson(Scope {
            depth: 0,
            share: share(load.loops),
        });
        if !self.is_checked() {
            return whole;
        }
        let mut refs = Vec::new();
        self.refs(&mut Vec::new(), &mut refs);
        let mut unique = Vec::new();
        for one in refs {
            if !unique.contains(&one) {
                unique.push(one);
            }
        }
        let cost = bson!({ "$multiply": [self.work(&mut Vec::new()).0 as f64, size(&Bson::Array(unique))] });
        within(cost, share(load.checked), whole)
    }

    fn is_checked(&self) -> bool {
        let (work, copies) = self.work(&mut Vec::new());
        work > FREE || (work > 0 && copies > 1)
    }

    /// How many copies of what is stored its result may hold: of what paths and variables
    /// from around are, each of which counts as `free`.
    pub(crate) fn copies(&self, free: u64, vars: &mut Vec<(String, u64)>) -> u64 {
        let least = free.min(1);
        let most = |all: &[&Self], vars: &mut Vec<(String, u64)>| {
            all.iter()
                .map(|one| one.copies(free, vars))
                .max()
                .unwrap_or(0)
        };
        match self {
            Self::Value(
                Bson::Int32(_)
                | Bson::Int64(_)
                | Bson::Double(_)
                | Bson::Decimal128(_)
                | Bson::Boolean(_)
                | Bson::Null
                | Bson::DateTime(_)
                | Bson::ObjectId(_),
            ) => 0,
            Self::Value(_) | Self::Literal(_) => least,
            Self::Field(_) => free,
            Self::Var(name) => {
                let root = name.split('.').next().unwrap_or_default();
                let bound = vars.iter().rev().find(|(name, _)| name == root);
                match bound {
                    Some((_, copies)) => *copies,
                    None if super::SYSTEM_VARS.contains(&root) => 0,
                    None => free,
                }
            }
            Self::Let(bound, within) => {
                let bound: Vec<_> = bound
                    .iter()
                    .map(|(name, value)| (name.clone(), value.copies(free, vars)))
                    .collect();
                let before = vars.len();
                vars.extend(bound);
                let copies = within.copies(free, vars);
                vars.truncate(before);
                copies
            }
            Self::Loop(it) => it.copies(free, vars),
            Self::Switch(branches, default) => {
                let mut results: Vec<&Self> = branches.iter().map(|(_, then)| then).collect();
                results.extend(default.as_deref());
                most(&results, vars)
            }
            Self::Named("$cond", arguments) => {
                let results: Vec<_> = arguments
                    .iter()
                    .filter(|(name, _)| *name != "if")
                    .map(|(_, one)| one)
                    .collect();
                most(&results, vars)
            }
            Self::Call("$cond", _) => most(self.children().get(1..).unwrap_or_default(), vars),
            Self::Call("$ifNull" | "$max" | "$min", _) => most(&self.children(), vars),
            Self::Call("$arrayElemAt" | "$first" | "$last", _) => most(&self.children(), vars),
            Self::Call("$dateToString" | "$type", _)
            | Self::Named("$dateToString" | "$dateToParts" | "$convert", _) => {
                // Short, but two of them are longer.
                most(&self.children(), vars).max(least)
            }
            Self::Call("$range", _) => least,
            Self::Call(operator, _) if CONSTANT.contains(operator) => 0,
            Self::Call(operator, _) if READING.contains(operator) => 0,
            Self::Named(operator, _) if CONSTANT.contains(operator) => 0,
            Self::Named("$regexMatch", _) => 0,
            _ => {
                let all = self.children();
                let sum = all.iter().map(|one| one.copies(free, vars).max(least));
                sum.fold(0, u64::saturating_add).max(least)
            }
        }
    }

    /// How often it goes over what it reads, outside loops; and its result's copies.
    fn work(&self, vars: &mut Vec<(String, u64)>) -> (u64, u64) {
        let copies = self.copies(1, vars);
        let mut work = 0_u64;
        let children: Vec<&Self> = match self {
            Self::Let(bound, within) => {
                let mut inner = vars.clone();
                for (name, value) in bound {
                    work = work.saturating_add(value.work(vars).0);
                    inner.push((name.clone(), value.copies(1, vars)));
                }
                return (work.saturating_add(within.work(&mut inner).0), copies);
            }
            // Its check counts the rest.
            Self::Loop(it) => vec![&it.input],
            _ => self.children(),
        };
        for child in children {
            let (inner, copies) = child.work(vars);
            work = work
                .saturating_add(inner)
                .saturating_add(copies.saturating_mul(self.reads()));
        }
        (work, copies)
    }

    /// How often it goes over its own arguments.
    fn reads(&self) -> u64 {
        match self {
            Self::SortArray(..) => HEAVY,
            Self::Call(operator, _) | Self::Named(operator, _) => {
                if SORTING.contains(operator) || operator.starts_with("$regex") {
                    HEAVY
                } else if CONSTANT.contains(operator) {
                    0
                } else {
                    1
                }
            }
            Self::Object(_) | Self::Array(_) | Self::Switch(..) => 1,
            _ => 0,
        }
    }

    /// The same for all in it but what is in loops.
    fn goes_over(&self) -> u64 {
        let inner = match self {
            Self::Loop(it) => it.input.goes_over(),
            _ => self.children().iter().map(|one| one.goes_over()).sum(),
        };
        inner
            + if matches!(self, Self::Object(_) | Self::Array(_)) {
                0
            } else {
                self.reads()
            }
    }

    /// Operators of a loop's body, without those in its loops.
    fn operators(&self) -> f64 {
        let own = match self {
            Self::Object(_) | Self::Array(_) => MAKING,
            Self::Named(operator, _) if operator.starts_with("$regex") => PATTERN,
            Self::Call("$range", _) => 100.0,
            Self::Loop(it) => {
                let initial = it.initial.as_ref().map_or(0.0, Self::operators);
                return CHECK + it.input.operators() + initial;
            }
            _ => 1.0,
        };
        own + self
            .children()
            .iter()
            .map(|one| one.operators())
            .sum::<f64>()
    }

    /// Bytes that are written out in it.
    fn literals(&self) -> f64 {
        fn bytes(value: &Bson) -> usize {
            match value {
                Bson::String(text) => text.len(),
                Bson::Array(items) => items.iter().map(|item| 16 + bytes(item)).sum(),
                Bson::Document(fields) => fields.values().map(|field| 16 + bytes(field)).sum(),
                Bson::Binary(binary) => binary.bytes.len(),
                _ => 0,
            }
        }
        let own = match self {
            Self::Value(value) | Self::Literal(value) => bytes(value),
            _ => 0,
        };
        own as f64
            + self
                .children()
                .iter()
                .map(|one| one.literals())
                .sum::<f64>()
    }

    fn loops(&self) -> usize {
        usize::from(matches!(self, Self::Loop(_)))
            + self.children().iter().map(|one| one.loops()).sum::<usize>()
    }

    /// Paths and variables that it reads of what is around it.
    fn refs(&self, bound: &mut Vec<String>, refs: &mut Vec<Bson>) {
        let before = bound.len();
        match self {
            Self::Field(path) => refs.push(Bson::String(format!("${path}"))),
            Self::Var(name) => {
                let root = name.split('.').next().unwrap_or_default();
                if !bound.iter().any(|bound| bound == root) && !super::SYSTEM_VARS.contains(&root) {
                    refs.push(Bson::String(format!("$${name}")));
                }
            }
            Self::Let(vars, within) => {
                vars.iter().for_each(|(_, value)| value.refs(bound, refs));
                bound.extend(vars.iter().map(|(name, _)| name.clone()));
                within.refs(bound, refs);
            }
            Self::Loop(it) => {
                let outside = [Some(&it.input), it.initial.as_ref(), it.limit.as_ref()];
                outside
                    .into_iter()
                    .flatten()
                    .for_each(|one| one.refs(bound, refs));
                bound.extend(it.bound().into_iter().map(str::to_owned));
                it.body.refs(bound, refs);
            }
            _ => self.children().iter().for_each(|one| one.refs(bound, refs)),
        }
        bound.truncate(before);
    }

    /// What stands right inside; a list of arguments is no list of its own.
    fn children(&self) -> Vec<&Self> {
        match self {
            Self::Value(_) | Self::Literal(_) | Self::Field(_) | Self::Var(_) => Vec::new(),
            Self::Object(fields) => fields.iter().map(|(_, field)| field).collect(),
            Self::Array(items) => items.iter().collect(),
            Self::Call(_, argument) => match &**argument {
                Self::Array(items) => items.iter().collect(),
                one => vec![one],
            },
            Self::Named(_, arguments) => arguments.iter().map(|(_, argument)| argument).collect(),
            Self::Let(vars, within) => vars
                .iter()
                .map(|(_, value)| value)
                .chain([&**within])
                .collect(),
            Self::Switch(branches, default) => branches
                .iter()
                .flat_map(|(case, then)| [case, then])
                .chain(default.as_deref())
                .collect(),
            Self::SortArray(input, _) => vec![input],
            Self::Loop(it) => [
                Some(&it.input),
                it.initial.as_ref(),
                Some(&it.body),
                it.limit.as_ref(),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    /// As the server takes it, where it stands.
    pub(super) fn bson(&self, scope: Scope) -> Bson {
        let object = |fields: &[(String, Self)]| {
            fields
                .iter()
                .map(|(name, field)| (name.clone(), field.bson(scope)))
                .collect::<Document>()
        };
        let one = |operator: &str, argument: Bson| {
            Bson::Document([(operator.to_owned(), argument)].into_iter().collect())
        };
        match self {
            Self::Value(value) => value.clone(),
            Self::Literal(value) => one("$literal", value.clone()),
            Self::Field(path) => Bson::String(format!("${path}")),
            Self::Var(name) => Bson::String(format!("$${name}")),
            Self::Object(fields) => Bson::Document(object(fields)),
            Self::Array(items) => Bson::Array(items.iter().map(|item| item.bson(scope)).collect()),
            Self::Call("$range", argument) => range(argument, scope),
            Self::Call(operator, argument) => {
                let mut argument = argument.bson(scope);
                let most = match *operator {
                    "$split" | "$indexOfBytes" | "$indexOfCP" => Some((1, MAX_NEEDLE)),
                    _ => None,
                };
                if let (Some((place, most)), Bson::Array(arguments)) = (most, &mut argument) {
                    for (index, value) in arguments.iter_mut().enumerate() {
                        let most = match index {
                            0 if *operator == "$split" => MAX_SPLIT,
                            index if index == place => most,
                            _ => continue,
                        };
                        *value = short(std::mem::take(value), most);
                    }
                }
                if *operator == "$objectToArray" {
                    argument = match argument {
                        Bson::Array(mut list) if list.len() == 1 => {
                            short(list.pop().unwrap_or_default(), MAX_SPLIT)
                        }
                        other => short(other, MAX_SPLIT),
                    };
                }
                one(operator, argument)
            }
            Self::Named(operator, arguments) => {
                let often = scope.depth > 0 || *operator == "$regexFindAll";
                let input = if often {
                    pattern::MAX_INPUT.1
                } else {
                    pattern::MAX_INPUT.0
                };
                let argument = |name: &str, argument: &Self| match (*operator, name, argument) {
                    (_, "regex", Self::Value(Bson::String(text))) => {
                        Bson::String(pattern::searching(text, often))
                    }
                    (_, "regex", Self::Value(Bson::RegularExpression(regex))) => {
                        Bson::RegularExpression(bson::Regex {
                            pattern: pattern::searching(&regex.pattern, often),
                            options: regex.options.clone(),
                        })
                    }
                    ("$regexFind" | "$regexFindAll" | "$regexMatch", "input", input_of) => {
                        short(input_of.bson(scope), input)
                    }
                    (_, "find" | "replacement" | "chars", value) => {
                        short(value.bson(scope), MAX_NEEDLE)
                    }
                    (_, _, value) => value.bson(scope),
                };
                let arguments = arguments
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), argument(name, value)));
                one(operator, Bson::Document(arguments.collect()))
            }
            Self::Let(vars, within) => one(
                "$let",
                Bson::Document(doc! { "vars": object(vars), "in": within.bson(scope) }),
            ),
            Self::Switch(branches, default) => {
                let branches = branches.iter().map(
                    |(case, then)| doc! { "case": case.bson(scope), "then": then.bson(scope) },
                );
                let mut switch = doc! { "branches": branches.collect::<Vec<_>>() };
                if let Some(default) = default {
                    switch.insert("default", default.bson(scope));
                }
                one("$switch", Bson::Document(switch))
            }
            Self::SortArray(input, by) => one(
                "$sortArray",
                Bson::Document(doc! { "input": input.bson(scope), "sortBy": by.clone() }),
            ),
            Self::Loop(it) => it.to_bson(scope),
        }
    }
}

/// `$range` with its length looked at, unless it is written out.
fn range(argument: &Expression, scope: Scope) -> Bson {
    let call = bson!({ "$range": argument.bson(scope) });
    let Expression::Array(bounds) = argument else {
        return call;
    };
    let number = |place: usize| match bounds.get(place) {
        Some(Expression::Value(Bson::Int32(number))) => Some(i64::from(*number)),
        Some(Expression::Value(Bson::Int64(number))) => Some(*number),
        _ => None,
    };
    match (number(0), number(1), bounds.first(), bounds.get(1)) {
        (Some(from), Some(to), ..) if from.abs_diff(to) <= MAX_RANGE.unsigned_abs() => call,
        (_, _, Some(from), Some(to)) => {
            let length = bson!({ "$abs": { "$subtract": [to.bson(scope), from.bson(scope)] } });
            within(length, MAX_RANGE as f64, call)
        }
        _ => call,
    }
}

#[cfg(test)]
mod tests;
