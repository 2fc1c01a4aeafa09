//! `/v1/iam`: a tenant's realm, through Keycloak's admin REST.
//!
//! Keycloak has no part in our transactions, so what is made there carries a mark of the
//! request that made it. A retry after a crash looks for the mark: what bears it is done,
//! what stands there without it is somebody else's.

pub(crate) mod clients;
pub(crate) mod realms;
pub(crate) mod roles;
pub(crate) mod user_roles;
pub(crate) mod users;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;
use postern_common::control_plane::Deed;
use postern_common::fields::kind;
use postern_common::idempotency::{Attempt, Effect, Keyed};
use postern_common::{Call, Caller, Failure, Reply};
use postern_contract::Code;
use serde_json::Value;
use sqlx::PgConnection;

use crate::Auth;
use crate::keycloak::{Answer, unavailable};
use crate::realms::Realm;

/// The attribute that names the request which made something.
pub(crate) const MARK: &str = "postern_request";
/// A user's attribute, and the claim of that name: the workspace that its tokens are pinned to.
pub(crate) const PIN: &str = "workspace_id";

/// A change of a realm, for the ledger.
struct Change<W> {
    app: Arc<Auth>,
    caller: Caller,
    deed: Deed,
    work: W,
}

impl<W> Effect for Change<W>
where
    W: Fn(Attempt) -> BoxFuture<'static, Result<Reply, Failure>> + Send + Sync + 'static,
{
    fn bring_about(&self, attempt: Attempt) -> BoxFuture<'_, Result<Reply, Failure>> {
        (self.work)(attempt)
    }

    fn note<'t>(&'t self, db: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>> {
        self.app
            .control_plane
            .done(db, &self.caller, self.deed.clone())
    }
}

/// Carries out a change at most once a key; `changes` is for the audit trail.
async fn change<F>(
    app: &Arc<Auth>,
    call: &Call,
    keyed: Option<Keyed>,
    realm: &Realm,
    changes: Value,
    work: impl Fn(Attempt) -> F + Send + Sync + 'static,
) -> Result<Reply, Failure>
where
    F: Future<Output = Result<Reply, Failure>> + Send + 'static,
{
    let change = Change {
        app: Arc::clone(app),
        caller: call.caller.clone(),
        deed: Deed {
            action: &call.route.id,
            tenant: realm.tenant.id,
            changes,
        },
        work: move |attempt| work(attempt).boxed(),
    };
    app.ledger
        .run_outside(keyed, call.caller.correlation_id(), change)
        .await
}

/// The mark of a request; none without an Idempotency-Key.
fn mark(keyed: Option<&Keyed>) -> Option<String> {
    let scope = keyed?.scope;
    Some(scope.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A token that is pinned to one workspace does nothing beyond it.
pub(crate) fn refuse_pinned(caller: &Caller) -> Result<(), Failure> {
    match caller.pinned() {
        None => Ok(()),
        Some(workspace) => Err(Failure::new(
            Code::PermissionDenied,
            format!("realms are not open to a token that is pinned to {workspace}"),
        )),
    }
}

/// The answer to a read or a change, unless there is no realm (yet) to be read or changed.
fn of_a_realm(answer: Answer) -> Result<Answer, Failure> {
    let missing = answer.status == StatusCode::NOT_FOUND
        && answer
            .body
            .windows(15)
            .any(|text| text == b"Realm not found");
    if missing {
        tracing::warn!("a tenant's realm is not there yet");
        return Err(unavailable());
    }
    Ok(answer)
}

/// A list of texts, each good for `read`, none twice.
fn list<T: PartialEq>(
    max: usize,
    read: impl Fn(&str) -> Result<T, String>,
) -> impl FnOnce(Value) -> Result<Vec<T>, String> {
    move |value| {
        let Value::Array(items) = value else {
            return Err(format!("must be an array, not {}", kind(&value)));
        };
        if items.len() > max {
            return Err(format!("must have at most {max} items"));
        }
        let mut read_items = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let Value::String(text) = item else {
                return Err(format!("[{at}] must be a string, not {}", kind(item)));
            };
            let item = read(text).map_err(|reason| format!("[{at}] {reason}"))?;
            if read_items.contains(&item) {
                return Err(format!("[{at}] stands there before"));
            }
            read_items.push(item);
        }
        Ok(read_items)
    }
}

/// The rows of a page out of all there are, by their names.
fn rows_of<T>(mut all: Vec<T>, page: &postern_common::page::Page, name: fn(&T) -> &str) -> Vec<T> {
    all.sort_by(|a, b| name(a).cmp(name(b)));
    let fetch = usize::try_from(page.fetch()).unwrap_or(usize::MAX);
    let after = page.after.as_deref();
    all.into_iter()
        .filter(|row| after.is_none_or(|after| name(row) > after))
        .take(fetch)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists() {
        let read = |value| list(2, |text| Ok(text.to_owned()))(value);
        assert_eq!(read(json!(["a", "b"])), Ok(vec!["a".into(), "b".into()]));
        for bad in [
            json!("a"),
            json!([1]),
            json!(["a", "a"]),
            json!(["a", "b", "c"]),
            json!(null),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
