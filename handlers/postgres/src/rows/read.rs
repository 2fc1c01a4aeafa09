//! Rows that are read.

use std::sync::Arc;

use http::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};
use postern_common::{Call, Failure, Reply};
use postern_contract::Detail;
use serde_json::Value;
use tokio_postgres::Row;

use super::{JSON, applying, array, ask, no_row, not_one, prefer, shape, single, size_of};
use crate::catalog::{Catalog, Kind};
use crate::execute::Session;
use crate::family::{Postgres, Stop};
use crate::parse::{Ask, Count, Prefer, Range, Shape, Verb};
use crate::plan::{Condition, Position, Rows, Shown, Unplanned, Values};
use crate::sql;

const RANGE_UNIT: HeaderName = HeaderName::from_static("range-unit");

/// The page that the `Range` header asks for.
fn range(headers: &HeaderMap) -> Result<Option<Range>, Failure> {
    let text = |name: HeaderName| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let Some(range) = text(RANGE) else {
        return Ok(None);
    };
    let read = Range::read(range, text(RANGE_UNIT));
    read.map_err(|detail| Failure::invalid(vec![detail]))
}

/// How a list is answered.
#[derive(Clone, Copy)]
enum Form {
    /// The rows, and where they stand among all.
    Page,
    /// The same to a `Range` header, with its answer.
    Ranged,
    /// One row by itself.
    Single,
}

/// `GET rows/:table`
pub(crate) async fn list(app: Arc<Postgres>, call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (mut ask, prefer) = (ask(&call, Verb::List)?, prefer(&call)?);
    // Parameters say it louder than headers.
    let paged = ask.top.limit.is_some() || ask.top.offset.is_some() || ask.cursor.is_some();
    let range = range(call.headers())?.filter(|_| !paged);
    if let Some(range) = range {
        (ask.top.offset, ask.top.limit) = (Some(range.first), range.rows());
    }
    let form = match (prefer.shape, range) {
        (Shape::Single, _) => Form::Single,
        (Shape::Whole, Some(_)) => Form::Ranged,
        (Shape::Whole, None) => Form::Page,
    };
    let mut preferred = prefer.count.filter(|_| ask.count.is_none());
    ask.count = ask.count.or(preferred);
    if matches!(form, Form::Single) {
        // One row by itself tells of no others.
        (ask.count, preferred) = (Some(Count::None), None);
    }
    let table = call.param("table").to_owned();
    let (app, session, table, ask) = (&*app, &session, &table, &ask);
    let reply = app
        .reading(session, |catalog| async move {
            page(app, session, &catalog, table, ask, form).await
        })
        .await?;
    let applied = Prefer {
        count: preferred,
        ..Prefer::default()
    };
    Ok(applying(reply, &applied.applied()))
}

async fn page(
    app: &Postgres,
    session: &Session,
    catalog: &Catalog,
    table: &str,
    ask: &Ask,
    form: Form,
) -> Result<Reply, Stop> {
    let planner = app.planner(catalog);
    let table = planner.table(table)?;
    let bounds = &app.db.bounds;
    let limit = ask
        .top
        .limit
        .unwrap_or(bounds.default_rows)
        .min(bounds.max_rows);
    let offset = ask.top.offset.unwrap_or_default();
    let mut rows = planner.rows(table, ask)?;
    let counted = rows.clone();
    planner.page(&mut rows, limit, offset);
    // A cursor is good for the same rows in the same order.
    let list = format!(
        "postgres {} {} {:?} {:?} {:?}",
        session.workspace, table.name, ask.top.conditions, ask.top.order, ask.embedded
    );
    if let Some(cursor) = &ask.cursor {
        rows.conditions.push(after(app, &rows, &list, cursor)?);
    }
    let beside = match ask.count.unwrap_or_default() {
        Count::Exact => [Some(sql::count(&counted, None)?), None],
        Count::Planned => [None, Some(sql::estimate(&counted)?)],
        Count::Estimated => [
            Some(sql::count(
                &counted,
                Some(bounds.max_rows.saturating_add(1)),
            )?),
            Some(sql::estimate(&counted)?),
        ],
        Count::None => [None, None],
    };
    let statement = sql::list(&rows, false, bounds.max_answer)?;
    let (found, [count, estimate]) = app
        .db
        .read(
            session,
            &statement,
            [beside[0].as_ref(), beside[1].as_ref()],
        )
        .await
        .map_err(|fault| Stop::Fault(fault, Some(Arc::clone(table))))?;
    let fault = |error: tokio_postgres::Error| Stop::Fault(error.into(), None);
    let counted = match count.rows.first() {
        Some(row) => Some(row.try_get::<_, i64>(0).map_err(fault)?),
        None => None,
    };
    let estimated = match estimate.rows.first() {
        Some(row) => planned_rows(&row.try_get(0).map_err(fault)?),
        None => None,
    };
    let total = match (counted, estimated) {
        // Above the greatest page the estimate is good enough, but never below what was seen.
        (Some(counted), Some(estimated)) if counted > to_i64(bounds.max_rows) => {
            Some(estimated.max(counted))
        }
        (Some(counted), _) => Some(counted),
        (None, estimated) => estimated,
    };
    let limit_rows = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = found.rows.len() > limit_rows;
    let shown = found.rows.get(..limit_rows).unwrap_or(&found.rows);
    if let Form::Single = form {
        let only = match (shown, ask.top.limit) {
            ([row], _) => row.try_get::<_, &str>(0).map_err(fault)?,
            (some, None) if has_more => {
                return Err(not_one(format_args!("more than {} rows", some.len())).into());
            }
            (some, _) => return Err(not_one(format_args!("{} rows", some.len())).into()),
        };
        return Ok(single(StatusCode::OK, only));
    }
    let next = match shown.last().filter(|_| has_more && rows.total_order) {
        Some(last) => match position(last).map_err(fault)? {
            Some(position) => app.cursors.seal(&list, &position),
            None => String::new(),
        },
        None => String::new(),
    };
    let mut body = Vec::with_capacity(size_of(shown) + 200);
    body.extend_from_slice(b"{\"data\":");
    array(&mut body, shown).map_err(fault)?;
    let written = total.map_or_else(|| "null".to_owned(), |total| total.to_string());
    let tail = format!(
        ",\"pagination\":{{\"limit\":{limit},\"offset\":{offset},\"total\":{written},\"hasMore\":{has_more}"
    );
    body.extend_from_slice(tail.as_bytes());
    if !next.is_empty() && next.len() <= postern_common::page::MAX_CURSOR {
        body.extend_from_slice(format!(",\"nextCursor\":\"{next}\"").as_bytes());
    }
    body.extend_from_slice(b"}}");
    let Form::Ranged = form else {
        return Ok(Reply::bytes(StatusCode::OK, JSON, body));
    };
    let rows = u64::try_from(shown.len()).unwrap_or(u64::MAX);
    let part = total.is_some_and(|total| to_i64(rows) < total);
    let status = if part {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let range = match offset.saturating_add(rows).checked_sub(1) {
        Some(last) if rows > 0 => format!("{offset}-{last}"),
        _ => "*".to_owned(),
    };
    let range = format!("{range}/{}", written.replace("null", "*"));
    Ok(Reply::bytes(status, JSON, body).with_header(CONTENT_RANGE, &range))
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn after(app: &Postgres, rows: &Rows, list: &str, cursor: &str) -> Result<Condition, Stop> {
    let wrong = |reason: String| Stop::Unplanned(Unplanned::Invalid(Detail::new("cursor", reason)));
    let position = app.cursors.open(list, cursor).map_err(wrong)?;
    let values: Values = serde_json::from_str(&position)
        .map_err(|_| wrong("is of an earlier form; begin anew".into()))?;
    if values.0.len() != rows.order.len() {
        return Err(wrong(
            "belongs to a table that has changed; begin anew".into(),
        ));
    }
    let keys = rows.order.iter().cloned().zip(values.0);
    Ok(Condition::After(Position(keys.collect())))
}

/// A row's place in the order, for a cursor.
fn position(row: &Row) -> Result<Option<String>, tokio_postgres::Error> {
    let values = Values(row.try_get(1)?);
    let cut = |value: &String| value.len() > sql::MAX_KEY;
    let whole = !values.0.iter().flatten().any(cut);
    Ok(whole.then(|| serde_json::to_string(&values).unwrap_or_default()))
}

/// `Plan Rows` of an EXPLAIN.
fn planned_rows(plan: &Value) -> Option<i64> {
    let rows = plan.pointer("/0/Plan/Plan Rows")?;
    rows.as_i64()
        .or_else(|| rows.as_f64().map(|rows| rows as i64))
}

/// `GET rows/:table/:primaryKey`
pub(crate) async fn get(app: Arc<Postgres>, call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (ask, shape) = (ask(&call, Verb::One)?, shape(&call)?);
    let (table, key) = (
        call.param("table").to_owned(),
        call.param("primaryKey").to_owned(),
    );
    let (app, session, table, key, ask) = (&*app, &session, &table, &key, &ask);
    app.reading(session, |catalog| async move {
        row(app, session, &catalog, (table, key), ask, shape).await
    })
    .await
}

async fn row(
    app: &Postgres,
    session: &Session,
    catalog: &Catalog,
    (table, key): (&str, &str),
    ask: &Ask,
    shape: Shape,
) -> Result<Reply, Stop> {
    let planner = app.planner(catalog);
    let table = planner.table(table)?;
    let mut rows = planner.rows(table, ask)?;
    rows.conditions.extend(planner.by_key(table, key)?);
    let versioned = is_versioned(&rows);
    let statement = sql::list(&rows, versioned, app.db.bounds.max_answer)?;
    let (found, _) = app
        .db
        .read(session, &statement, [None, None])
        .await
        .map_err(|fault| Stop::Fault(fault, Some(Arc::clone(table))))?;
    let fault = |error: tokio_postgres::Error| Stop::Fault(error.into(), None);
    let Some(row) = found.rows.first() else {
        return Err(no_row(&table.name, key).into());
    };
    let text: &str = row.try_get(0).map_err(fault)?;
    let mut reply = single(StatusCode::OK, text);
    if shape == Shape::Whole {
        reply = reply.with_header(CONTENT_TYPE, "application/json");
    }
    if !versioned {
        return Ok(reply);
    }
    let version: Vec<String> = row.try_get(1).map_err(fault)?;
    Ok(reply.with_header(ETAG, &format!("\"{}\"", version.concat())))
}

/// Whether the row's own version says all of what is shown: an embedded row may change
/// without it.
fn is_versioned(rows: &Rows) -> bool {
    matches!(rows.table.kind, Kind::Table | Kind::Partitioned)
        && rows
            .outputs
            .iter()
            .all(|output| matches!(output.value, Shown::Place(..)))
}
