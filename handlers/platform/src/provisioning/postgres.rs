//! A workspace in PostgreSQL: a schema of its own and two roles.
//!
//! | object | is |
//! |---|---|
//! | `ws_<ulid>` | the schema, open to nobody but these two |
//! | `ws_<ulid>_owner` | owns it and its tables; no login, no BYPASSRLS; tables are made as it |
//! | `ws_<ulid>_data` | reads and writes rows; no login, no BYPASSRLS; requests run as it |
//!
//! The role that the data handlers log in as is a member of both and inherits
//! nothing (NOINHERIT): it does nothing before it has taken one workspace's role.

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, PgPool};

use super::{Backend, BackendError, Place};

/// A PostgreSQL cluster that holds workspaces.
pub struct PostgresBackend {
    pool: PgPool,
    data_login: Option<String>,
}

impl PostgresBackend {
    /// The cluster behind this pool, whose role may create roles and schemas.
    /// `data_login` is made when it is missing, without a password.
    #[must_use]
    pub fn new(pool: PgPool, data_login: Option<String>) -> Self {
        Self { pool, data_login }
    }

    async fn run(&self, place: Place, template: &str) -> Result<(), BackendError> {
        let sql = fill(template, place, self.data_login.as_deref());
        // One transaction: a crash leaves nothing half done. Two handlers never do
        // the same workspace at once.
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(place.workspace.to_string())
            .execute(&mut *transaction)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

impl Backend for PostgresBackend {
    fn capability(&self) -> &'static str {
        "postgres"
    }

    fn provision(&self, place: Place) -> BoxFuture<'_, Result<(), BackendError>> {
        self.run(place, include_str!("provision.sql")).boxed()
    }

    fn purge(&self, place: Place) -> BoxFuture<'_, Result<(), BackendError>> {
        self.run(place, include_str!("purge.sql")).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            sqlx::query("SELECT 1").execute(&self.pool).await?;
            Ok(())
        }
        .boxed()
    }
}

/// Names come from ids, which hold letters and digits only, and from the operator's
/// configuration, which is quoted as a literal.
fn fill(template: &str, place: Place, data_login: Option<&str>) -> String {
    let ulid = place
        .workspace
        .to_string()
        .trim_start_matches("wks_")
        .to_ascii_lowercase();
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let login = data_login.map_or_else(|| "null::text".into(), literal);
    template
        .replace("$schema", &literal(&format!("ws_{ulid}")))
        .replace("$owner", &literal(&format!("ws_{ulid}_owner")))
        .replace("$data", &literal(&format!("ws_{ulid}_data")))
        .replace("$login", &login)
        .replace("$tenant", &literal(&place.tenant.to_string()))
        .replace(
            "$comment",
            &literal(&format!(
                "workspace {} of tenant {}",
                place.workspace, place.tenant
            )),
        )
}

#[cfg(test)]
mod tests {
    use postern_contract::{TenantId, WorkspaceId};

    use super::*;

    #[test]
    fn names_are_quoted() {
        let place = Place {
            workspace: WorkspaceId::new(),
            tenant: TenantId::new(),
        };
        let sql = fill("$schema $owner $data $login", place, Some("o'brien"));
        assert!(sql.ends_with("'o''brien'"), "{sql}");
        let names: Vec<_> = sql
            .split(' ')
            .take(3)
            .map(|name| name.trim_matches('\''))
            .collect();
        assert!(
            names
                .iter()
                .all(|name| name.len() < 64 && name.starts_with("ws_")),
            "{sql}"
        );
        assert!(names.iter().all(|name| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        }));
    }
}
