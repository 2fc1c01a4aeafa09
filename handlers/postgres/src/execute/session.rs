//! Whose statement it is.

use std::time::Duration;

use postern_contract::{TenantId, WorkspaceId};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

/// The caller of a statement, and the workspace that it stays in.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The token's tenant.
    pub(crate) tenant: TenantId,
    /// The workspace of the path.
    pub(crate) workspace: WorkspaceId,
    /// `sub` of the token.
    pub(crate) user: String,
    /// The workspace's schema.
    pub(crate) schema: String,
}

/// Which of the workspace's roles a statement runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reads and writes rows.
    Data,
    /// Owns the tables: makes, alters and drops them.
    Owner,
}

/// One statement sets everything, until the transaction ends. Values are bound: a
/// `SET LOCAL` would have to be made from text.
const SETTINGS: &str = "SELECT set_config('app.tenant_id', $1, true), set_config('app.workspace_id', $2, true), \
     set_config('app.user_id', $3, true), set_config('statement_timeout', $4, true), \
     set_config('search_path', $5, true), set_config('role', $6, true)";

impl Session {
    /// The session of a caller in a workspace.
    pub(crate) fn new(tenant: TenantId, workspace: WorkspaceId, user: &str) -> Self {
        let ulid = workspace.to_string();
        let ulid = ulid
            .trim_start_matches(WorkspaceId::PREFIX)
            .to_ascii_lowercase();
        Self {
            tenant,
            workspace,
            // A setting holds no NUL.
            user: user.replace('\0', ""),
            schema: format!("ws_{ulid}"),
        }
    }

    /// The name of one of the workspace's roles.
    pub(crate) fn role(&self, role: Role) -> String {
        match role {
            Role::Data => format!("{}_data", self.schema),
            Role::Owner => format!("{}_owner", self.schema),
        }
    }

    /// Sets role and settings for the transaction.
    pub(crate) async fn enter(
        &self,
        client: &Client,
        role: Role,
        statement: Duration,
    ) -> Result<(), Error> {
        let (tenant, workspace) = (self.tenant.to_string(), self.workspace.to_string());
        let timeout = statement.as_millis().to_string();
        // Operators of types that an extension brought are found through `public`.
        let path = format!("\"{}\", public", self.schema);
        let role = self.role(role);
        let values: [&(dyn ToSql + Sync); 6] =
            [&tenant, &workspace, &self.user, &timeout, &path, &role];
        let values = values.map(|value| (value, Type::TEXT));
        client.query_typed(SETTINGS, &values).await.map(drop)
    }
}
