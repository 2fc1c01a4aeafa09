//! Which function serves which route.
//!
//! Paths are matched by the routes table that both sides share, so a router only
//! maps route ids to functions; what it serves must be what the table says of its
//! families, or the server does not start.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use postern_contract::{Family, routes};

use crate::{Call, Failure, Reply};

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Reply, Failure>> + Send + Sync>;

/// Functions by route id.
#[derive(Default)]
pub struct Router {
    handlers: BTreeMap<&'static str, Handler>,
}

/// A router that does not serve what the routes table says.
#[derive(Debug, thiserror::Error)]
#[error("the router differs from the routes table: missing [{}], surplus [{}]", .missing.join(", "), .surplus.join(", "))]
pub struct Mismatch {
    missing: Vec<String>,
    surplus: Vec<String>,
}

impl Router {
    /// Serves a route by this function over this state.
    #[must_use]
    pub fn route<S, F, R>(mut self, id: &'static str, state: &Arc<S>, handler: F) -> Self
    where
        S: Send + Sync + 'static,
        F: Fn(Arc<S>, Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Reply, Failure>> + Send + 'static,
    {
        let state = Arc::clone(state);
        self.handlers.insert(
            id,
            Arc::new(move |call| Box::pin(handler(Arc::clone(&state), call))),
        );
        self
    }

    /// Only the routes of these families.
    #[must_use]
    pub fn only(mut self, families: &[Family]) -> Self {
        self.handlers.retain(|id, _| {
            routes()
                .get(id)
                .is_none_or(|route| families.contains(&route.family))
        });
        self
    }

    /// Adds another router's routes.
    #[must_use]
    pub fn merge(mut self, other: Router) -> Self {
        self.handlers.extend(other.handlers);
        self
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Handler> {
        self.handlers.get(id)
    }

    /// Compares with the routes table.
    ///
    /// # Errors
    /// When a route of these families is missing, or one is served that is not theirs.
    pub fn check(&self, families: &[Family]) -> Result<(), Mismatch> {
        let wanted = || {
            routes()
                .all()
                .iter()
                .filter(|route| families.contains(&route.family))
        };
        let missing: Vec<_> = wanted()
            .filter(|route| self.get(&route.id).is_none())
            .map(|route| route.id.clone())
            .collect();
        let surplus: Vec<_> = self
            .handlers
            .keys()
            .filter(|id| wanted().all(|route| route.id != **id))
            .map(|id| (*id).into())
            .collect();
        if missing.is_empty() && surplus.is_empty() {
            Ok(())
        } else {
            Err(Mismatch { missing, surplus })
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_router_that_differs_is_named() {
        async fn answer(_: Arc<()>, _: Call) -> Result<Reply, Failure> {
            Ok(Reply::empty(StatusCode::OK))
        }
        let router = Router::default()
            .route("workspaces.get", &Arc::new(()), answer)
            .route("x", &Arc::new(()), answer);
        let message = router.check(&[Family::Workspaces]).unwrap_err().to_string();
        assert!(
            message.contains("workspaces.create") && message.contains("surplus [x]"),
            "{message}"
        );
        assert!(!message.contains("workspaces.get"), "{message}");
    }
}
