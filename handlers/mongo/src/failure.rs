//! What MongoDB's errors mean to a client: a code of the contract, and a message that
//! names the thing and the mend. The server's own text goes to the log only.

use bson::Document;
use mongodb::error::{
    Error, ErrorKind, RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR,
    UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
};
use postern_common::Failure;
use postern_contract::Code;

mod code;

use code::Meaning;

/// Codes that are expected somewhere.
const NAMESPACE_EXISTS: i32 = 48;
const WRITE_CONFLICT: i32 = 112;
const DUPLICATE_KEY: i32 = 11_000;

/// What a check within an expression means.
const TOO_MUCH: &str = "loops over, copies or searches more of one document than a request may; \
    narrow it with $match, $project, $filter or $slice first";

const TOO_MUCH_MEMORY: &str = "sorts or groups more than the memory of a request holds; \
    narrow it with a filter, $limit or $project, or add an index that has the order";

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
    number(error) == Some(WRITE_CONFLICT)
}

/// A unique index has the value already.
pub(crate) fn is_duplicate(error: &Error) -> bool {
    number(error) == Some(DUPLICATE_KEY)
}

/// Somebody made it first.
pub(crate) fn is_there_already(error: &Error) -> bool {
    number(error) == Some(NAMESPACE_EXISTS)
}

/// Whether a commit may or may not have happened; to commit again tells.
pub(crate) fn is_unknown_commit(error: &Error) -> bool {
    error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
}

/// The failure of a request that met this error.
pub(crate) fn failure(error: Error) -> Failure {
    failure_in("body", error)
}

/// The same, where what the server takes offence at stands in this argument.
pub(crate) fn failure_in(argument: &str, error: Error) -> Failure {
    let refused = |code, message: &str| {
        tracing::debug!(%error, "refused by MongoDB");
        Failure::new(code, message)
    };
    match meaning(&error) {
        Meaning::Conflict => refused(
            Code::SerializationFailure,
            "another request changes the same documents; retry with the same Idempotency-Key",
        ),
        Meaning::Away => {
            tracing::warn!(%error, "MongoDB cannot be asked");
            Failure::new(
                Code::BackendUnavailable,
                "the database cannot be reached; retry with the same Idempotency-Key",
            )
        }
        Meaning::Slow => too_slow(),
        // As other bounds: the same request fails the same way.
        Meaning::Memory => {
            tracing::debug!(%error, "refused by MongoDB");
            Failure::invalid_field(argument, TOO_MUCH_MEMORY)
        }
        Meaning::Large => refused(
            Code::BodyTooLarge,
            "a document, or all that is changed at once, would become larger than the database takes",
        ),
        Meaning::Duplicate => refused(
            Code::DuplicateKey,
            &format!("a document with this {} exists", duplicate(&error)),
        ),
        Meaning::Invalid => refused(Code::DocumentInvalid, &invalid(&error)),
        // An error that the wall's own checks raise.
        Meaning::Input if error.to_string().contains(crate::wall::MARK) => {
            Failure::invalid_field(argument, TOO_MUCH)
        }
        Meaning::Input => {
            tracing::info!(%error, "refused by MongoDB");
            let name = number(&error).map(code::name).unwrap_or_default();
            // Not the server's own words: they show values of the documents that it met.
            let reason =
                format!("is not what the operators in it take, or not there: MongoDB's {name}");
            Failure::invalid_field(argument, reason)
        }
        Meaning::Ours => Failure::internal(error),
    }
}

/// An operation's time is over.
pub(crate) fn too_slow() -> Failure {
    Failure::new(
        Code::StatementTimeout,
        "the database took too long; narrow the request or add an index",
    )
}

fn meaning(error: &Error) -> Meaning {
    let labelled = [TRANSIENT_TRANSACTION_ERROR, RETRYABLE_WRITE_ERROR]
        .iter()
        .any(|label| error.contains_label(label));
    match number(error).map(code::meaning) {
        // Whatever it was: nothing was done, and another server may.
        Some(Meaning::Input | Meaning::Ours) | None if labelled => Meaning::Away,
        Some(meaning) => meaning,
        None => match &*error.kind {
            ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. }
            | ErrorKind::Authentication { .. }
            | ErrorKind::Shutdown => Meaning::Away,
            _ => Meaning::Ours,
        },
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
        // `findAndModify` tells it in its answer only.
        ErrorKind::Command(_) => error
            .server_response()
            .and_then(|answer| answer.get_document("errInfo").ok())
            .and_then(|details| Document::try_from(details).ok()),
        _ => None,
    };
    match details.as_ref().and_then(crate::validator::failing) {
        Some(what) => format!("the document breaks the collection's validator: {what}"),
        None => "the document breaks the collection's validator".to_owned(),
    }
}

/// The fields of the unique index that was hit.
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
    fields(&message).unwrap_or_else(|| "_id".to_owned())
}

/// `a, b` from `… index: a_1_b_-1 dup key: { a: 1, b: "x" }`. The index's name does not say
/// where a field ends that has `_1` in its own; what follows names the same fields.
fn fields(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("index: ")?;
    let (mut index, keys) = rest.split_once(" dup key: ")?;
    let mut fields = Vec::new();
    while !index.is_empty() {
        let ends = index.match_indices("_1").chain(index.match_indices("_-1"));
        let mut ends: Vec<_> = ends
            .map(|(end, _)| index.split_at(end))
            .filter_map(|(field, rest)| {
                let rest = rest
                    .strip_prefix("_-1")
                    .or_else(|| rest.strip_prefix("_1"))?;
                let next = rest.strip_prefix('_').or(rest.is_empty().then_some(""))?;
                Some((field, next))
            })
            .collect();
        ends.sort_by_key(|(field, _)| field.len());
        let before = if fields.is_empty() { "{ " } else { ", " };
        let named = |field: &str| keys.contains(&format!("{before}{field}: "));
        let (field, next) = ends.into_iter().find(|(field, _)| named(field))?;
        fields.push(field);
        index = next;
    }
    (!fields.is_empty()).then(|| fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_unique_index() {
        let told = |index: &str, keys: &str| {
            fields(&format!(
                "E11000 duplicate key error collection: ws_1.c index: {index} dup key: {keys}"
            ))
        };
        for (index, keys, expected) in [
            ("a_1", "{ a: 1 }", "a"),
            ("first_name_1", "{ first_name: \"x\" }", "first_name"),
            ("a_1_b_-1", "{ a: 1, b: 1 }", "a, b"),
            ("a_1_b_1", "{ a_1_b: 1 }", "a_1_b"),
            ("x.y_-1__z_1", "{ x.y: 1, _z: null }", "x.y, _z"),
        ] {
            assert_eq!(told(index, keys).as_deref(), Some(expected));
        }
        assert_eq!(told("_id_", "{ _id: 1 }"), None);
        assert_eq!(fields("something else"), None);
    }
}
