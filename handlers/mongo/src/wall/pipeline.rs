//! Pipelines: a list of stages, each of which has a place here or is refused.
//!
//! Documents enter a pipeline in two places only: at its start, and in `$lookup`. In
//! both, the predicate stands first and the tenant's fields go second; what stages
//! after that do, they do with this workspace's documents.

mod rebuild;

use std::sync::LazyLock;

use bson::{Bson, Document, doc};

use super::expression::{Accumulator, Expression, Load, computed, variables};
use super::projection::Sort;
use super::{
    At, Budget, Filter, Refused, TENANT, Wall, array, barrier, object, path, string, whole,
};

/// The stages of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pipeline(Vec<Stage>);

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Match(Filter),
    Group {
        id: Expression,
        fields: Vec<(String, Accumulator)>,
    },
    Sort(Sort),
    Limit(i64),
    Skip(i64),
    Project(Vec<(String, Shown)>),
    Unwind {
        path: String,
        index: Option<String>,
        keep_empty: bool,
    },
    Lookup(Box<Lookup>),
    AddFields(Vec<(String, Expression)>),
    Unset(Vec<String>),
    Count(String),
    Bucket {
        by: Expression,
        boundaries: Vec<Bson>,
        default: Option<Bson>,
        output: Vec<(String, Accumulator)>,
    },
    BucketAuto {
        by: Expression,
        buckets: i64,
        granularity: Option<&'static str>,
        output: Vec<(String, Accumulator)>,
    },
    Facet(Vec<(String, Pipeline)>),
    SortByCount(Expression),
    ReplaceRoot(Expression),
    Sample(i64),
}

/// What a `$project` says of a field.
#[derive(Clone, Debug, PartialEq)]
enum Shown {
    Plain(bool),
    Nested(Vec<(String, Shown)>),
    Computed(Expression),
}

/// A join, by equal fields, by a pipeline, or both.
#[derive(Clone, Debug, PartialEq)]
struct Lookup {
    from: String,
    fields: Option<(String, String)>,
    vars: Vec<(String, Expression)>,
    pipeline: Pipeline,
    target: String,
}

/// The stages there are.
pub(crate) const STAGES: [&str; 18] = [
    "$match",
    "$group",
    "$sort",
    "$limit",
    "$skip",
    "$project",
    "$unwind",
    "$lookup",
    "$addFields",
    "$set",
    "$unset",
    "$count",
    "$bucket",
    "$bucketAuto",
    "$facet",
    "$sortByCount",
    "$replaceRoot",
    "$sample",
];
/// Series that `$bucketAuto` rounds to.
const GRANULARITIES: [&str; 13] = [
    "R5",
    "R10",
    "R20",
    "R40",
    "R80",
    "1-2-5",
    "E6",
    "E12",
    "E24",
    "E48",
    "E96",
    "E192",
    "POWERSOF2",
];
/// Documents that one `$sample` draws.
const MAX_SAMPLE: i64 = 10_000;
/// Buckets of one `$bucket` or `$bucketAuto`.
const MAX_BUCKETS: i64 = 1_000;
/// Stages that do nothing in front of one that is slow.
const LOOKS: usize = 12;
/// How often a document may come to hold what it was, before it is measured.
const MAX_GROWN: u64 = 16;
/// Joins in one another.
const MAX_LOOKUPS: usize = 4;

impl Pipeline {
    /// Reads a pipeline.
    ///
    /// # Errors
    /// The stage, operator or option that is not allowed, and where it stands.
    pub(crate) fn read(stages: &[Bson], budget: &mut Budget, at: &At<'_>) -> Result<Self, Refused> {
        // Whatever comes before a client's stage has removed the tenant's fields.
        let before = std::mem::replace(&mut budget.stripped, true);
        let read = read_stages(stages, 0, budget, at);
        budget.stripped = before;
        read
    }

    /// The stages as the server takes them, over a collection: behind the wall.
    pub(crate) fn to_bson(&self, wall: &Wall) -> Vec<Document> {
        wall.head().into_iter().chain(self.stages(wall)).collect()
    }

    fn stages(&self, wall: &Wall) -> Vec<Document> {
        let mut stages = Vec::with_capacity(self.0.len());
        let mut grown = 1_u64;
        for stage in &self.0 {
            let expressions = stage.expressions();
            let load = Load::of(&expressions);
            if load.is_slow() {
                stages.extend(std::iter::repeat_with(look).take(LOOKS));
            }
            // A condition that the server moved would meet others' documents, or these
            // before the stages that they were to go through.
            if matches!(stage, Stage::Match(_)) && !expressions.is_empty() {
                stages.push(barrier());
            }
            stages.push(stage.to_bson(wall, load));
            grown = grown.saturating_mul(stage.growth());
            if grown > MAX_GROWN {
                stages.extend([barrier(), fits()]);
                grown = 1;
            }
        }
        stages
    }
}

/// A stage that does nothing. The server looks at its clock once in 128 calls of a stage:
/// documents in which something is slow go through so many that it is in time.
fn look() -> Document {
    /// A field that no document has: what is stored within an object may have any name that
    /// its client knew, and a stage may have put that object in the document's place.
    static NOWHERE: LazyLock<String> = LazyLock::new(|| {
        let name: u128 = rand::random();
        format!("${TENANT}.{name:032x}")
    });
    doc! { "$unwind": { "path": NOWHERE.as_str(), "preserveNullAndEmptyArrays": true } }
}

/// Lets documents of at most 16 MiB by; others are an error of the server's. What doubles
/// from stage to stage would be beyond every bound in a short pipeline.
fn fits() -> Document {
    doc! { "$match": { "$expr": { "$gte": [{ "$bsonSize": "$$ROOT" }, 0] } } }
}

fn read_stages(
    stages: &[Bson],
    lookups: usize,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Pipeline, Refused> {
    let mut read = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let at = at.index(index);
        budget.stage(&at)?;
        let mut names = object(stage, &at)?.iter();
        let (Some((name, value)), None) = (names.next(), names.next()) else {
            return Err(at.refused("must be an object with one stage"));
        };
        read.push(budget.deeper(&at, |budget| {
            read_stage(name, value, lookups, budget, &at.field(name))
        })?);
    }
    Ok(Pipeline(read))
}

fn read_stage(
    name: &str,
    value: &Bson,
    lookups: usize,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Stage, Refused> {
    Ok(match name {
        "$match" => Stage::Match(Filter::read(object(value, at)?, budget, at)?),
        "$group" => {
            let fields = object(value, at)?;
            let id = fields.get("_id").ok_or_else(|| at.refused("needs _id"))?;
            Stage::Group {
                id: Expression::read(id, budget, &at.field("_id"))?,
                fields: Accumulator::read_all(
                    fields.iter().filter(|(name, _)| *name != "_id"),
                    budget,
                    at,
                )?,
            }
        }
        "$sort" => Stage::Sort(Sort::read(object(value, at)?, budget, at)?),
        "$limit" => Stage::Limit(whole(value, 1, i64::MAX, at)?),
        "$skip" => Stage::Skip(whole(value, 0, i64::MAX, at)?),
        "$project" => match object(value, at)? {
            none if none.is_empty() => return Err(at.refused("must name a field")),
            fields => Stage::Project(shown(fields, budget, at)?),
        },
        "$unwind" => unwind(value, at)?,
        "$lookup" if lookups == MAX_LOOKUPS => {
            return Err(at.refused(format!(
                "is one too many: at most {MAX_LOOKUPS} in one another"
            )));
        }
        "$lookup" => Stage::Lookup(Box::new(lookup(value, lookups, budget, at)?)),
        "$addFields" | "$set" => Stage::AddFields(computed(object(value, at)?, budget, at)?),
        "$unset" => {
            let paths = match value {
                Bson::Array(paths) => paths.as_slice(),
                one => std::slice::from_ref(one),
            };
            let path = |value: &Bson| path_of(value, at);
            Stage::Unset(paths.iter().map(path).collect::<Result<_, _>>()?)
        }
        "$count" => {
            let name = string(value, at)?;
            path::field_name(name).map_err(|rule| at.refused(rule))?;
            Stage::Count(path_of(value, at)?)
        }
        "$bucket" => bucket(object(value, at)?, budget, at)?,
        "$bucketAuto" => bucket_auto(object(value, at)?, budget, at)?,
        "$facet" => {
            let mut facets = Vec::new();
            for (name, stages) in object(value, at)? {
                let at = at.field(name);
                path::field_name(name).map_err(|rule| at.refused(rule))?;
                path::field_path(name).map_err(|rule| at.refused(rule))?;
                facets.push((
                    name.clone(),
                    read_stages(array(stages, &at)?, lookups, budget, &at)?,
                ));
            }
            Stage::Facet(facets)
        }
        "$sortByCount" => Stage::SortByCount(Expression::read(value, budget, at)?),
        "$replaceRoot" => {
            let fields = object(value, at)?;
            only(fields, &["newRoot"], at)?;
            let root = fields
                .get("newRoot")
                .ok_or_else(|| at.refused("needs newRoot"))?;
            Stage::ReplaceRoot(Expression::read(root, budget, &at.field("newRoot"))?)
        }
        "$sample" => {
            let fields = object(value, at)?;
            only(fields, &["size"], at)?;
            let size = fields.get("size").ok_or_else(|| at.refused("needs size"))?;
            Stage::Sample(whole(size, 1, MAX_SAMPLE, &at.field("size"))?)
        }
        _ => return Err(at.unknown("stage", &STAGES)),
    })
}

fn only(fields: &Document, known: &[&str], at: &At<'_>) -> Result<(), Refused> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(at.field(name).unknown("option", known)),
    }
}

/// A path as a string of its own, without a `$`.
fn path_of(value: &Bson, at: &At<'_>) -> Result<String, Refused> {
    let path = path::field_path(string(value, at)?).map_err(|rule| at.refused(rule))?;
    Ok(path.to_owned())
}

fn shown(
    fields: &Document,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Vec<(String, Shown)>, Refused> {
    let mut read = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let at = at.field(name);
        budget.path(name, &at)?;
        budget.node(&at)?;
        let what = match value {
            Bson::Boolean(shown) => Shown::Plain(*shown),
            Bson::Int32(number) => Shown::Plain(*number != 0),
            Bson::Int64(number) => Shown::Plain(*number != 0),
            Bson::Double(number) => Shown::Plain(*number != 0.0),
            Bson::Document(nested) if nested.is_empty() => {
                return Err(at.refused("must not be empty"));
            }
            Bson::Document(nested) if !nested.keys().any(|name| name.starts_with('$')) => {
                let read = |budget: &mut Budget| shown(nested, budget, &at);
                Shown::Nested(budget.deeper(&at, |budget| budget.inside(read))?)
            }
            expression => Shown::Computed(Expression::read(expression, budget, &at)?),
        };
        read.push((name.clone(), what));
    }
    Ok(read)
}

fn unwind(value: &Bson, at: &At<'_>) -> Result<Stage, Refused> {
    let path = |value: &Bson, at: &At<'_>| {
        let text = string(value, at)?;
        let path = text
            .strip_prefix('$')
            .ok_or_else(|| at.refused("must be a path with a `$` in front"))?;
        let path = path::field_path(path).map_err(|rule| at.refused(rule))?;
        Ok(path.to_owned())
    };
    let Bson::Document(options) = value else {
        return Ok(Stage::Unwind {
            path: path(value, at)?,
            index: None,
            keep_empty: false,
        });
    };
    only(
        options,
        &["path", "includeArrayIndex", "preserveNullAndEmptyArrays"],
        at,
    )?;
    let unwound = options
        .get("path")
        .ok_or_else(|| at.refused("needs path"))?;
    let index = options
        .get("includeArrayIndex")
        .map(|index| path_of(index, &at.field("includeArrayIndex")));
    let keep_empty = match options.get("preserveNullAndEmptyArrays") {
        None => false,
        Some(Bson::Boolean(keep)) => *keep,
        Some(_) => {
            return Err(at
                .field("preserveNullAndEmptyArrays")
                .refused("must be true or false"));
        }
    };
    Ok(Stage::Unwind {
        path: path(unwound, &at.field("path"))?,
        index: index.transpose()?,
        keep_empty,
    })
}

fn lookup(
    value: &Bson,
    lookups: usize,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Lookup, Refused> {
    let options = object(value, at)?;
    only(
        options,
        &[
            "from",
            "localField",
            "foreignField",
            "let",
            "pipeline",
            "as",
        ],
        at,
    )?;
    let needed = |name: &str| {
        options
            .get(name)
            .ok_or_else(|| at.refused(format!("needs {name}")))
    };
    let from = {
        let at = at.field("from");
        let name = string(needed("from")?, &at)?;
        path::collection(name)
            .map_err(|rule| at.refused(rule))?
            .to_owned()
    };
    let fields = match (options.get("localField"), options.get("foreignField")) {
        (None, None) => None,
        (Some(local), Some(foreign)) => Some((
            path_of(local, &at.field("localField"))?,
            path_of(foreign, &at.field("foreignField"))?,
        )),
        _ => return Err(at.refused("needs localField and foreignField, or neither")),
    };
    let vars = match options.get("let") {
        None => Vec::new(),
        Some(vars) => variables(vars, budget, &at.field("let"))?,
    };
    let pipeline = match options.get("pipeline") {
        None if fields.is_none() => {
            return Err(at.refused("needs a pipeline, or localField and foreignField"));
        }
        None => Pipeline::default(),
        Some(stages) => {
            let at = at.field("pipeline");
            let stages = array(stages, &at)?;
            let names: Vec<_> = vars.iter().map(|(name, _)| name.as_str()).collect();
            budget.bound(&names, |budget| {
                read_stages(stages, lookups + 1, budget, &at)
            })?
        }
    };
    let target = path_of(needed("as")?, &at.field("as"))?;
    Ok(Lookup {
        from,
        fields,
        vars,
        pipeline,
        target,
    })
}

fn output(
    fields: &Document,
    budget: &mut Budget,
    at: &At<'_>,
) -> Result<Vec<(String, Accumulator)>, Refused> {
    match fields.get("output") {
        None => Ok(Vec::new()),
        Some(output) => {
            let at = at.field("output");
            Accumulator::read_all(object(output, &at)?.iter(), budget, &at)
        }
    }
}

fn group_by(fields: &Document, budget: &mut Budget, at: &At<'_>) -> Result<Expression, Refused> {
    let by = fields
        .get("groupBy")
        .ok_or_else(|| at.refused("needs groupBy"))?;
    Expression::read(by, budget, &at.field("groupBy"))
}

/// A value that the server takes as a constant.
fn constant(value: &Bson, at: &At<'_>) -> Result<Bson, Refused> {
    match value {
        Bson::String(text) if text.starts_with('$') => Err(at.refused("must be a value, no path")),
        Bson::Document(_) | Bson::Array(_) | Bson::RegularExpression(_) => {
            Err(at.refused("must be a single value"))
        }
        value => Ok(value.clone()),
    }
}

fn bucket(fields: &Document, budget: &mut Budget, at: &At<'_>) -> Result<Stage, Refused> {
    only(fields, &["groupBy", "boundaries", "default", "output"], at)?;
    let by = group_by(fields, budget, at)?;
    let list_at = at.field("boundaries");
    let boundaries = array(
        fields
            .get("boundaries")
            .ok_or_else(|| at.refused("needs boundaries"))?,
        &list_at,
    )?;
    if boundaries.len() < 2
        || i64::try_from(boundaries.len()).is_ok_and(|count| count > MAX_BUCKETS)
    {
        return Err(list_at.refused(format!("must have 2 to {MAX_BUCKETS} items")));
    }
    let boundaries = boundaries
        .iter()
        .enumerate()
        .map(|(index, value)| constant(value, &list_at.index(index)));
    Ok(Stage::Bucket {
        by,
        boundaries: boundaries.collect::<Result<_, _>>()?,
        default: fields
            .get("default")
            .map(|value| constant(value, &at.field("default")))
            .transpose()?,
        output: output(fields, budget, at)?,
    })
}

fn bucket_auto(fields: &Document, budget: &mut Budget, at: &At<'_>) -> Result<Stage, Refused> {
    only(fields, &["groupBy", "buckets", "output", "granularity"], at)?;
    let buckets = fields
        .get("buckets")
        .ok_or_else(|| at.refused("needs buckets"))?;
    let granularity = match fields.get("granularity") {
        None => None,
        Some(value) => {
            let at = at.field("granularity");
            let name = string(value, &at)?;
            let known = GRANULARITIES.into_iter().find(|known| *known == name);
            Some(known.ok_or_else(|| at.unknown("series", &GRANULARITIES))?)
        }
    };
    Ok(Stage::BucketAuto {
        by: group_by(fields, budget, at)?,
        buckets: whole(buckets, 1, MAX_BUCKETS, &at.field("buckets"))?,
        granularity,
        output: output(fields, budget, at)?,
    })
}

#[cfg(test)]
mod tests;
