//! How often what is stored may stand in what an expression makes of it.

use bson::Bson;

use super::super::{Expression, SYSTEM_VARS};
use super::{CONSTANT, Loop, READING};

/// Copies that one loop's result may hold of what its iterations all read.
const OUTER: u64 = 6;

impl Loop {
    /// Whether what is handed on may stand in the result more than once.
    pub(in crate::wall::expression) fn doubles(&self) -> bool {
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
}

impl Expression {
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
                    None if SYSTEM_VARS.contains(&root) => 0,
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
}
