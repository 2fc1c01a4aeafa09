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

mod checked;
mod copies;

use bson::{Bson, bson};

use super::Expression;
use checked::{Scope, size, within};

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
}

#[cfg(test)]
mod tests;
