//! The mongo family's databases, made and destroyed from the outbox.

use futures::FutureExt;
use futures::future::BoxFuture;
use mongodb::Client;
use mongodb::bson::doc;
use postern_platform::provisioning::{Backend, BackendError, Place};

/// A replica set that holds workspaces.
pub(crate) struct MongoBackend(pub(crate) Client);

impl Backend for MongoBackend {
    fn capability(&self) -> &'static str {
        "mongo"
    }

    fn provision(&self, place: Place) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            postern_mongo::provision(&self.0, place.tenant, place.workspace).await?;
            Ok(())
        }
        .boxed()
    }

    fn purge(&self, place: Place) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            postern_mongo::purge(&self.0, place.workspace).await?;
            Ok(())
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            self.0
                .database("admin")
                .run_command(doc! { "ping": 1 })
                .await?;
            Ok(())
        }
        .boxed()
    }
}
