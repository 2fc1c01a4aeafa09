//! `/v1/postgres/:workspaceId/rows/:table` and `…/:primaryKey`: what their routes share.
//!
//! | module | does |
//! |---|---|
//! | `read` | lists, one row by itself, the row of a key |
//! | `write` | inserts, changes and removals, by filters and by key |

mod read;
mod write;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderName, HeaderValue, StatusCode};
use postern_common::{Call, Failure, Reply};
use postern_contract::{Code, Detail};
use tokio_postgres::Row;

use crate::parse::{Ask, Prefer, SINGLE, Shape, Verb, shown};

pub(crate) use read::{get, list};
pub(crate) use write::{delete, delete_one, insert, update, update_one};

const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The query of a request.
pub(crate) fn ask(call: &Call, verb: Verb) -> Result<Ask, Failure> {
    Ask::read(verb, &call.query()?.into_pairs()).map_err(Failure::invalid)
}

/// What the client would like.
fn prefer(call: &Call) -> Result<Prefer, Failure> {
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

/// The answer with the preferences that made it what it is (RFC 7240).
fn applying(reply: Reply, applied: &str) -> Reply {
    match applied {
        "" => reply,
        applied => reply.with_header(APPLIED, applied),
    }
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

fn no_row(table: &str, key: &str) -> Failure {
    let message = format!("{table} has no row {}", shown(key));
    Failure::new(Code::RowNotFound, message)
}
