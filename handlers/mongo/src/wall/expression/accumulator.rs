//! Accumulators: what a group's documents become together.

use bson::{Bson, Document};

use super::{Expression, Load};
use crate::wall::{At, Budget, Refused, TENANT, WORKSPACE, object, path};

/// Operators that gather a group's documents.
const ACCUMULATORS: [&str; 12] = [
    "$addToSet",
    "$avg",
    "$count",
    "$first",
    "$last",
    "$max",
    "$mergeObjects",
    "$min",
    "$push",
    "$stdDevPop",
    "$stdDevSamp",
    "$sum",
];

/// What a group's field gathers.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::wall) struct Accumulator(&'static str, Expression);

impl Accumulator {
    /// Fields of a group, each with its accumulator.
    pub(in crate::wall) fn read_all<'d>(
        fields: impl Iterator<Item = (&'d String, &'d Bson)>,
        budget: &mut Budget,
        at: &At<'_>,
    ) -> Result<Vec<(String, Self)>, Refused> {
        let mut read = Vec::new();
        for (name, gathered) in fields {
            let at = at.field(name);
            path::field_name(name).map_err(|rule| at.refused(rule))?;
            if [TENANT, WORKSPACE].contains(&name.as_str()) {
                return Err(at.refused("is not yours to write"));
            }
            read.push((
                name.clone(),
                Self::read(object(gathered, &at)?, budget, &at)?,
            ));
        }
        Ok(read)
    }

    fn read(gathered: &Document, budget: &mut Budget, at: &At<'_>) -> Result<Self, Refused> {
        let mut operators = gathered.iter();
        let (Some((name, argument)), None) = (operators.next(), operators.next()) else {
            return Err(at.refused("must be one accumulator"));
        };
        let at = at.field(name);
        let Some(operator) = ACCUMULATORS.into_iter().find(|known| known == name) else {
            return Err(at.unknown("accumulator", &ACCUMULATORS));
        };
        if operator == "$count" {
            return match argument {
                Bson::Document(none) if none.is_empty() => {
                    Ok(Self(operator, Expression::Object(Vec::new())))
                }
                _ => Err(at.refused("takes {}")),
            };
        }
        Ok(Self(operator, Expression::read(argument, budget, &at)?))
    }

    pub(in crate::wall) fn expression(&self) -> &Expression {
        &self.1
    }

    pub(in crate::wall) fn to_bson(&self, load: Load) -> Bson {
        Bson::Document(
            [(self.0.to_owned(), self.1.to_bson(load))]
                .into_iter()
                .collect(),
        )
    }
}
