//! Calls a month, as runners report them.

use postern_directory::{ReportCallsRequest, ReportCallsResponse, Used};
use sqlx::PgPool;
use tonic::Status;

use crate::store::calls::{self, Calls};

/// More tenants in one report are refused: the runner sends fewer.
const MAX_TENANTS: usize = 2_000;
/// A report of a month that is further away is a mistake of somebody's clock.
const MAX_AGE: i64 = 62 * 24 * 3600;

/// Adds a report up.
pub(super) async fn take(
    pool: &PgPool,
    report: ReportCallsRequest,
) -> Result<ReportCallsResponse, Status> {
    let ReportCallsRequest {
        reporter,
        sequence,
        calls,
    } = report;
    let sequence = i64::try_from(sequence).ok();
    let (16, Some(sequence), true) = (reporter.len(), sequence, calls.len() <= MAX_TENANTS) else {
        return Err(Status::invalid_argument("no report of calls"));
    };
    let now = jiff::Timestamp::now().as_second();
    let rows = calls.into_iter().filter_map(|row| {
        let row = Calls {
            tenant: row.tenant_id,
            slug: row.tenant_slug,
            at: i64::try_from(row.at).ok()?,
            calls: i64::from(u32::try_from(row.calls).unwrap_or(u32::MAX)),
        };
        let near = now.abs_diff(row.at) <= MAX_AGE.unsigned_abs();
        if !near {
            tracing::warn!(
                tenant = row.tenant,
                at = row.at,
                "calls of a month far away"
            );
        }
        near.then_some(row)
    });
    let rows: Vec<_> = rows.collect();
    let told = calls::report(pool, &reporter, sequence, &rows)
        .await
        .map_err(super::away)?;
    let used = told.into_iter().map(|row| Used {
        tenant_id: row.tenant,
        at: super::unsigned(row.at),
        used: super::unsigned(row.used),
        limit: row.limit.map(super::unsigned),
        tenant_slug: row.slug,
    });
    Ok(ReportCallsResponse {
        used: used.collect(),
    })
}
