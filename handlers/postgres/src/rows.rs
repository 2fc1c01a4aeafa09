//! `/v1/postgres/:workspaceId/rows/:table` and `…/:primaryKey`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use postern_common::{Call, Failure, Reply};
use postern_contract::{Code, Detail};
use serde_json::Value;
use tokio_postgres::Row;

use crate::catalog::{Catalog, Kind};
use crate::errors::Fault;
use crate::execute::{Changed, Session, Work};
use crate::family::{Answer, Planned, Postgres, Stop};
use crate::parse::{Ask, Count, Prefer, Range, Return, SINGLE, Shape, Verb, shown};
use crate::plan::{Body, Condition, Position, Rows, Shown, Unplanned, Values};
use crate::sql;

const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const RANGE_UNIT: HeaderName = HeaderName::from_static("range-unit");

/// The query of a request.
pub(crate) fn ask(call: &Call, verb: Verb) -> Result<Ask, Failure> {
    Ask::read(verb, &call.query()?.into_pairs()).map_err(Failure::invalid)
}

pub(crate) fn prefer(call: &Call) -> Result<Prefer, Failure> {
    let headers = call.headers().get_all("prefer").iter();
    let texts = headers.filter_map(|value| value.to_str().ok());
    let mut prefer = Prefer::read(texts).map_err(|detail| Failure::invalid(vec![detail]))?;
    prefer.shape = shape(call)?;
    Ok(prefer)
}

/// How the client takes the answer.
pub(crate) fn shape(call: &Call) -> Result<Shape, Failure> {
    let headers = call.headers().get_all(ACCEPT).iter();
    let texts = headers.map(|value| value.to_str().unwrap_or("unreadable"));
    Shape::read(texts).ok_or_else(|| {
        let message = format!("rows come as application/json, one by itself as {SINGLE}");
        Failure::new(Code::NotAcceptable, message)
    })
}

/// One row was asked for, and there are so many.
pub(crate) fn not_one(rows: impl std::fmt::Display) -> Failure {
    let reason = format!("asks for one row by itself, the result has {rows}");
    Failure::new(Code::NotAcceptable, format!("Accept {reason}"))
        .with_details(vec![Detail::new("Accept", reason)])
}

/// One row by itself, or what a function gives.
pub(crate) fn single(status: StatusCode, text: &str) -> Reply {
    let body = Bytes::copy_from_slice(text.as_bytes());
    Reply::bytes(status, HeaderValue::from_static(SINGLE), body)
}

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

/// The answer with the preferences that made it what it is (RFC 7240).
fn applying(reply: Reply, applied: &str) -> Reply {
    match applied {
        "" => reply,
        applied => reply.with_header(APPLIED, applied),
    }
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

fn size_of(rows: &[Row]) -> usize {
    rows.iter().map(Row::raw_size_bytes).sum()
}

/// The rows as PostgreSQL wrote them, as a JSON array.
fn array(body: &mut Vec<u8>, rows: &[Row]) -> Result<(), tokio_postgres::Error> {
    body.push(b'[');
    for (place, row) in rows.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        let text: Option<&str> = row.try_get(0)?;
        body.extend_from_slice(text.unwrap_or("null").as_bytes());
    }
    body.push(b']');
    Ok(())
}

/// `{"data":[…],"inserted":n}`, the data where the rows are shown; one row by itself where
/// it is taken so.
fn changed(
    status: StatusCode,
    word: &str,
    changed: &Changed,
    shows: bool,
    shape: Shape,
) -> Result<Reply, Failure> {
    let rows = &changed.rows;
    if let (Shape::Single, true, [row]) = (shape, shows, rows.rows.as_slice()) {
        return Ok(single(status, row.try_get(0).map_err(Failure::internal)?));
    }
    let mut body = Vec::with_capacity(size_of(&rows.rows) + 64);
    body.push(b'{');
    if shows {
        body.extend_from_slice(b"\"data\":");
        array(&mut body, &rows.rows).map_err(Failure::internal)?;
        body.push(b',');
    }
    body.extend_from_slice(format!("\"{word}\":{}}}", rows.affected).as_bytes());
    Ok(Reply::bytes(status, JSON, body))
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

fn no_row(table: &str, key: &str) -> Failure {
    let message = format!("{table} has no row {}", shown(key));
    Failure::new(Code::RowNotFound, message)
}

/// The media type of a body.
fn media_type(call: &Call) -> Result<String, Failure> {
    let text = |name| {
        let value = call
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_ascii_lowercase()
    };
    let media_type = text(CONTENT_TYPE);
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let encoded = !matches!(text(CONTENT_ENCODING).as_str(), "" | "identity");
    if encoded || !call.route.takes(media_type) {
        return Err(Failure::unsupported(&call.route.media_types));
    }
    Ok(media_type.to_owned())
}

/// `POST rows/:table`
pub(crate) async fn insert(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (ask, prefer) = (ask(&call, Verb::Insert)?, prefer(&call)?);
    let is_csv = media_type(&call)? == "text/csv";
    let body = call.body().await?;
    let table = call.param("table").to_owned();
    let sent = body.clone();
    let app_ = Arc::clone(&app);
    let most = app.db.bounds.max_answer;
    app.mutate(&call, session, &body, move |catalog| {
        let planner = app_.planner(catalog);
        let table = planner.table(&table)?;
        let body = if is_csv {
            Body::from_csv(&sent, table)?
        } else {
            Body::read(&sent)?
        };
        let plan = planner.insert(table, &ask, body, prefer.missing, prefer.resolution)?;
        let shows = prefer.returns != Some(Return::Minimal);
        let answer = answer(StatusCode::CREATED, "inserted", shows, prefer);
        Ok(Planned {
            work: Work::Rows(Box::new(sql::insert(&plan, shows, most)?), None),
            table: Some(Arc::clone(table)),
            removes: false,
            answer,
        })
    })
    .await
}

/// The answer to a change: how many rows, and the rows where they are shown.
fn answer(status: StatusCode, word: &'static str, shows: bool, prefer: Prefer) -> Answer {
    Box::new(move |done| {
        if let Some(most) = prefer
            .max_affected
            .filter(|most| done.rows.affected > *most)
        {
            return Err(Failure::new(
                Code::MaxAffectedExceeded,
                format!(
                    "{} rows would be changed, max-affected is {most}",
                    done.rows.affected
                ),
            ));
        }
        if prefer.shape == Shape::Single && done.rows.affected != 1 {
            return Err(not_one(format_args!("{} rows", done.rows.affected)));
        }
        let reply = changed(status, word, &done, shows, prefer.shape)?;
        Ok(applying(reply, &prefer.applied()))
    })
}

/// As [`answer`] for the row of a key: nothing found is no success.
fn answer_one(
    word: &'static str,
    prefer: Prefer,
    conditional: bool,
    table: String,
    key: String,
) -> Answer {
    let shows = prefer.returns == Some(Return::Representation);
    Box::new(move |done| {
        if done.rows.affected > 0 {
            let reply = changed(StatusCode::OK, word, &done, shows, prefer.shape)?;
            return Ok(applying(reply, &prefer.applied()));
        }
        if conditional && !done.beside.rows.is_empty() {
            return Err(Failure::new(
                Code::PreconditionFailed,
                "the row has changed since it was read; read it again",
            ));
        }
        Err(no_row(&table, &key))
    })
}

fn filter_required() -> Failure {
    Failure::new(
        Code::FilterRequired,
        "name the rows by at least one filter, such as id=eq.5; embedded resources do not count",
    )
}

/// `PATCH rows/:table`
pub(crate) async fn update(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (ask, prefer) = (ask(&call, Verb::Change)?, prefer(&call)?);
    if ask.top.conditions.is_empty() {
        return Err(filter_required());
    }
    unconditional(call.headers())?;
    media_type(&call)?;
    let body = call.body().await?;
    let (table, sent, app_) = (
        call.param("table").to_owned(),
        body.clone(),
        Arc::clone(&app),
    );
    let most = app.db.bounds.max_answer;
    app.mutate(&call, session, &body, move |catalog| {
        let planner = app_.planner(catalog);
        let table = planner.table(&table)?;
        let plan = planner.update(table, &ask, &sent)?;
        let shows = prefer.returns == Some(Return::Representation);
        Ok(Planned {
            work: Work::Rows(Box::new(sql::update(&plan, shows, most)?), None),
            table: Some(Arc::clone(table)),
            removes: false,
            answer: answer(StatusCode::OK, "updated", shows, prefer),
        })
    })
    .await
}

/// `DELETE rows/:table`
pub(crate) async fn delete(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (ask, prefer) = (ask(&call, Verb::Change)?, prefer(&call)?);
    if ask.top.conditions.is_empty() {
        return Err(filter_required());
    }
    unconditional(call.headers())?;
    let body = call.body().await?;
    let (table, app_) = (call.param("table").to_owned(), Arc::clone(&app));
    let most = app.db.bounds.max_answer;
    app.mutate(&call, session, &body, move |catalog| {
        let planner = app_.planner(catalog);
        let table = planner.table(&table)?;
        let plan = planner.remove(table, &ask)?;
        let shows = prefer.returns == Some(Return::Representation);
        Ok(Planned {
            work: Work::Rows(Box::new(sql::remove(&plan, shows, most)?), None),
            table: Some(Arc::clone(table)),
            removes: true,
            answer: answer(StatusCode::OK, "deleted", shows, prefer),
        })
    })
    .await
}

/// Rows of filters have no version together.
fn unconditional(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.contains_key(IF_MATCH) {
        let reason = "applies to the row of a key: rows/:table/:primaryKey";
        return Err(Failure::invalid_field("If-Match", reason));
    }
    Ok(())
}

/// The versions that `If-Match` names, as one array; none: any.
fn wanted_version(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let values = headers.get_all(IF_MATCH).iter();
    let texts = values.map(|value| value.to_str().unwrap_or_default());
    let tags: Vec<&str> = texts
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    if tags.is_empty() || tags == ["*"] {
        return Ok(None);
    }
    let version = |tag: &&str| {
        let version = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        let good = version.len() <= 10 && version.bytes().all(|b| b.is_ascii_digit());
        (good && !version.is_empty()).then(|| version.to_owned())
    };
    let versions: Vec<String> = tags.iter().filter_map(version).collect();
    if versions.is_empty() {
        // Whatever it names, it is no version of a row.
        return Err(Failure::new(
            Code::PreconditionFailed,
            "If-Match names no version of this row; send the ETag of a GET without embedded resources",
        ));
    }
    Ok(Some(format!("{{{}}}", versions.join(","))))
}

/// The plan of a change by key: the statement, and one beside it that tells a row of
/// another version from none.
fn versioned(rows: &mut Rows, version: Option<&String>) -> Result<Option<sql::Sql>, Unplanned> {
    let Some(version) = version else {
        return Ok(None);
    };
    let beside = sql::exists(rows)?;
    rows.conditions.push(Condition::Version(version.clone()));
    Ok(Some(beside))
}

/// `PATCH rows/:table/:primaryKey`
pub(crate) async fn update_one(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (ask, prefer) = (ask(&call, Verb::One)?, prefer(&call)?);
    let version = wanted_version(call.headers())?;
    media_type(&call)?;
    let body = call.body().await?;
    let (table, key) = (
        call.param("table").to_owned(),
        call.param("primaryKey").to_owned(),
    );
    let (sent, app_) = (body.clone(), Arc::clone(&app));
    let most = app.db.bounds.max_answer;
    app.mutate(&call, session, &body, move |catalog| {
        let planner = app_.planner(catalog);
        let table = planner.table(&table)?;
        let mut plan = planner.update(table, &ask, &sent)?;
        plan.rows.conditions.extend(planner.by_key(table, &key)?);
        let beside = versioned(&mut plan.rows, version.as_ref())?;
        let shows = prefer.returns == Some(Return::Representation);
        let answer = answer_one(
            "updated",
            prefer,
            beside.is_some(),
            table.name.clone(),
            key.clone(),
        );
        Ok(Planned {
            work: Work::Rows(Box::new(sql::update(&plan, shows, most)?), beside),
            table: Some(Arc::clone(table)),
            removes: false,
            answer,
        })
    })
    .await
}

/// `DELETE rows/:table/:primaryKey`
pub(crate) async fn delete_one(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (ask, prefer) = (ask(&call, Verb::One)?, prefer(&call)?);
    let version = wanted_version(call.headers())?;
    let body = call.body().await?;
    let (table, key) = (
        call.param("table").to_owned(),
        call.param("primaryKey").to_owned(),
    );
    let app_ = Arc::clone(&app);
    let most = app.db.bounds.max_answer;
    app.mutate(&call, session, &body, move |catalog| {
        let planner = app_.planner(catalog);
        let table = planner.table(&table)?;
        let mut plan = planner.remove(table, &ask)?;
        plan.rows.conditions.extend(planner.by_key(table, &key)?);
        let beside = versioned(&mut plan.rows, version.as_ref())?;
        let shows = prefer.returns == Some(Return::Representation);
        let answer = answer_one(
            "deleted",
            prefer,
            beside.is_some(),
            table.name.clone(),
            key.clone(),
        );
        Ok(Planned {
            work: Work::Rows(Box::new(sql::remove(&plan, shows, most)?), beside),
            table: Some(Arc::clone(table)),
            removes: true,
            answer,
        })
    })
    .await
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Fault(failure.into(), None)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault, None)
    }
}
