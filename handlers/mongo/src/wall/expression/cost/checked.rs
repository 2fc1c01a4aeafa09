//! An expression as the server takes it, with the checks in it.

use bson::{Bson, Document, bson, doc};

use super::super::Expression;
use super::{Loop, MARK, NODE, OURS};
use crate::wall::pattern;

/// Numbers of one `$range`.
const MAX_RANGE: i64 = 10_000;
/// Bytes of a text that is searched for or put in, with the frame of the object around it.
const MAX_NEEDLE: i64 = 300;
/// Bytes of what is taken apart into values that need many times its room.
const MAX_SPLIT: i64 = 1 << 20;

/// Where an expression stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Loops around it.
    pub(super) depth: usize,
    /// What each loop may cost.
    pub(super) share: f64,
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

impl Loop {
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

impl Expression {
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

/// Bytes of a value.
pub(super) fn size(value: &Bson) -> Bson {
    bson!({ "$bsonSize": { "v": value } })
}

/// The expression if this is at most so much, else an error that is ours. It must depend
/// on the document: the server computes what does not before it begins.
pub(super) fn within(cost: Bson, most: f64, expression: Bson) -> Bson {
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
