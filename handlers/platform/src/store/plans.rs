//! Plans: data that an operator may change, the same for every caller.

use postern_common::Failure;
use postern_contract::Code;
use sqlx::{PgConnection, PgExecutor};

use crate::model::Plan;

pub(crate) async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Plan>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM postern.plan ORDER BY position")
        .fetch_all(db)
        .await
}

/// The plan, or `PLAN_UNKNOWN`.
pub(crate) async fn get(db: &mut PgConnection, id: &str) -> Result<Plan, Failure> {
    let found = sqlx::query_as("SELECT * FROM postern.plan WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
    if let Some(plan) = found {
        return Ok(plan);
    }
    let known: Vec<_> = list(db).await?.into_iter().map(|plan| plan.id).collect();
    let message = format!("there is no plan {id}; there are {}", known.join(", "));
    Err(Failure::new(Code::PlanUnknown, message))
}
