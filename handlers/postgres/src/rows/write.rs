//! Rows that are written.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH};
use http::{HeaderMap, StatusCode};
use postern_common::{Call, Failure, Reply};
use postern_contract::Code;

use super::{JSON, applying, array, ask, no_row, not_one, prefer, single, size_of};
use crate::execute::{Changed, Work};
use crate::family::{Answer, Planned, Postgres};
use crate::parse::{Prefer, Return, Shape, Verb};
use crate::plan::{Body, Condition, Rows, Unplanned, merges_nothing};
use crate::sql;

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

/// A merge patch: of a row's columns, each of which is replaced.
const MERGE: &str = "application/merge-patch+json";

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
    let merges = media_type(&call)? == MERGE;
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
        if merges {
            merges_nothing(&sent, table)?;
        }
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
    let merges = media_type(&call)? == MERGE;
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
        if merges {
            merges_nothing(&sent, table)?;
        }
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
