//! Statements that read.
//!
//! ```sql
//! SELECT row_to_json(r.*)::varchar(8388609), p."k"      -- a row's JSON, and its place in the order
//! FROM (SELECT t0."id" AS "c0",
//!              (SELECT row_to_json(r.*) FROM (SELECT t2."name" AS "name" FROM … t2 WHERE …) r) AS "c1",
//!              t1."c0" AS "c2", ARRAY[t0."id"::varchar(3001)] AS "k"
//!       FROM "ws_…"."orders" t0
//!       LEFT JOIN LATERAL (SELECT t3."city" AS "c0" FROM … t3 WHERE …) AS t1 ON true
//!       WHERE … ORDER BY … LIMIT … OFFSET …) p
//! CROSS JOIN LATERAL (SELECT p."c0" AS "id", p."c1" AS "customer", p."c2" AS "city") r
//! ```
//! A row of the answer is a row of the result: so the answer's size is bounded while it
//! comes, and the handler passes bytes on. Embedded rows are subselects of the output:
//! PostgreSQL computes them after the limit, and they leave the order alone. To-one rows
//! whose columns stand among the outer ones, or order them, are joined, once each.

use std::sync::Arc;

use crate::parse::{FullText, Is, Key as PathKey, Quantifier};
use crate::plan::{
    Condition, Embedded, Join, Joined, Key, KeyOf, Link, Output, Place, Position, Rows, Shown,
    Unplanned,
};

use super::fits::{Fits, counts};
use super::{Alias, Sql};

/// Bytes of one value of a cursor at most.
pub(crate) const MAX_KEY: usize = 3_000;

/// A page of rows: their JSON, and where each stands in the order. With the row's
/// version instead, where it is asked for.
pub(crate) fn list(rows: &Rows, versions: bool, most: usize) -> Result<Sql, Unplanned> {
    let mut sql = Sql {
        fits: Fits::of(rows, most),
        ..Sql::default()
    };
    sql.word("SELECT row_to_json(r.*)").cut();
    sql.word(", p.\"k\" FROM (SELECT ");
    let own = sql.fresh_with(rows.joins.len());
    inner_outputs(&mut sql, &rows.outputs, own);
    if !rows.outputs.is_empty() {
        sql.word(", ");
    }
    if versions {
        sql.word("ARRAY[").alias(own).word(".xmin::text]");
    } else if rows.total_order {
        sql.word("ARRAY[")
            .between(", ", &rows.order, |sql, key| {
                key_of(sql, &key.by, own);
                // A longer one makes no cursor.
                sql.word("::varchar(").number(MAX_KEY + 1).word(")");
            })
            .word("]::text[]");
    } else {
        sql.word("NULL::text[]");
    }
    sql.word(" AS \"k\" FROM ")
        .qualified(&rows.table.schema, &rows.table.name)
        .word(" AS ")
        .alias(own);
    beside(&mut sql, &rows.joins, own);
    wherever(&mut sql, &rows.conditions, own);
    order(&mut sql, &rows.order, own);
    limit(&mut sql, rows);
    shown_of_page(&mut sql, rows);
    sql.whole()
}

/// `) p CROSS JOIN LATERAL (SELECT p."c0" AS "id", …) r`
pub(super) fn shown_of_page(sql: &mut Sql, rows: &Rows) {
    sql.word(") p CROSS JOIN LATERAL (SELECT ");
    outer_outputs(sql, &rows.outputs, "p");
    sql.word(") r");
    sql.row_fits(rows);
}

/// How many rows there are, whatever the page.
pub(crate) fn count(rows: &Rows, at_most: Option<u64>) -> Result<Sql, Unplanned> {
    let mut sql = Sql::default();
    let own = sql.fresh();
    match at_most {
        None => {
            sql.word("SELECT count(*) FROM ");
            from(&mut sql, rows, own);
        }
        Some(most) => {
            sql.word("SELECT count(*) FROM (SELECT 1 FROM ");
            from(&mut sql, rows, own);
            sql.word(" LIMIT ")
                .value(most.to_string(), "int8")
                .word(") p");
        }
    }
    sql.whole()
}

/// How many rows the planner believes there are.
pub(crate) fn estimate(rows: &Rows) -> Result<Sql, Unplanned> {
    let mut sql = Sql::default();
    let own = sql.fresh();
    sql.word("EXPLAIN (FORMAT JSON) SELECT 1 FROM ");
    from(&mut sql, rows, own);
    sql.whole()
}

/// Whether there is a row.
pub(crate) fn exists(rows: &Rows) -> Result<Sql, Unplanned> {
    let mut sql = Sql::default();
    let own = sql.fresh();
    sql.word("SELECT 1 FROM ");
    from(&mut sql, rows, own);
    sql.whole()
}

/// `"s"."t" t0 WHERE …`, where nothing of joins is asked for.
fn from(sql: &mut Sql, rows: &Rows, own: Alias) {
    sql.qualified(&rows.table.schema, &rows.table.name)
        .word(" AS ")
        .alias(own);
    wherever(sql, &rows.conditions, own);
}

pub(super) fn wherever(sql: &mut Sql, conditions: &[Condition], own: Alias) {
    if !conditions.is_empty() {
        sql.word(" WHERE ");
        all(sql, conditions, own, " AND ");
    }
}

fn all(sql: &mut Sql, conditions: &[Condition], own: Alias, word: &'static str) {
    sql.between(word, conditions, |sql, one| condition(sql, one, own));
}

pub(super) fn limit(sql: &mut Sql, rows: &Rows) {
    if let Some(limit) = rows.limit {
        sql.word(" LIMIT ").value(limit.to_string(), "int8");
    }
    if rows.offset > 0 {
        sql.word(" OFFSET ").value(rows.offset.to_string(), "int8");
    }
}

/// `… AS "c0", … AS "c1"`
pub(super) fn inner_outputs(sql: &mut Sql, outputs: &[Output], own: Alias) {
    sql.between(", ", outputs.iter().enumerate(), |sql, (place, output)| {
        shown(sql, &output.value, own);
        sql.word(" AS ").name(&format!("c{place}"));
    });
}

/// `p."c0" AS "id", p."c1" AS "customer"`
pub(super) fn outer_outputs(sql: &mut Sql, outputs: &[Output], from: &'static str) {
    sql.between(", ", outputs.iter().enumerate(), |sql, (place, output)| {
        sql.word(from).word(".").name(&format!("c{place}"));
        sql.word(" AS ").name(&output.name);
    });
}

/// `t0."a" AS "a", …`: the members of a row's JSON.
pub(super) fn members(sql: &mut Sql, outputs: &[Output], own: Alias) {
    sql.between(", ", outputs, |sql, output| {
        shown(sql, &output.value, own);
        sql.word(" AS ").name(&output.name);
    });
}

fn shown(sql: &mut Sql, what: &Shown, own: Alias) {
    match what {
        Shown::Place(at, None) => place(sql, at, own),
        Shown::Place(at, Some(cast)) => {
            sql.word("(");
            place(sql, at, own);
            sql.word(")::").word(cast);
        }
        Shown::Count => {
            sql.word("count(*)");
        }
        Shown::Embedded(embedded) if embedded.many => {
            sql.word("(SELECT coalesce(json_agg(r.*), '[]'::json) FROM (SELECT ");
            embedded_rows(sql, embedded, own);
            sql.word(") r");
            sql.list_fits(&embedded.rows);
            sql.word(")");
        }
        Shown::Embedded(embedded) => {
            sql.word("(SELECT row_to_json(r.*) FROM (SELECT ");
            embedded_rows(sql, embedded, own);
            sql.word(") r");
            sql.embedded_fits(&embedded.rows);
            sql.word(")");
        }
        Shown::Joined(joined) => beside_of(sql, *joined, own),
        Shown::Compared(at) => compared(sql, at, own),
    }
}

/// `members FROM inner WHERE link AND conditions ORDER BY … LIMIT …`
fn embedded_rows(sql: &mut Sql, embedded: &Arc<Embedded>, outer: Alias) {
    if !sql.subselect() {
        return;
    }
    let rows = &embedded.rows;
    let inner = sql.fresh_with(rows.joins.len());
    members(sql, &rows.outputs, inner);
    linked(sql, embedded, &rows.joins, outer, inner);
    // A count is one row, whatever the order.
    if embedded.many && !counts(embedded) {
        order(sql, &rows.order, inner);
        limit(sql, rows);
    }
}

/// ` LEFT JOIN LATERAL (SELECT … AS "c0" FROM inner WHERE link AND conditions) AS t1 ON true`
pub(super) fn beside(sql: &mut Sql, joins: &[Join], outer: Alias) {
    for (place, join) in joins.iter().enumerate() {
        if !sql.subselect() {
            return;
        }
        // Of what stands beside the inner row it takes all or nothing.
        let through = |output: &Shown| matches!(output, Shown::Joined(_));
        let joins: &[Join] = match join.outputs.iter().any(through) {
            true => &join.embedded.rows.joins,
            false => &[],
        };
        let inner = sql.fresh_with(joins.len());
        sql.word(" LEFT JOIN LATERAL (SELECT ").between(
            ", ",
            join.outputs.iter().enumerate(),
            |sql, (place, output)| {
                shown(sql, output, inner);
                sql.word(" AS ").name(&format!("c{place}"));
            },
        );
        linked(sql, &join.embedded, joins, outer, inner);
        sql.word(") AS ")
            .alias(outer.beside(place))
            .word(" ON true");
    }
}

/// `t1."c0"`
fn beside_of(sql: &mut Sql, joined: Joined, own: Alias) {
    sql.column(own.beside(joined.join), &format!("c{}", joined.output));
}

/// ` FROM inner [JOIN between] [joins] WHERE link AND conditions`
fn linked(sql: &mut Sql, embedded: &Embedded, joins: &[Join], outer: Alias, inner: Alias) {
    let rows = &embedded.rows;
    let equal = |sql: &mut Sql, pairs: &[(String, String)], one: Alias, other: Alias| {
        sql.between(" AND ", pairs, |sql, (a, b)| {
            sql.column(one, a).word(" = ").column(other, b);
        });
    };
    sql.word(" FROM ")
        .qualified(&rows.table.schema, &rows.table.name)
        .word(" AS ")
        .alias(inner);
    match &embedded.link {
        Link::Direct(pairs) => {
            beside(sql, joins, inner);
            sql.word(" WHERE ");
            equal(sql, pairs, outer, inner);
        }
        Link::Between {
            table,
            outer: to_outer,
            inner: to_inner,
        } => {
            let between = sql.fresh();
            sql.word(" JOIN ")
                .qualified(&table.schema, &table.name)
                .word(" AS ")
                .alias(between)
                .word(" ON ");
            equal(sql, to_inner, between, inner);
            beside(sql, joins, inner);
            sql.word(" WHERE ");
            equal(sql, to_outer, outer, between);
        }
    }
    if !rows.conditions.is_empty() {
        sql.word(" AND ");
        all(sql, &rows.conditions, inner, " AND ");
    }
}

/// `t0."a"`, `t0."data" -> 'a' ->> 'b'`
fn place(sql: &mut Sql, place: &Place, own: Alias) {
    if place.path.is_empty() {
        sql.column(own, &place.column);
        return;
    }
    sql.word("(");
    if place.of.is_json() {
        sql.column(own, &place.column);
    } else {
        sql.word("to_jsonb(").column(own, &place.column).word(")");
    }
    for step in &place.path {
        sql.word(if step.text { " ->> " } else { " -> " });
        match &step.key {
            PathKey::Index(index) => sql.value(index.to_string(), "int4"),
            PathKey::Member(name) => sql.value(name.clone(), "text"),
        };
    }
    sql.word(")");
}

/// A place as conditions and orders see it: a step that ends in json is jsonb to them.
fn compared(sql: &mut Sql, at: &Place, own: Alias) {
    place(sql, at, own);
    if at.of.name == "json" && at.path.last().is_some_and(|step| !step.text) {
        sql.word("::jsonb");
    }
}

fn key_of(sql: &mut Sql, by: &KeyOf, own: Alias) {
    match by {
        KeyOf::Place(at) => compared(sql, at, own),
        KeyOf::Joined(joined, _) => beside_of(sql, *joined, own),
    }
}

pub(super) fn order(sql: &mut Sql, keys: &[Key], own: Alias) {
    if keys.is_empty() {
        return;
    }
    sql.word(" ORDER BY ").between(", ", keys, |sql, key| {
        key_of(sql, &key.by, own);
        sql.word(if key.descending { " DESC" } else { " ASC" });
        // Said only where it is not what PostgreSQL does anyway.
        if key.nulls_first != key.descending {
            sql.word(if key.nulls_first {
                " NULLS FIRST"
            } else {
                " NULLS LAST"
            });
        }
    });
}

fn condition(sql: &mut Sql, one: &Condition, own: Alias) {
    match one {
        Condition::All(conditions) => {
            sql.word("(");
            all(sql, conditions, own, " AND ");
            sql.word(")");
        }
        Condition::Any(conditions) => {
            sql.word("(");
            all(sql, conditions, own, " OR ");
            sql.word(")");
        }
        Condition::Not(one) => {
            sql.word("NOT (");
            condition(sql, one, own);
            sql.word(")");
        }
        Condition::Compare {
            place,
            operator,
            cast,
            value,
        } => {
            compared(sql, place, own);
            sql.word(" ").word(operator).word(" ");
            sql.value(value.clone(), cast);
        }
        Condition::Each {
            place,
            operator,
            quantifier,
            cast,
            values,
        } => {
            compared(sql, place, own);
            sql.word(" ").word(operator).word(match quantifier {
                Quantifier::Any => " ANY (",
                Quantifier::All => " ALL (",
            });
            sql.value(values.clone(), cast).word(")");
        }
        Condition::Is { place, is } => {
            compared(sql, place, own);
            sql.word(match is {
                Is::Null => " IS NULL",
                Is::NotNull => " IS NOT NULL",
                Is::True => " IS TRUE",
                Is::False => " IS FALSE",
                Is::Unknown => " IS UNKNOWN",
            });
        }
        Condition::FullText { .. } => full_text(sql, one, own),
        Condition::Exists(embedded) => {
            sql.word("EXISTS (SELECT 1");
            if sql.subselect() {
                let inner = sql.fresh();
                linked(sql, embedded, &[], own, inner);
            }
            sql.word(")");
        }
        Condition::After(position) => after(sql, position, own),
        Condition::Version(version) => {
            sql.alias(own)
                .word(".xmin = ANY (")
                .value(version.clone(), "xid[]")
                .word(")");
        }
    }
}

fn full_text(sql: &mut Sql, one: &Condition, own: Alias) {
    let Condition::FullText {
        place,
        vector,
        form,
        config,
        query,
    } = one
    else {
        return;
    };
    let configured = |sql: &mut Sql| {
        if let Some(config) = config {
            sql.value(config.clone(), "regconfig").word(", ");
        }
    };
    if *vector {
        compared(sql, place, own);
    } else {
        sql.word("to_tsvector(");
        configured(sql);
        compared(sql, place, own);
        sql.word(")");
    }
    sql.word(match form {
        FullText::Query => " @@ to_tsquery(",
        FullText::Plain => " @@ plainto_tsquery(",
        FullText::Phrase => " @@ phraseto_tsquery(",
        FullText::Web => " @@ websearch_to_tsquery(",
    });
    configured(sql);
    sql.value(query.clone(), "text").word(")");
}

/// What stands after a place in a total order. Where all keys go one way and none can be
/// null it is one comparison of rows, which an index answers; else
/// `k1 after v1 OR k1 = v1 AND (k2 after v2 OR …)`, with nulls as values of their own.
fn after(sql: &mut Sql, position: &Position, own: Alias) {
    let keys = &position.0;
    let descending = keys.first().is_some_and(|(key, _)| key.descending);
    let plain = keys
        .iter()
        .all(|(key, value)| !key.nullable && value.is_some() && key.descending == descending);
    if plain {
        sql.word("(")
            .between(", ", keys, |sql, (key, _)| key_of(sql, &key.by, own))
            .word(if descending { ") < (" } else { ") > (" })
            .between(", ", keys, |sql, (key, value)| {
                sql.value(value.clone(), &key.by.place().found().sql);
            })
            .word(")");
        return;
    }
    sql.word("(");
    for (place, (key, value)) in keys.iter().enumerate() {
        if place > 0 {
            sql.word(" OR ");
        }
        sql.word("(");
        for (before, value) in keys.iter().take(place) {
            key_of(sql, &before.by, own);
            match value {
                Some(value) => {
                    sql.word(" = ")
                        .value(value.clone(), &before.by.place().found().sql);
                }
                None => {
                    sql.word(" IS NULL");
                }
            }
            sql.word(" AND ");
        }
        one_after(sql, key, value.as_ref(), own);
        sql.word(")");
    }
    sql.word(")");
}

fn one_after(sql: &mut Sql, key: &Key, value: Option<&String>, own: Alias) {
    let Some(value) = value else {
        // After a null: everything else where nulls come first, nothing where they come last.
        if key.nulls_first {
            key_of(sql, &key.by, own);
            sql.word(" IS NOT NULL");
        } else {
            sql.word("false");
        }
        return;
    };
    let nulls_follow = key.nullable && !key.nulls_first;
    sql.word(if nulls_follow { "(" } else { "" });
    key_of(sql, &key.by, own);
    sql.word(if key.descending { " < " } else { " > " });
    sql.value(value.clone(), &key.by.place().found().sql);
    if nulls_follow {
        sql.word(" OR ");
        key_of(sql, &key.by, own);
        sql.word(" IS NULL)");
    }
}
