//! Statements that change rows, and calls.
//!
//! ```sql
//! WITH w AS (INSERT INTO … SELECT … FROM json_to_recordset($1::json) AS j("a" int8, …) RETURNING *)
//! SELECT row_to_json(r.*)::varchar(8388609) FROM w AS t0 CROSS JOIN LATERAL (SELECT t0."a" AS "a", …) r
//! ```
//! Bodies are bound whole: PostgreSQL reads each value as its column's type, so no digit
//! passes through a type of ours. Without a representation it is the bare change, and the
//! number of rows is what PostgreSQL reports.

use crate::catalog::{Column, Table};
use crate::parse::Missing;
use crate::plan::{Call, Insert, Remove, Rows, Source, Unplanned, Update};

use super::fits::Fits;
use super::read::{beside, inner_outputs, limit, members, order, shown_of_page, wherever};
use super::{Alias, Sql};

/// Writes an insert; `shown`: with what the new rows show.
pub(crate) fn insert(plan: &Insert, shown: bool, most: usize) -> Result<Sql, Unplanned> {
    let (mut sql, own) = begin(&plan.rows, most);
    let table = &plan.rows.table;
    open(&mut sql, shown);
    sql.word("INSERT INTO ")
        .qualified(&table.schema, &table.name);
    if plan.columns.is_empty() {
        // A row of defaults for each element.
        sql.word(" SELECT FROM json_array_elements(")
            .value(plan.body.clone(), "json")
            .word(")");
    } else {
        sql.word(" (")
            .between(", ", &plan.columns, |sql, column| {
                sql.name(&column.name);
            })
            .word(") ");
        values(&mut sql, plan);
    }
    if let Some(conflict) = &plan.conflict {
        sql.word(" ON CONFLICT (")
            .between(", ", &conflict.key, |sql, name| {
                sql.name(name);
            })
            .word(") DO ");
        if conflict.merge.is_empty() {
            sql.word("NOTHING");
        } else {
            sql.word("UPDATE SET ")
                .between(", ", &conflict.merge, |sql, name| {
                    sql.name(name).word(" = excluded.").name(name);
                });
        }
    }
    close(&mut sql, shown, &plan.rows, own, "RETURNING *");
    sql.whole()
}

/// A statement on rows, with the name of their table.
fn begin(rows: &Rows, most: usize) -> (Sql, Alias) {
    let mut sql = Sql {
        fits: Fits::of(rows, most),
        ..Sql::default()
    };
    let own = sql.fresh_with(rows.joins.len());
    (sql, own)
}

/// The rows of the body, as the columns' types.
fn values(sql: &mut Sql, plan: &Insert) {
    let columns = &plan.columns;
    if plan.missing == Missing::Null || columns.iter().all(|column| column.default.is_none()) {
        sql.word("SELECT ");
        named(sql, columns);
        sql.word(" FROM json_to_recordset(")
            .value(plan.body.clone(), "json")
            .word(") AS j(");
        typed(sql, columns);
        sql.word(")");
        return;
    }
    sql.word("SELECT ")
        .between(", ", columns, |sql, column| match &column.default {
            None => {
                sql.word("j.").name(&column.name);
            }
            Some(default) => {
                sql.word("CASE WHEN (e.value -> ")
                    .value(column.name.clone(), "text")
                    .word(") IS NULL THEN (")
                    .catalog(default)
                    .word(")::")
                    .catalog(&column.declared)
                    .word(" ELSE j.")
                    .name(&column.name)
                    .word(" END");
            }
        })
        .word(" FROM json_array_elements(")
        .value(plan.body.clone(), "json")
        .word(") AS e CROSS JOIN LATERAL json_to_record(e.value) AS j(");
    typed(sql, columns);
    sql.word(")");
}

/// `j."a", j."b"`
fn named(sql: &mut Sql, columns: &[Column]) {
    sql.between(", ", columns, |sql, column| {
        sql.word("j.").name(&column.name);
    });
}

/// `"a" pg_catalog.int8, "b" pg_catalog.text`
fn typed(sql: &mut Sql, columns: &[Column]) {
    sql.between(", ", columns, |sql, column| {
        sql.name(&column.name).word(" ").catalog(&column.declared);
    });
}

/// Writes an update; `shown`: with what the rows show afterwards.
pub(crate) fn update(plan: &Update, shown: bool, most: usize) -> Result<Sql, Unplanned> {
    let (mut sql, own) = begin(&plan.rows, most);
    open(&mut sql, shown);
    sql.word("UPDATE ");
    aliased(&mut sql, &plan.rows.table, own);
    sql.word(" SET ")
        .between(", ", &plan.columns, |sql, column| {
            sql.name(&column.name).word(" = j.").name(&column.name);
        })
        .word(" FROM json_to_recordset(")
        .value(plan.body.clone(), "json")
        .word(") AS j(");
    typed(&mut sql, &plan.columns);
    sql.word(")");
    wherever(&mut sql, &plan.rows.conditions, own);
    returning(&mut sql, shown, &plan.rows, own);
    sql.whole()
}

/// Writes a removal; `shown`: with what the rows showed.
pub(crate) fn remove(plan: &Remove, shown: bool, most: usize) -> Result<Sql, Unplanned> {
    let (mut sql, own) = begin(&plan.rows, most);
    open(&mut sql, shown);
    sql.word("DELETE FROM ");
    aliased(&mut sql, &plan.rows.table, own);
    wherever(&mut sql, &plan.rows.conditions, own);
    returning(&mut sql, shown, &plan.rows, own);
    sql.whole()
}

fn aliased(sql: &mut Sql, table: &Table, own: Alias) {
    sql.qualified(&table.schema, &table.name)
        .word(" AS ")
        .alias(own);
}

fn open(sql: &mut Sql, shown: bool) {
    if shown {
        sql.word("WITH w AS (");
    }
}

fn returning(sql: &mut Sql, shown: bool, rows: &Rows, own: Alias) {
    if shown {
        sql.word(" RETURNING ").alias(own).word(".*");
    }
    close(sql, shown, rows, own, "");
}

fn close(sql: &mut Sql, shown: bool, rows: &Rows, own: Alias, returning: &'static str) {
    if !shown {
        return;
    }
    if !returning.is_empty() {
        sql.word(" ").word(returning);
    }
    sql.word(") SELECT row_to_json(r.*)").cut();
    sql.word(" FROM w AS ").alias(own);
    beside(sql, &rows.joins, own);
    sql.word(" CROSS JOIN LATERAL (SELECT ");
    members(sql, &rows.outputs, own);
    sql.word(") r");
    sql.row_fits(rows);
}

/// Writes a call: a row of the result is a row, or the value.
pub(crate) fn call(plan: &Call, most: usize) -> Result<Sql, Unplanned> {
    let mut sql = Sql {
        fits: Fits::row(most),
        ..Sql::default()
    };
    match &plan.rows {
        None => {
            // No column of a result is called so.
            sql.word("SELECT to_json(\"?value\")").cut();
            sql.word(" FROM ");
            function(&mut sql, &plan.source);
            sql.word(" AS \"?value\"");
        }
        Some(rows) => {
            let (begun, own) = begin(rows, most);
            sql = begun;
            sql.word("SELECT row_to_json(r.*)").cut();
            sql.word(" FROM (SELECT ");
            inner_outputs(&mut sql, &rows.outputs, own);
            sql.word(" FROM (SELECT f.* FROM ");
            function(&mut sql, &plan.source);
            sql.word(" AS f) AS ").alias(own);
            beside(&mut sql, &rows.joins, own);
            wherever(&mut sql, &rows.conditions, own);
            order(&mut sql, &rows.order, own);
            limit(&mut sql, rows);
            shown_of_page(&mut sql, rows);
        }
    }
    sql.whole()
}

/// `json_to_recordset(…) AS j(…) CROSS JOIN LATERAL "s"."f"("a" => j."a")`
fn function(sql: &mut Sql, source: &Source) {
    let function = &source.function;
    let unnamed = source
        .arguments
        .iter()
        .any(|argument| argument.name.is_empty());
    if !unnamed && !source.arguments.is_empty() {
        sql.word("json_to_recordset(")
            .value(source.body.clone(), "json")
            .word(") AS j(")
            .between(", ", &source.arguments, |sql, argument| {
                sql.name(&argument.name).word(" ").catalog(&argument.sql);
            })
            .word(") CROSS JOIN LATERAL ");
    }
    sql.qualified(&function.schema, &function.name).word("(");
    if unnamed {
        let cast = source
            .arguments
            .first()
            .map_or("json", |argument| argument.sql.as_str());
        sql.value(source.body.clone(), cast);
    } else {
        sql.between(", ", &source.arguments, |sql, argument| {
            sql.name(&argument.name).word(" => j.").name(&argument.name);
        });
    }
    sql.word(")");
}
