//! Collections of a workspace, within its tenant's plan.

use postern_common::Failure;
use postern_contract::Code;

use crate::failure::{failure, is_there_already};
use crate::family::{Mongo, Place};
use crate::store::RECORDS;
use crate::wall::RESERVED_COLLECTION;

/// Makes a collection that is not there yet, if the plan has room for one more.
///
/// # Errors
/// `QUOTA_EXCEEDED`; the server's.
pub(crate) async fn make_missing(app: &Mongo, place: &Place, name: &str) -> Result<(), Failure> {
    if place.has(name).await? {
        return Ok(());
    }
    if let Some(limit) = app.quotas.collections(place.tenant).await? {
        let used = used(place).await?;
        if used >= limit {
            return Err(Failure::new(
                Code::QuotaExceeded,
                format!("the plan's {limit} collections are used up"),
            ));
        }
    }
    match place.database.create_collection(name).await {
        Err(error) if !is_there_already(&error) => return Err(failure(error)),
        _ => {}
    }
    app.quotas.used(place.tenant, used(place).await?).await;
    Ok(())
}

/// How many collections the workspace has; ours are not counted.
pub(crate) async fn used(place: &Place) -> Result<i64, Failure> {
    let names = place
        .database
        .list_collection_names()
        .await
        .map_err(failure)?;
    debug_assert!(RECORDS.starts_with(RESERVED_COLLECTION));
    let own = names
        .iter()
        .filter(|name| !name.starts_with(RESERVED_COLLECTION) && !name.starts_with("system."));
    Ok(i64::try_from(own.count()).unwrap_or(i64::MAX))
}
