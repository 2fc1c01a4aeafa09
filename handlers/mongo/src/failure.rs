//! What MongoDB's errors mean to a client: a code of the contract, and a message that
//! names the thing and the mend. The server's own text goes to the log only.

use mongodb::error::{
    Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
};
use postern_common::Failure;
use postern_contract::Code;

/// Numbers of MongoDB's `error_codes.yml`.
mod code {
    pub(super) const DUPLICATE_KEY: i32 = 11_000;
    pub(super) const WRITE_CONFLICT: i32 = 112;
    pub(super) const DOCUMENT_VALIDATION: i32 = 121;
    pub(super) const MAX_TIME: i32 = 50;
    pub(super) const TOO_LARGE: i32 = 10_334;
    pub(super) const NAMESPACE_EXISTS: i32 = 48;
    /// Not enough memory for a sort or a group, and no disk for it.
    pub(super) const TOO_MUCH_MEMORY: [i32; 2] = [292, 146];
    /// A value is not of the type that an operator needs, two changes of one field, a
    /// path through a value that holds no fields, and their like.
    pub(super) const REQUEST: [i32; 12] = [2, 9, 14, 15, 28, 40, 52, 55, 56, 57, 66, 16_755];
}

/// The number of a server's error.
pub(crate) fn number(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        ErrorKind::InsertMany(many) => many
            .write_errors
            .as_ref()
            .and_then(|errors| errors.first())
            .map(|error| error.code),
        _ => None,
    }
}

/// Another transaction was in the way.
pub(crate) fn is_conflict(error: &Error) -> bool {
    number(error) == Some(code::WRITE_CONFLICT)
}

/// A unique index has the value already.
pub(crate) fn is_duplicate(error: &Error) -> bool {
    number(error) == Some(code::DUPLICATE_KEY)
}

/// Somebody made it first.
pub(crate) fn is_there_already(error: &Error) -> bool {
    number(error) == Some(code::NAMESPACE_EXISTS)
}

/// Whether a commit may or may not have happened; to commit again tells.
pub(crate) fn is_unknown_commit(error: &Error) -> bool {
    error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
}

/// The failure of a request that met this error.
pub(crate) fn failure(error: Error) -> Failure {
    // A conflict, a primary that stepped down: nothing was done, and once more may do.
    if error.contains_label(TRANSIENT_TRANSACTION_ERROR) || is_conflict(&error) {
        tracing::debug!(%error, "a transaction is tried again");
        return Failure::new(
            Code::SerializationFailure,
            "another request changes the same documents; retry with the same Idempotency-Key",
        );
    }
    let refused = |code, message: &str| Failure::new(code, message);
    match number(&error) {
        Some(code::DUPLICATE_KEY) => refused(
            Code::DuplicateKey,
            &format!("a document with this {} exists", duplicate(&error)),
        ),
        Some(code::DOCUMENT_VALIDATION) => refused(Code::DocumentInvalid, &invalid(&error)),
        Some(code::MAX_TIME) => refused(
            Code::StatementTimeout,
            "the database took too long; narrow the request or add an index",
        ),
        Some(code::TOO_LARGE) => refused(
            Code::BodyTooLarge,
            "a document would become larger than 16 MiB",
        ),
        Some(number) if code::TOO_MUCH_MEMORY.contains(&number) => refused(
            Code::StatementTimeout,
            "the request needs more memory than it may have; narrow it or add an index",
        ),
        Some(number)
            if code::REQUEST.contains(&number) || (10_000..=60_000_000).contains(&number) =>
        {
            tracing::info!(%error, "refused by MongoDB");
            Failure::invalid_field("body", message(&error))
        }
        _ => away(error),
    }
}

/// The server's own words on a value or an operator of the client's. They speak of what
/// the client sent, never of other documents.
fn message(error: &Error) -> String {
    let text = match &*error.kind {
        ErrorKind::Command(command) => command.message.as_str(),
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.message.as_str(),
        _ => "",
    };
    let first = text.split("::").last().unwrap_or_default().trim();
    let shown: String = first
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    if shown.contains(crate::wall::TENANT)
        || shown.contains(crate::wall::WORKSPACE)
        || shown.is_empty()
    {
        "is not what the operators in it take".to_owned()
    } else {
        format!("is not what the operators in it take: {shown}")
    }
}

/// Where the document breaks the collection's validator.
fn invalid(error: &Error) -> String {
    let details = match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.details.clone(),
        ErrorKind::InsertMany(many) => many
            .write_errors
            .as_ref()
            .and_then(|errors| errors.first())
            .and_then(|error| error.details.clone()),
        _ => None,
    };
    match details.as_ref().and_then(crate::validator::failing) {
        Some(what) => format!("the document breaks the collection's validator: {what}"),
        None => "the document breaks the collection's validator".to_owned(),
    }
}

/// The fields of the unique index that was hit, from `index: a_1_b_1 dup key: {…}`.
fn duplicate(error: &Error) -> String {
    let message = match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.message.clone(),
        ErrorKind::Command(command) => command.message.clone(),
        ErrorKind::InsertMany(many) => many
            .write_errors
            .as_ref()
            .and_then(|errors| errors.first())
            .map(|error| error.message.clone())
            .unwrap_or_default(),
        _ => String::new(),
    };
    let index = message
        .split_once("index: ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .unwrap_or_default();
    let fields: Vec<_> = index
        .split('_')
        .filter(|part| !part.is_empty() && !["1", "-1"].contains(part))
        .filter(|part| !["tenantId", "workspaceId"].contains(part))
        .collect();
    match fields.as_slice() {
        [] | ["id"] => "_id".to_owned(),
        fields => fields.join(", "),
    }
}

/// What is left are servers that are away, and faults of ours.
fn away(error: Error) -> Failure {
    match &*error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Authentication { .. }
        | ErrorKind::Command(_) => {
            tracing::warn!(%error, "MongoDB cannot be asked");
            Failure::new(
                Code::BackendUnavailable,
                "the database cannot be reached; retry with the same Idempotency-Key",
            )
        }
        _ => Failure::internal(error),
    }
}
