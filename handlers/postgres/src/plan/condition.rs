//! Operators on types: what applies where, and what the value is read as.

use std::sync::Arc;

use crate::catalog::{Column, Table, Type};
use crate::parse::{self, Compare, Field, FullText, Is, Operator, Quantifier, Step, Value, shown};

use super::Unplanned;
use super::page::Position;
use super::rows::Embedded;

/// A column of the table at hand, or something inside its JSON.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The column's name.
    pub(crate) column: String,
    /// The column's type.
    pub(crate) of: Type,
    /// Whether it may be null.
    pub(crate) nullable: bool,
    /// The way into it.
    pub(crate) path: Vec<Step>,
    /// Whether its values may be of any length.
    pub(crate) wide: bool,
}

/// A condition on a row.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// Every one.
    All(Vec<Condition>),
    /// One at least.
    Any(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// `place operator value`
    Compare {
        /// What is compared.
        place: Place,
        /// PostgreSQL's operator.
        operator: &'static str,
        /// What the value is read as; PostgreSQL's own name, quoted.
        cast: String,
        /// The value.
        value: String,
    },
    /// `place operator ANY (values)`
    Each {
        /// What is compared.
        place: Place,
        /// PostgreSQL's operator.
        operator: &'static str,
        /// `ANY` or `ALL`.
        quantifier: Quantifier,
        /// The array type that the values are read as.
        cast: String,
        /// The values as one array.
        values: String,
    },
    /// `place IS …`
    Is {
        /// What is asked.
        place: Place,
        /// For what.
        is: Is,
    },
    /// `place @@ query`
    FullText {
        /// What is searched.
        place: Place,
        /// Whether it is a `tsvector` already.
        vector: bool,
        /// How the query is written.
        form: FullText,
        /// The configuration.
        config: Option<String>,
        /// The query.
        query: String,
    },
    /// There is an embedded row.
    Exists(Arc<Embedded>),
    /// It stands after a cursor.
    After(Position),
    /// The row's version is one of an array's.
    Version(String),
}

impl Place {
    /// A field of a table.
    ///
    /// # Errors
    /// The table has no such column.
    pub(crate) fn of(table: &Table, field: &Field, parameter: &str) -> Result<Self, Unplanned> {
        let Some(column) = table.column(&field.column) else {
            let reason = format!("{} has no column {}", table.name, shown(&field.column));
            return Err(Unplanned::invalid(shown(parameter), reason));
        };
        Ok(Self {
            path: field.path.clone(),
            ..Self::whole(column)
        })
    }

    /// A column as it is.
    pub(crate) fn whole(column: &Column) -> Self {
        Self {
            column: column.name.clone(),
            of: column.base.clone(),
            nullable: !column.not_null,
            path: Vec::new(),
            wide: column.is_wide(),
        }
    }

    /// What is found there: text after `->>`, jsonb after `->`.
    pub(crate) fn found(&self) -> Type {
        let built_in = |name: &str, category| Type {
            name: name.to_owned(),
            sql: format!("pg_catalog.{name}"),
            array: Some(format!("pg_catalog._{name}")),
            category,
        };
        match self.path.last() {
            None => self.of.clone(),
            Some(step) if step.text => built_in("text", 'S'),
            Some(_) => built_in("jsonb", 'U'),
        }
    }

    /// How messages call it.
    fn shown(&self) -> String {
        shown(&self.column)
    }
}

/// Plans a condition on a field.
///
/// # Errors
/// The operator does not apply to the field's type.
pub(crate) fn condition(
    table: &Table,
    condition: &parse::Condition,
) -> Result<Condition, Unplanned> {
    let place = Place::of(table, &condition.field, &condition.field.column)?;
    let planned = operation(place, &condition.operator)?;
    Ok(if condition.negated {
        Condition::Not(Box::new(planned))
    } else {
        planned
    })
}

fn operation(place: Place, operator: &Operator) -> Result<Condition, Unplanned> {
    let of = place.found();
    let refuse = |what: &str, for_what: &str| {
        let reason = format!("{what} applies to {for_what}, not to {}", of.name);
        Err(Unplanned::invalid(place.shown(), reason))
    };
    match operator {
        Operator::Compare(compare, value) => {
            if let Err(for_what) = applies(*compare, &of) {
                return refuse(word(*compare), for_what);
            }
            let pattern = matches!(compare, Compare::Like | Compare::Ilike);
            let text = pattern || matches!(compare, Compare::Match | Compare::Imatch);
            // Patterns are text whatever kind of text the column is.
            let (cast, array) = if text {
                (
                    "pg_catalog.text".to_owned(),
                    Some("pg_catalog._text".to_owned()),
                )
            } else {
                (of.sql.clone(), of.array.clone())
            };
            let written = |value: &String| {
                if pattern {
                    value.replace('*', "%")
                } else {
                    value.clone()
                }
            };
            let operator = sql_operator(*compare);
            match value {
                Value::One(value) => Ok(Condition::Compare {
                    operator,
                    cast,
                    value: written(value),
                    place,
                }),
                Value::Each(quantifier, values) => match array {
                    Some(cast) if of.category != 'A' => Ok(Condition::Each {
                        operator,
                        quantifier: *quantifier,
                        cast,
                        values: literal_array(values.iter().map(written)),
                        place,
                    }),
                    _ => refuse("any and all", "types that have arrays"),
                },
            }
        }
        Operator::In(values) => match of.array.clone() {
            Some(cast) if of.category != 'A' && of.name != "json" => Ok(Condition::Each {
                operator: "=",
                quantifier: Quantifier::Any,
                cast,
                values: literal_array(values.iter().cloned()),
                place,
            }),
            _ => refuse("in", "types that have arrays"),
        },
        Operator::Is(is) => {
            let of_null = matches!(is, Is::Null | Is::NotNull);
            if of_null || of.category == 'B' {
                Ok(Condition::Is { place, is: *is })
            } else {
                refuse("is.true, is.false and is.unknown", "booleans")
            }
        }
        Operator::IsDistinct(value) => {
            if of.name == "json" {
                return refuse("isdistinct", "types that can be compared");
            }
            Ok(Condition::Compare {
                operator: "IS DISTINCT FROM",
                cast: of.sql.clone(),
                value: value.clone(),
                place,
            })
        }
        Operator::FullText {
            form,
            config,
            query,
        } => {
            let vector = of.name == "tsvector";
            if !(vector || of.is_text() || of.is_json()) {
                return refuse("full text search", "tsvector, text and json");
            }
            Ok(Condition::FullText {
                place,
                vector,
                form: *form,
                config: config.clone(),
                query: query.clone(),
            })
        }
    }
}

/// Whether a comparison applies to a type; if not, to what it does.
fn applies(compare: Compare, of: &Type) -> Result<(), &'static str> {
    let scalar = matches!(of.category, 'B' | 'D' | 'N' | 'S' | 'T' | 'E');
    let (good, for_what) = match compare {
        Compare::Like | Compare::Ilike | Compare::Match | Compare::Imatch => (of.is_text(), "text"),
        Compare::Contains | Compare::Contained => {
            (!(scalar || of.name == "json"), "arrays, ranges and jsonb")
        }
        Compare::Overlaps => (
            of.category == 'A' || of.category == 'I' || of.is_range(),
            "arrays and ranges",
        ),
        Compare::Left
        | Compare::Right
        | Compare::NotRight
        | Compare::NotLeft
        | Compare::Adjacent => (of.is_range(), "ranges"),
        _ => (of.name != "json", "types that can be compared"),
    };
    if good { Ok(()) } else { Err(for_what) }
}

fn word(compare: Compare) -> &'static str {
    match compare {
        Compare::Eq => "eq",
        Compare::Neq => "neq",
        Compare::Gt => "gt",
        Compare::Gte => "gte",
        Compare::Lt => "lt",
        Compare::Lte => "lte",
        Compare::Like => "like",
        Compare::Ilike => "ilike",
        Compare::Match => "match",
        Compare::Imatch => "imatch",
        Compare::Contains => "cs",
        Compare::Contained => "cd",
        Compare::Overlaps => "ov",
        Compare::Left => "sl",
        Compare::Right => "sr",
        Compare::NotRight => "nxr",
        Compare::NotLeft => "nxl",
        Compare::Adjacent => "adj",
    }
}

fn sql_operator(compare: Compare) -> &'static str {
    match compare {
        Compare::Eq => "=",
        Compare::Neq => "<>",
        Compare::Gt => ">",
        Compare::Gte => ">=",
        Compare::Lt => "<",
        Compare::Lte => "<=",
        Compare::Like => "LIKE",
        Compare::Ilike => "ILIKE",
        Compare::Match => "~",
        Compare::Imatch => "~*",
        Compare::Contains => "@>",
        Compare::Contained => "<@",
        Compare::Overlaps => "&&",
        Compare::Left => "<<",
        Compare::Right => ">>",
        Compare::NotRight => "&<",
        Compare::NotLeft => "&>",
        Compare::Adjacent => "-|-",
    }
}

/// Values as the text of one PostgreSQL array, each quoted.
pub(crate) fn literal_array(values: impl Iterator<Item = String>) -> String {
    let mut array = String::from("{");
    for (place, value) in values.enumerate() {
        if place > 0 {
            array.push(',');
        }
        array.push('"');
        for c in value.chars() {
            if matches!(c, '"' | '\\') {
                array.push('\\');
            }
            array.push(c);
        }
        array.push('"');
    }
    array.push('}');
    array
}
