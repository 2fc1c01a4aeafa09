//! Statements on their way to PostgreSQL and back.
//!
//! | module | does |
//! |---|---|
//! | [`pool`] | connections, a fair share for each tenant, what becomes of abandoned ones |
//! | [`session`] | whose statement it is: role and settings, for one transaction |
//! | `read` | one flight: begin, settings, statements, commit |
//! | `write` | two flights, with the idempotency record |
//! | `records` | the record's statements |
//!
//! Statements are unnamed and typed by the server, so a pooler in transaction mode may
//! stand between. Everything of a flight is sent before the first answer is awaited.

mod pool;
mod read;
mod records;
mod session;
mod write;

use futures::TryStreamExt;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::errors::Fault;
use crate::sql::{MAX_ROW, Sql, is_overflow};

pub use pool::Bounds;
pub(crate) use pool::Database;
pub(crate) use records::sweep;
pub(crate) use session::{Role, Session};
pub(crate) use write::{Change, Changed, Undecided, Work};

/// A value as text: PostgreSQL reads it as what the statement casts it to.
#[derive(Debug)]
struct Text<'v>(Option<&'v str>);

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// What a statement gave.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Its rows.
    pub(crate) rows: Vec<Row>,
    /// How many rows it gave or changed.
    pub(crate) affected: u64,
}

/// A connection that has held a longer row is not kept: its buffer would be, too.
const KEPT_ROW: usize = 1 << 20;

impl Rows {
    /// Whether the connection's buffer has grown.
    fn are_long(&self) -> bool {
        self.rows.iter().any(|row| row.raw_size_bytes() > KEPT_ROW)
    }
}

/// Runs a statement; its rows may have so many bytes together.
async fn run(client: &Client, sql: &Sql, most: usize) -> Result<Rows, Fault> {
    let values = sql
        .values
        .iter()
        .map(|value| (Text(value.as_deref()), Type::UNKNOWN));
    let told = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(said) if sql.measures && is_overflow(said) => Fault::TooLarge(most),
        _ => Fault::from(error),
    };
    let stream = client.query_typed_raw(&sql.text, values).await;
    let mut stream = std::pin::pin!(stream.map_err(told)?);
    let (mut rows, mut size) = (Vec::new(), 0_usize);
    while let Some(row) = stream.try_next().await.map_err(told)? {
        size = size.saturating_add(row.raw_size_bytes());
        if size > most || row.raw_size_bytes() >= MAX_ROW {
            return Err(Fault::TooLarge(most));
        }
        rows.push(row);
    }
    let affected = stream.rows_affected().unwrap_or_default();
    Ok(Rows { rows, affected })
}

/// The first failure of a flight that did not merely follow another one.
fn first_of(results: impl IntoIterator<Item = Option<Fault>>) -> Option<Fault> {
    let mut faults = results.into_iter().flatten();
    let first = faults.next()?;
    if first.follows() {
        return faults.find(|fault| !fault.follows()).or(Some(first));
    }
    Some(first)
}
