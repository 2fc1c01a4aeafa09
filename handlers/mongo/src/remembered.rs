//! What the server said a moment ago, so that not every write asks for it.

use std::time::Duration;

use bson::{Bson, doc};
use futures::stream::{self, StreamExt as _};
use moka::future::Cache;
use mongodb::{Client, Database};
use postern_contract::TenantId;

use crate::store::{RECORDS, databases};

/// Collections that were there a moment ago, so that not every insert asks for its own.
#[derive(Clone)]
pub(crate) struct Known(Cache<(String, String), ()>);

/// A collection that is dropped through other handlers is taken to be there for so long;
/// an insert then makes it again.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Collections remembered.
const KNOWN: u64 = 100_000;

impl Known {
    pub(crate) fn new() -> Self {
        let cache = Cache::builder().max_capacity(KNOWN).time_to_live(KNOWN_FOR);
        Self(cache.build())
    }

    fn key(database: &Database, name: &str) -> (String, String) {
        (database.name().to_owned(), name.to_owned())
    }

    pub(crate) fn holds(&self, database: &Database, name: &str) -> bool {
        self.0.contains_key(&Self::key(database, name))
    }

    pub(crate) async fn add(&self, database: &Database, name: &str) {
        self.0.insert(Self::key(database, name), ()).await;
    }

    pub(crate) async fn remove(&self, database: &Database, name: &str) {
        self.0.invalidate(&Self::key(database, name)).await;
    }
}

/// How many bytes of records each tenant keeps in its workspaces, as the server counted
/// them a moment ago: asked for once in a while, not with every write.
#[derive(Clone)]
pub(crate) struct KeptBytes(Cache<TenantId, u64>);

/// A tenant may be over its quota by what it writes in this time.
const COUNTED_FOR: Duration = Duration::from_secs(5);
/// Tenants remembered.
const COUNTED: u64 = 10_000;
/// Workspaces that are counted at once.
const AT_ONCE: usize = 8;

impl KeptBytes {
    pub(crate) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(COUNTED)
            .time_to_live(COUNTED_FOR);
        Self(cache.build())
    }

    /// 0 where the server does not say.
    pub(crate) async fn of(&self, client: &Client, tenant: TenantId) -> u64 {
        let count = async {
            let databases = databases(client, &tenant.to_string()).await;
            stream::iter(databases.unwrap_or_default())
                .map(async |database| bytes(&client.database(&database)).await)
                .buffer_unordered(AT_ONCE)
                .fold(0, async |sum: u64, bytes| sum.saturating_add(bytes))
                .await
        };
        self.0.get_with(tenant, count).await
    }
}

async fn bytes(database: &Database) -> u64 {
    let stats = database.run_command(doc! { "collStats": RECORDS }).await;
    let size = stats.ok().and_then(|stats| match stats.get("size") {
        Some(Bson::Int32(size)) => u64::try_from(*size).ok(),
        Some(Bson::Int64(size)) => u64::try_from(*size).ok(),
        Some(Bson::Double(size)) => Some(*size as u64),
        _ => None,
    });
    size.unwrap_or_default()
}
