//! Stages as they go to the server: written anew from what was read, with the wall in
//! every place where documents enter.

use bson::{Bson, Document, doc};

use super::{Lookup, Pipeline, Shown, Stage};
use crate::wall::Wall;
use crate::wall::expression::{Accumulator, Expression, Load};

fn gathered(fields: &[(String, Accumulator)], load: Load) -> Document {
    fields
        .iter()
        .map(|(name, field)| (name.clone(), field.to_bson(load)))
        .collect()
}

fn expressions(fields: &[(String, Expression)], load: Load) -> Document {
    fields
        .iter()
        .map(|(name, field)| (name.clone(), field.to_bson(load)))
        .collect()
}

impl Shown {
    /// What is computed, at any depth.
    fn expressions<'s>(fields: &'s [(String, Self)], found: &mut Vec<&'s Expression>) {
        for (_, field) in fields {
            match field {
                Self::Plain(_) => {}
                Self::Nested(fields) => Self::expressions(fields, found),
                Self::Computed(expression) => found.push(expression),
            }
        }
    }

    fn all(fields: &[(String, Self)], load: Load) -> Document {
        let one = |field: &Self| match field {
            Self::Plain(shown) => Bson::Boolean(*shown),
            Self::Nested(fields) => Bson::Document(Self::all(fields, load)),
            Self::Computed(expression) => expression.to_bson(load),
        };
        fields
            .iter()
            .map(|(name, field)| (name.clone(), one(field)))
            .collect()
    }
}

impl Stage {
    /// What it computes.
    pub(super) fn expressions(&self) -> Vec<&Expression> {
        let mut found = Vec::new();
        match self {
            Self::Match(filter) => found = filter.expressions(),
            Self::Group { id: by, fields }
            | Self::Bucket {
                by, output: fields, ..
            }
            | Self::BucketAuto {
                by, output: fields, ..
            } => {
                found.push(by);
                found.extend(fields.iter().map(|(_, field)| field.expression()));
            }
            Self::Project(fields) => Shown::expressions(fields, &mut found),
            Self::AddFields(fields) => found.extend(fields.iter().map(|(_, field)| field)),
            Self::Lookup(lookup) => found.extend(lookup.vars.iter().map(|(_, var)| var)),
            Self::SortByCount(one) | Self::ReplaceRoot(one) => found.push(one),
            Self::Sort(_)
            | Self::Limit(_)
            | Self::Skip(_)
            | Self::Unwind { .. }
            | Self::Unset(_)
            | Self::Count(_)
            | Self::Facet(_)
            | Self::Sample(_) => {}
        }
        found
    }

    /// How often a document that comes out may hold what one that went in did.
    pub(super) fn growth(&self) -> u64 {
        let copies = || {
            let all = self.expressions();
            let copies = all.iter().map(|one| one.copies(1, &mut Vec::new()));
            copies.fold(0, u64::saturating_add)
        };
        match self {
            Self::AddFields(_) | Self::Project(_) => copies().saturating_add(1),
            Self::Group { .. }
            | Self::Bucket { .. }
            | Self::BucketAuto { .. }
            | Self::ReplaceRoot(_) => copies().max(1),
            Self::Lookup(_) | Self::Facet(_) => 2,
            _ => 1,
        }
    }

    pub(super) fn to_bson(&self, wall: &Wall, load: Load) -> Document {
        match self {
            Self::Match(filter) => doc! { "$match": filter.to_bson() },
            Self::Group { id, fields } => {
                let mut group = doc! { "_id": id.to_bson(load) };
                group.extend(gathered(fields, load));
                doc! { "$group": group }
            }
            Self::Sort(sort) => doc! { "$sort": sort.to_bson() },
            Self::Limit(limit) => doc! { "$limit": *limit },
            Self::Skip(skip) => doc! { "$skip": *skip },
            Self::Project(fields) => doc! { "$project": Shown::all(fields, load) },
            Self::Unwind {
                path,
                index,
                keep_empty,
            } => {
                let mut options =
                    doc! { "path": format!("${path}"), "preserveNullAndEmptyArrays": *keep_empty };
                if let Some(index) = index {
                    options.insert("includeArrayIndex", index);
                }
                doc! { "$unwind": options }
            }
            Self::Lookup(lookup) => doc! { "$lookup": lookup.to_bson(wall, load) },
            Self::AddFields(fields) => doc! { "$addFields": expressions(fields, load) },
            Self::Unset(paths) => doc! { "$unset": paths.clone() },
            Self::Count(name) => doc! { "$count": name },
            Self::Bucket {
                by,
                boundaries,
                default,
                output,
            } => {
                let mut options =
                    doc! { "groupBy": by.to_bson(load), "boundaries": boundaries.clone() };
                if let Some(default) = default {
                    options.insert("default", default.clone());
                }
                doc! { "$bucket": with_output(options, output, load) }
            }
            Self::BucketAuto {
                by,
                buckets,
                granularity,
                output,
            } => {
                let mut options = doc! { "groupBy": by.to_bson(load), "buckets": *buckets };
                if let Some(granularity) = granularity {
                    options.insert("granularity", *granularity);
                }
                doc! { "$bucketAuto": with_output(options, output, load) }
            }
            Self::Facet(facets) => {
                // The stages before have read the documents; a facet reads none of its own.
                let stages = |pipeline: &Pipeline| {
                    let stages = pipeline.stages(wall).into_iter();
                    Bson::Array(stages.map(Bson::Document).collect())
                };
                let facets: Document = facets
                    .iter()
                    .map(|(name, pipeline)| (name.clone(), stages(pipeline)))
                    .collect();
                doc! { "$facet": facets }
            }
            Self::SortByCount(by) => doc! { "$sortByCount": by.to_bson(load) },
            Self::ReplaceRoot(root) => doc! { "$replaceRoot": { "newRoot": root.to_bson(load) } },
            Self::Sample(size) => doc! { "$sample": { "size": *size } },
        }
    }
}

fn with_output(mut options: Document, output: &[(String, Accumulator)], load: Load) -> Document {
    if !output.is_empty() {
        options.insert("output", gathered(output, load));
    }
    options
}

impl Lookup {
    /// Always with a pipeline, also where the client wrote none: the wall stands in it.
    fn to_bson(&self, wall: &Wall, load: Load) -> Document {
        let mut options = doc! { "from": &self.from };
        if let Some((local, foreign)) = &self.fields {
            options.insert("localField", local);
            options.insert("foreignField", foreign);
        }
        if !self.vars.is_empty() {
            options.insert("let", expressions(&self.vars, load));
        }
        options.insert("pipeline", self.pipeline.to_bson(wall));
        options.insert("as", &self.target);
        options
    }
}
