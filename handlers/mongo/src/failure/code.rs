//! What the server's error codes mean to a request. Names and numbers are those of its
//! `error_codes.yml`. A number above 10,000 without a name there belongs to one place in
//! the server, which calls it `Location40323`; nearly all of them refuse an argument.

/// What is to be told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Another transaction was in the way: once more may do.
    Conflict,
    /// A server that ends, is no primary, or was interrupted: later, or another one.
    Away,
    /// Its time was over.
    Slow,
    /// Not enough memory for a sort or a group, and no disk for it.
    Memory,
    /// A document or a transaction would become too large.
    Large,
    /// A unique index has the value already.
    Duplicate,
    /// The document breaks the collection's validator.
    Invalid,
    /// What the client sent is not what its operators take, or not in this document.
    Input,
    /// A fault of ours, or of who runs the server.
    Ours,
}

use Meaning::{Away, Conflict, Duplicate, Input, Invalid, Large, Memory, Slow};

/// By number; what is not here is [`Meaning::Ours`], or a `Location`.
const NAMED: &[(i32, &str, Meaning)] = &[
    (2, "BadValue", Input),
    (4, "NoSuchKey", Input),
    (6, "HostUnreachable", Away),
    (7, "HostNotFound", Away),
    (9, "FailedToParse", Input),
    (14, "TypeMismatch", Input),
    (15, "Overflow", Input),
    (16, "InvalidLength", Input),
    (21, "EmptyArrayOperation", Input),
    (22, "InvalidBSON", Input),
    (24, "LockTimeout", Conflict),
    (28, "PathNotViable", Input),
    (29, "NonExistentPath", Input),
    (30, "InvalidPath", Input),
    (34, "CannotBackfillArray", Input),
    (40, "ConflictingUpdateOperators", Input),
    (43, "CursorNotFound", Away),
    // A transaction that makes a collection that somebody else just made.
    (48, "NamespaceExists", Conflict),
    (50, "MaxTimeMSExpired", Slow),
    (52, "DollarPrefixedFieldName", Input),
    (53, "InvalidIdField", Input),
    (54, "NotSingleValueField", Input),
    (55, "InvalidDBRef", Input),
    (56, "EmptyFieldName", Input),
    (57, "DottedFieldName", Input),
    (64, "WriteConcernTimeout", Away),
    (66, "ImmutableField", Input),
    (67, "CannotCreateIndex", Input),
    (72, "InvalidOptions", Input),
    (85, "IndexOptionsConflict", Input),
    (86, "IndexKeySpecsConflict", Input),
    (89, "NetworkTimeout", Away),
    (91, "ShutdownInProgress", Away),
    (100, "UnsatisfiableWriteConcern", Away),
    (111, "NotExactValueField", Input),
    (112, "WriteConflict", Conflict),
    (117, "ConflictingOperationInProgress", Away),
    (121, "DocumentValidationFailure", Invalid),
    (133, "FailedToSatisfyReadPreference", Away),
    (134, "ReadConcernMajorityNotAvailableYet", Away),
    (146, "ExceededMemoryLimit", Memory),
    (159, "DurationOverflow", Input),
    (168, "InvalidPipelineOperator", Input),
    (171, "CannotIndexParallelArrays", Input),
    // The collection was dropped under it.
    (175, "QueryPlanKilled", Away),
    (181, "AmbiguousIndexKeyPattern", Input),
    (189, "PrimarySteppedDown", Away),
    (197, "InvalidIndexSpecificationOption", Input),
    (201, "CannotBuildIndexKeys", Input),
    (202, "NetworkInterfaceExceededTimeLimit", Away),
    (215, "DatabaseDropPending", Away),
    (216, "ElectionInProgress", Away),
    (224, "QueryFeatureNotAllowed", Input),
    (232, "MaxSubPipelineDepthExceeded", Input),
    (234, "RetryChangeStream", Away),
    (237, "CursorKilled", Away),
    (239, "SnapshotTooOld", Conflict),
    (241, "ConversionFailure", Input),
    (246, "SnapshotUnavailable", Conflict),
    // Ended by the server: a primary that stepped down, a time limit.
    (251, "NoSuchTransaction", Away),
    (257, "TransactionTooLarge", Large),
    (262, "ExceededTimeLimit", Away),
    (267, "PreparedTransactionInProgress", Conflict),
    (276, "IndexBuildAborted", Away),
    (279, "ClientDisconnect", Away),
    (285, "IndexBuildAlreadyInProgress", Away),
    (290, "TransactionExceededLifetimeLimitSeconds", Slow),
    (292, "QueryExceededMemoryLimitNoDiskUseAllowed", Memory),
    (314, "ObjectIsBusy", Away),
    (317, "ConnectionPoolExpired", Away),
    (349, "KeyPatternShorterThanBound", Input),
    (355, "InterruptedDueToStorageChange", Away),
    (357, "InvalidBSONType", Input),
    (365, "TemporarilyUnavailable", Away),
    (378, "NonConformantBSON", Input),
    (384, "ConnectionError", Away),
    (388, "TransactionTooLargeForCache", Large),
    (402, "ResourceExhausted", Away),
    (407, "PooledConnectionAcquisitionExceededTimeLimit", Away),
    (433, "AdmissionQueueOverflow", Away),
    (449, "RateLimitExceeded", Away),
    (450, "PooledConnectionAcquisitionRejected", Away),
    (462, "IngressRequestRateLimitExceeded", Away),
    (9_001, "SocketException", Away),
    (10_058, "LegacyNotPrimary", Away),
    (10_107, "NotWritablePrimary", Away),
    (10_334, "BSONObjectTooLarge", Large),
    (11_000, "DuplicateKey", Duplicate),
    (11_600, "InterruptedAtShutdown", Away),
    (11_601, "Interrupted", Away),
    (11_602, "InterruptedDueToReplStateChange", Away),
    (12_586, "BackgroundOperationInProgressForDatabase", Away),
    (12_587, "BackgroundOperationInProgressForNamespace", Away),
    (13_297, "DatabaseDifferCase", Meaning::Ours),
    (13_388, "StaleConfig", Away),
    (13_435, "NotPrimaryNoSecondaryOk", Away),
    (13_436, "NotPrimaryOrSecondary", Away),
    (14_031, "OutOfDiskSpace", Away),
    // A document after an update.
    (17_419, "Location17419", Large),
    (17_420, "Location17420", Large),
    (46_841, "ClientMarkedKilled", Away),
    (50_768, "NotARetryableWriteCommand", Meaning::Ours),
    (50_915, "BackupCursorOpenConflictWithCheckpoint", Away),
    (56_846, "ConfigServerUnreachable", Away),
    (
        57_986,
        "RetryableInternalTransactionNotSupported",
        Meaning::Ours,
    ),
    (91_331, "RetriableRemoteCommandFailure", Away),
];

/// The least number that a `Location` has.
const LOCATIONS: i32 = 10_000;

pub(super) fn meaning(number: i32) -> Meaning {
    match named(number) {
        Some((_, meaning)) => meaning,
        None if number >= LOCATIONS => Input,
        None => Meaning::Ours,
    }
}

/// As the server calls it.
pub(super) fn name(number: i32) -> String {
    named(number).map_or_else(|| format!("Location{number}"), |(name, _)| name.to_owned())
}

fn named(number: i32) -> Option<(&'static str, Meaning)> {
    let (_, name, meaning) = NAMED.iter().find(|(known, ..)| *known == number)?;
    Some((name, *meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend() {
        assert!(NAMED.is_sorted_by_key(|(number, ..)| *number));
    }

    #[test]
    fn a_server_that_steps_down_is_not_the_clients_fault() {
        // What drivers retry (retryable writes, transactions).
        for number in [
            6, 7, 89, 91, 134, 189, 262, 9_001, 10_058, 10_107, 11_600, 11_602, 13_435, 13_436,
        ] {
            assert_eq!(meaning(number), Away, "{}", name(number));
        }
    }

    #[test]
    fn only_what_is_known_to_be_input_is() {
        for number in [14, 54, 171, 224, 241, 16_755, 40_323, 5_107_200] {
            assert_eq!(meaning(number), Input, "{}", name(number));
        }
        // InternalError, UnknownError, Unauthorized, AuthenticationFailed, CommandNotFound, not yet known.
        for number in [1, 8, 13, 18, 59, 999] {
            assert_eq!(meaning(number), Meaning::Ours, "{number}");
        }
        assert_eq!(name(40_323), "Location40323");
    }
}
