//! What PostgreSQL says, and what the client is told of it.
//!
//! A [`Fault`] carries the cause, for the log; [`Fault::told`] is the one place where a
//! SQLSTATE becomes a code and a message. Messages name columns, constraints' columns and
//! tables of the caller's own schema, as its catalog has them; never PostgreSQL's text,
//! except where an operator's own function or trigger speaks (`RAISE`).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use postern_common::Failure;
use postern_contract::{Code, Detail};
use postern_postgres_url::complaint;
use tokio_postgres::error::{DbError, SqlState};

use crate::catalog::Table;

/// Why a statement or a connection failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// PostgreSQL, or the way to it.
    Database(tokio_postgres::Error),
    /// There is no connection to be had.
    Away(String),
    /// The tenant has as many requests under way as it may.
    Busy,
    /// The answer is larger than it may be.
    TooLarge(usize),
    /// Refused already.
    Refused(Box<Failure>),
    /// The idempotency record's statement.
    Recorded(Box<Fault>),
    /// A fault of ours.
    Internal(Box<dyn StdError + Send + Sync>),
    /// What somebody else's reading ended with.
    Shared(Arc<Fault>),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => f.write_str(&described(error)),
            Self::Away(why) => write!(f, "no connection: {why}"),
            Self::Busy => f.write_str("the tenant's share of connections is in use"),
            Self::TooLarge(bound) => write!(f, "an answer above {bound} bytes"),
            Self::Refused(failure) => write!(f, "{failure}"),
            Self::Recorded(fault) => write!(f, "record: {fault}"),
            Self::Internal(error) => write!(f, "{error}"),
            Self::Shared(fault) => write!(f, "{fault}"),
        }
    }
}

impl StdError for Fault {}

/// An error of the driver, for the operator.
pub(crate) fn described(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{}: {}", said.code().code(), said.message());
    }
    complaint(error).unwrap_or_else(|| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(failure))
    }
}

/// What was being done, as far as messages depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doing<'a> {
    /// The table whose rows are read or changed.
    pub(crate) table: Option<&'a Table>,
    /// Whether rows are being removed.
    pub(crate) removes: bool,
    /// Whether a table is being made, altered or dropped.
    pub(crate) defines: bool,
}

impl Fault {
    pub(crate) fn internal(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    pub(crate) fn shared(fault: Arc<Self>) -> Self {
        Self::Shared(fault)
    }

    fn database(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Database(error) => Some(error),
            Self::Recorded(fault) => fault.database(),
            Self::Shared(fault) => fault.database(),
            _ => None,
        }
    }

    /// The SQLSTATE, if PostgreSQL said one.
    pub(crate) fn state(&self) -> Option<&SqlState> {
        self.database().and_then(tokio_postgres::Error::code)
    }

    /// Whether the statement followed another's failure in its transaction.
    pub(crate) fn follows(&self) -> bool {
        self.state() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION)
    }

    /// Whether a schema that changed a moment ago would explain it.
    pub(crate) fn smells_of_change(&self) -> bool {
        self.state().is_some_and(|state| {
            [
                SqlState::UNDEFINED_TABLE,
                SqlState::UNDEFINED_COLUMN,
                SqlState::UNDEFINED_FUNCTION,
                SqlState::UNDEFINED_OBJECT,
                SqlState::INVALID_SCHEMA_NAME,
                SqlState::DATATYPE_MISMATCH,
                SqlState::FEATURE_NOT_SUPPORTED,
            ]
            .contains(state)
        })
    }

    /// Whether a name was missed that the catalog had. What else smells of change, a client
    /// can have as often as it likes.
    pub(crate) fn misses_a_name(&self) -> bool {
        self.state().is_some_and(|state| {
            [
                SqlState::UNDEFINED_TABLE,
                SqlState::UNDEFINED_COLUMN,
                SqlState::INVALID_SCHEMA_NAME,
            ]
            .contains(state)
        })
    }

    /// What the client is told.
    pub(crate) fn told(self, doing: Doing<'_>) -> Failure {
        match self {
            Self::Refused(failure) => *failure,
            Self::Busy => Failure::new(
                Code::BackendUnavailable,
                "this tenant has as many requests under way as it may have; retry with the same Idempotency-Key",
            ),
            Self::TooLarge(bound) => Failure::invalid_field(
                "limit",
                format!("gives an answer above {bound} bytes; ask for fewer rows or columns"),
            ),
            Self::Internal(error) => Failure::internal(error),
            Self::Recorded(fault) => fault.told(Doing::default()),
            Self::Away(why) => away(&why),
            Self::Database(ref error) => from_database(error, doing),
            Self::Shared(fault) => match &*fault {
                Self::Database(error) => from_database(error, doing),
                Self::Busy => Self::Busy.told(doing),
                Self::Away(why) => away(why),
                other => Failure::internal(other.to_string()),
            },
        }
    }
}

fn away(why: &str) -> Failure {
    tracing::warn!(why, "the data cluster is in the way");
    Failure::new(
        Code::BackendUnavailable,
        "the workspace's database cannot be reached; retry with the same Idempotency-Key",
    )
}

fn from_database(error: &tokio_postgres::Error, doing: Doing<'_>) -> Failure {
    let Some(said) = error.as_db_error() else {
        return if error.is_closed()
            || error
                .source()
                .is_some_and(|cause| cause.is::<std::io::Error>())
        {
            away(&error.to_string())
        } else {
            Failure::internal(error.to_string())
        };
    };
    if doing.defines
        && let Some(failure) = from_definition(said)
    {
        return failure;
    }
    match said.code().code() {
        "23505" => duplicate(said, doing),
        "23503" => reference(said, doing),
        "23502" => {
            let column = said.column().unwrap_or("a column");
            constraint(said, format!("{column} must not be null"))
        }
        "23514" => {
            let name = said.constraint().unwrap_or("a constraint");
            constraint(said, format!("the row breaks the rule {name}"))
        }
        "23P01" => {
            let name = said.constraint().unwrap_or("a constraint");
            constraint(
                said,
                format!("the row conflicts with another one by the rule {name}"),
            )
        }
        "21000" => Failure::invalid_field("body", "names the same row twice"),
        "42501" => Failure::new(
            Code::PermissionDenied,
            "this is not open to the workspace's role, or the row would not be its own",
        ),
        "42P01" | "3F000" => Failure::new(Code::TableNotFound, "there is no such table any more"),
        "42703" => Failure::invalid_field("query", "names a column that is not there any more"),
        "42883" | "42804" | "42725" | "42846" | "42P18" => Failure::invalid_field(
            "query",
            "uses an operator or a cast that the column's type does not have",
        ),
        "42704" => Failure::invalid_field(
            "query",
            "names a text search configuration that does not exist",
        ),
        "42P10" => Failure::invalid_field("onConflict", "must name the columns of a unique key"),
        "428C9" => Failure::invalid_field("body", "writes a column that the database computes"),
        "2BP01" => Failure::new(
            Code::ForeignKeyViolation,
            "something else in the workspace refers to it",
        ),
        // Of a text search query; statements of ours have none.
        "42601" if said.message().contains("tsquery") => value("42601"),
        "57014" => Failure::new(
            Code::StatementTimeout,
            "the statement took too long; narrow it, or add an index",
        ),
        "40001" | "40P01" | "55P03" => Failure::new(
            Code::SerializationFailure,
            "another request changes the same rows; retry with the same Idempotency-Key",
        ),
        "0A000" | "54000" | "54001" | "54011" | "54023" => Failure::invalid_field(
            "query",
            "asks for more than PostgreSQL can do in one statement",
        ),
        state if state.starts_with("22") => value(state),
        state if state.starts_with("57P") || state.starts_with("53") || state.starts_with("08") => {
            away(said.message())
        }
        // A standby, which does not write; a transaction that was idle for too long.
        "25006" | "25P03" => away(said.message()),
        // An operator's own function or trigger speaks to the client, by a code of its own.
        state if state == "P0001" || said.routine() == Some("exec_stmt_raise") => spoken(said),
        state => Failure::internal(format!("{state}: {}", said.message())),
    }
}

/// What `RAISE` says.
fn spoken(said: &DbError) -> Failure {
    let message: String = said.message().chars().take(500).collect();
    Failure::new(Code::ConstraintViolation, message)
}

/// What stands in the way of a definition.
fn from_definition(said: &DbError) -> Option<Failure> {
    let (field, reason) = match said.code().code() {
        "42P07" | "42710" => {
            let message = "there is a relation of this name already";
            return Some(Failure::new(Code::DuplicateKey, message));
        }
        "42701" => {
            let message = "there is a column of this name already";
            return Some(Failure::new(Code::DuplicateKey, message));
        }
        "42703" => ("columns", "does not hold a column that is named elsewhere"),
        "42704" => (
            "indexes",
            "use a method, or a key, that the column's type does not have",
        ),
        "42804" | "42883" => ("references", "refer to columns of another type"),
        "0A000" => ("indexes", "ask for more columns than the method takes"),
        "42830" => ("references", "refer to columns that are no unique key"),
        "54011" => ("columns", "are more than a table holds"),
        "23502" => (
            "addColumns",
            "need a default where rows exist and null is refused",
        ),
        state if state.starts_with("22") => ("default", "is not a value of the column's type"),
        _ => return None,
    };
    Some(Failure::invalid_field(field, reason))
}

/// A value that its type does not take. PostgreSQL's text would repeat it.
fn value(state: &str) -> Failure {
    let reason = match state {
        "22P02" | "22P03" | "22007" => "holds a value that is not of the column's type",
        "22003" | "22008" => "holds a value out of the range of the column's type",
        "22001" => "holds a text that is too long for its column",
        "22021" | "22P05" => "holds characters that text cannot hold",
        "22023" => "holds a parameter that is not valid",
        "42601" => "holds a full-text query that is not valid",
        "2201B" => "holds a regular expression that is not valid",
        "22025" | "22019" => "holds a pattern with an escape that is not valid",
        "22012" => "divides by zero",
        "22030" | "22032" => "holds JSON that is not valid",
        _ => "holds a value that PostgreSQL does not take",
    };
    Failure::invalid(vec![Detail::new("request", reason)])
}

fn constraint(said: &DbError, message: String) -> Failure {
    let field = said.column().or(said.constraint()).unwrap_or("body");
    Failure::new(Code::ConstraintViolation, message.clone())
        .with_details(vec![Detail::new(field, message)])
}

/// `email` of the key `users_email_key`.
fn key_columns(said: &DbError, doing: Doing<'_>) -> Option<String> {
    let (table, name) = (doing.table?, said.constraint()?);
    let key = table.keys.iter().find(|key| key.name == name)?;
    let columns: Vec<_> = table
        .visible(&key.columns)
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    Some(columns.join(", "))
}

fn duplicate(said: &DbError, doing: Doing<'_>) -> Failure {
    let message = match key_columns(said, doing) {
        Some(columns) => format!("there is a row with this {columns} already"),
        None => "there is a row with this key already".to_owned(),
    };
    Failure::new(Code::DuplicateKey, message)
}

/// Whether rows that refer to it are in the way, told in English: a table may refer to itself.
fn is_referred_to(said: &DbError) -> bool {
    said.message().starts_with("update or delete on table")
}

/// A reference of this table points nowhere, or one of another table points here.
fn reference(said: &DbError, doing: Doing<'_>) -> Failure {
    let own = doing.table.and_then(|table| {
        let name = said.constraint()?;
        let reference = table
            .references
            .iter()
            .find(|reference| reference.name == name)?;
        Some((table, reference))
    });
    match own {
        Some((table, reference)) if !doing.removes && !is_referred_to(said) => {
            let columns: Vec<_> = table
                .visible(&reference.columns)
                .iter()
                .map(|column| column.name.as_str())
                .collect();
            let message = format!(
                "{} points to no row of {}",
                columns.join(", "),
                reference.target
            );
            Failure::new(Code::ForeignKeyViolation, message).with_status(422)
        }
        _ => {
            let by = said.table().unwrap_or("another table");
            let message = format!("rows of {by} still refer to the row");
            Failure::new(Code::ForeignKeyViolation, message)
        }
    }
}
