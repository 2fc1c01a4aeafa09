//! The closed list of error codes a client can see (`docs/errors.md` is made from it).

use serde::Serialize;

/// What becomes of an idempotent request's outcome when it ends with a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A verdict on the data after execution began: a retry replays it.
    Kept,
    /// Nothing was decided: a retry runs anew.
    Released,
}

macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $outcome:ident $mend:literal;)*) => {
        /// An error code. Its name is part of the API and never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $code, "` (", stringify!($status), "): ", $mend)] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the published list.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)* }
            }

            /// The status it is sent with, unless the place that raises it knows better
            /// (see [`Code::statuses`]).
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* }
            }

            /// Whether the outcome is kept for replays.
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self { $(Code::$variant => Outcome::$outcome,)* }
            }

            /// What the client can do about it.
            #[must_use]
            pub const fn mend(self) -> &'static str {
                match self { $(Code::$variant => $mend,)* }
            }
        }
    };
}

codes! {
    ValidationError "VALIDATION_ERROR" 400 Released "Correct the fields that `details` names.";
    ApiVersionMissing "API_VERSION_MISSING" 400 Released "Send X-API-Version with a supported date.";
    ApiVersionUnsupported "API_VERSION_UNSUPPORTED" 400 Released "Use one of the versions that the message lists.";
    CorrelationIdMissing "CORRELATION_ID_MISSING" 400 Released "Send X-Correlation-Id, 8 to 128 characters of A-Z a-z 0-9 . _ : -.";
    CorrelationIdInvalid "CORRELATION_ID_INVALID" 400 Released "Send one X-Correlation-Id, 8 to 128 characters of A-Z a-z 0-9 . _ : -.";
    HeaderRepeated "HEADER_REPEATED" 400 Released "Send the named header once.";
    IdempotencyKeyMissing "IDEMPOTENCY_KEY_MISSING" 400 Released "Send an Idempotency-Key, new for each new action and the same for its retries.";
    IdempotencyKeyInvalid "IDEMPOTENCY_KEY_INVALID" 400 Released "Send one Idempotency-Key of 1 to 255 visible ASCII characters.";
    FilterRequired "FILTER_REQUIRED" 400 Released "Name the rows by at least one filter.";
    PathAmbiguous "PATH_AMBIGUOUS" 400 Released "Send the path without dot segments, doubled slashes or encoded slashes.";
    TokenMissing "TOKEN_MISSING" 401 Released "Send Authorization: Bearer with an access token.";
    TokenInvalid "TOKEN_INVALID" 401 Released "Get a token from a trusted issuer for this audience.";
    TokenExpired "TOKEN_EXPIRED" 401 Released "Refresh the access token.";
    ContextInvalid "CONTEXT_INVALID" 401 Released "Send the request through the gateway.";
    InvalidCredentials "INVALID_CREDENTIALS" 401 Released "Check the credentials and the grant.";
    ScopeDenied "SCOPE_DENIED" 403 Released "Ask for a token with the scope that the message names.";
    RoleDenied "ROLE_DENIED" 403 Released "Use a token with one of the roles that the message names.";
    PermissionDenied "PERMISSION_DENIED" 403 Released "The operation is not open to this caller.";
    TenantSuspended "TENANT_SUSPENDED" 403 Released "The tenant must be active again.";
    WorkspaceSuspended "WORKSPACE_SUSPENDED" 403 Released "The workspace must be active again.";
    CapabilityDisabled "CAPABILITY_DISABLED" 403 Released "Enable the capability on the workspace.";
    PlanCapabilityRequired "PLAN_CAPABILITY_REQUIRED" 403 Released "Move the tenant to a plan with the capability.";
    QuotaExceeded "QUOTA_EXCEEDED" 403 Released "Free some of the quota or move to a larger plan.";
    TableNotProtected "TABLE_NOT_PROTECTED" 403 Released "Protect the table as the message says.";
    RouteNotFound "ROUTE_NOT_FOUND" 404 Released "Check the path against the API reference.";
    TenantNotFound "TENANT_NOT_FOUND" 404 Kept "Check the tenant id.";
    WorkspaceNotFound "WORKSPACE_NOT_FOUND" 404 Kept "Check the workspace id.";
    RealmNotFound "REALM_NOT_FOUND" 404 Kept "Check the realm id.";
    ClientNotFound "CLIENT_NOT_FOUND" 404 Kept "Check the client id.";
    UserNotFound "USER_NOT_FOUND" 404 Kept "Check the user id.";
    RowNotFound "ROW_NOT_FOUND" 404 Kept "Check the primary key.";
    TableNotFound "TABLE_NOT_FOUND" 404 Kept "Check the table's name.";
    DocumentNotFound "DOCUMENT_NOT_FOUND" 404 Kept "Check the document id.";
    CollectionNotFound "COLLECTION_NOT_FOUND" 404 Kept "Check the collection's name.";
    TopicNotFound "TOPIC_NOT_FOUND" 404 Kept "Check the topic's name.";
    FunctionNotFound "FUNCTION_NOT_FOUND" 404 Kept "Check the function's name.";
    ObjectNotFound "OBJECT_NOT_FOUND" 404 Kept "Check the object's path.";
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405 Released "Use one of the methods in Allow.";
    NotAcceptable "NOT_ACCEPTABLE" 406 Released "Accept a media type that the message names, or ask for exactly one row.";
    IdempotencyInProgress "IDEMPOTENCY_IN_PROGRESS" 409 Released "Retry after Retry-After with the same key.";
    IdempotencyOutcomeUnknown "IDEMPOTENCY_OUTCOME_UNKNOWN" 409 Released "Look whether the effect is there; use a new key to run it again.";
    TenantSlugTaken "TENANT_SLUG_TAKEN" 409 Kept "Choose another slug.";
    WorkspaceSlugTaken "WORKSPACE_SLUG_TAKEN" 409 Kept "Choose another slug.";
    WorkspaceProvisioning "WORKSPACE_PROVISIONING" 409 Released "Retry when the workspace is active.";
    DuplicateKey "DUPLICATE_KEY" 409 Kept "A record with this key exists.";
    ForeignKeyViolation "FOREIGN_KEY_VIOLATION" 409 Kept "Mend the reference that the message names.";
    SerializationFailure "SERIALIZATION_FAILURE" 409 Released "Retry with the same key.";
    PreconditionFailed "PRECONDITION_FAILED" 412 Kept "Read the resource again and send its ETag.";
    BodyTooLarge "BODY_TOO_LARGE" 413 Released "Keep the body within the route's limit.";
    UriTooLong "URI_TOO_LONG" 414 Released "Shorten the path or the query.";
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" 415 Released "Send one of the media types that the message lists.";
    IdempotencyKeyReused "IDEMPOTENCY_KEY_REUSED" 422 Released "Use a new key for a request that differs.";
    InvalidStatusTransition "INVALID_STATUS_TRANSITION" 422 Kept "Use one of the statuses that the message lists.";
    PlanLimitExceeded "PLAN_LIMIT_EXCEEDED" 422 Kept "Free what is above the smaller plan's limits first.";
    PlanUnknown "PLAN_UNKNOWN" 422 Kept "Use one of the plans that GET /v1/platform/info lists.";
    MaxAffectedExceeded "MAX_AFFECTED_EXCEEDED" 422 Kept "Narrow the filter or raise max-affected.";
    ConstraintViolation "CONSTRAINT_VIOLATION" 422 Kept "Mend the value that the message names.";
    DocumentInvalid "DOCUMENT_INVALID" 422 Kept "Mend the path that the message names.";
    FunctionError "FUNCTION_ERROR" 422 Kept "Read the function's message and stack.";
    RateLimited "RATE_LIMITED" 429 Released "Wait Retry-After seconds.";
    CallsExceeded "CALLS_EXCEEDED" 429 Released "Wait for the reset that the message names or move to a larger plan.";
    HeadersTooLarge "HEADERS_TOO_LARGE" 431 Released "Send fewer than 90 headers.";
    Internal "INTERNAL" 500 Released "Report the correlation id.";
    GatewayMisconfigured "GATEWAY_MISCONFIGURED" 500 Released "The operator finds the route and the field in the runner's log.";
    BackendUnavailable "BACKEND_UNAVAILABLE" 503 Released "Retry after Retry-After with the same key.";
    FamilyUnavailable "FAMILY_UNAVAILABLE" 503 Released "This family is off in this deployment.";
    StatementTimeout "STATEMENT_TIMEOUT" 504 Released "Narrow the request or add an index.";
    FunctionTimeout "FUNCTION_TIMEOUT" 504 Kept "Shorten the function's work or raise its time-out.";
}

impl Code {
    /// Every status the code may be sent with; the first is [`Code::status`].
    #[must_use]
    pub fn statuses(self) -> &'static [u16] {
        match self {
            // A blocked delete conflicts; a reference that points nowhere is a business rule.
            Code::ForeignKeyViolation => &[409, 422],
            // A gateway or a backend that answered badly, is away, or is too slow.
            Code::BackendUnavailable => &[503, 502, 504],
            // A column that is not in the catalog is the request's fault, a table is a resource.
            Code::ValidationError => &[400],
            other => std::slice::from_ref(STATUS_OF.get(other as usize).unwrap_or(&500)),
        }
    }
}

/// [`Code::status`] by discriminant, so that [`Code::statuses`] can hand out a slice.
static STATUS_OF: [u16; Code::ALL.len()] = {
    let mut all = [0; Code::ALL.len()];
    let mut i = 0;
    while i < Code::ALL.len() {
        #[expect(
            clippy::indexing_slicing,
            reason = "const evaluation, bounded by the loop"
        )]
        {
            all[i] = Code::ALL[i].status();
        }
        i += 1;
    }
    all
};

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_statuses_start_with_the_status() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert_eq!(code.statuses().first(), Some(&code.status()), "{code}");
        }
    }

    #[test]
    fn what_is_kept_follows_the_protocol() {
        for code in Code::ALL {
            let kept = code.outcome() == Outcome::Kept;
            match code.status() {
                // Malformed, unauthorised, limited or broken: never a verdict on the data.
                400 | 401 | 403 | 405 | 413 | 414 | 415 | 429 | 431 | 500 | 502 | 503 => {
                    assert!(!kept, "{code} must be released");
                }
                412 => assert!(kept, "{code} must be kept"),
                _ => {}
            }
        }
    }
}
