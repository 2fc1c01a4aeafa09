//! The control plane's resources, as stored and as answered.

use postern_common::time::Time;
use postern_contract::{AuditId, TenantId, WorkspaceId};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::types::Json;

/// Of a tenant or workspace: `provisioning → active ⇄ suspended → deactivated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum Status {
    Provisioning,
    Active,
    Suspended,
    Deactivated,
}

impl Status {
    pub(crate) const ALL: [Status; 4] = [
        Self::Provisioning,
        Self::Active,
        Self::Suspended,
        Self::Deactivated,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deactivated => "deactivated",
        }
    }

    /// Where a PATCH may go from here. A DELETE deactivates from everywhere.
    pub(crate) const fn next(self) -> &'static [Status] {
        match self {
            Self::Active => &[Self::Suspended],
            Self::Suspended => &[Self::Active, Self::Deactivated],
            Self::Provisioning | Self::Deactivated => &[],
        }
    }

    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(format!("must be one of {names}"))
    }
}

/// What a workspace can have.
pub(crate) const CAPABILITIES: [&str; 5] = ["postgres", "mongo", "kafka", "functions", "storage"];

#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tenant {
    #[sqlx(try_from = "String")]
    pub(crate) id: TenantId,
    pub(crate) slug: String,
    pub(crate) display_name: String,
    pub(crate) plan: String,
    pub(crate) status: Status,
    pub(crate) admin_email: String,
    pub(crate) metadata: Json<Map<String, Value>>,
    pub(crate) created_at: Time,
    pub(crate) updated_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deactivated_at: Option<Time>,
    #[serde(skip)]
    pub(crate) version: i64,
}

#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workspace {
    #[sqlx(try_from = "String")]
    pub(crate) id: WorkspaceId,
    #[sqlx(try_from = "String")]
    pub(crate) tenant_id: TenantId,
    pub(crate) slug: String,
    pub(crate) display_name: String,
    pub(crate) status: Status,
    pub(crate) capabilities: Vec<String>,
    /// Capabilities whose backend has nothing for this workspace yet.
    pub(crate) pending_capabilities: Vec<String>,
    pub(crate) created_at: Time,
    pub(crate) updated_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deactivated_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) purge_after: Option<Time>,
    #[serde(skip)]
    pub(crate) version: i64,
}

/// `None`: no limit.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) workspaces: Option<i64>,
    pub(crate) tables: Option<i64>,
    pub(crate) collections: Option<i64>,
    pub(crate) functions: Option<i64>,
    pub(crate) storage_gb: Option<i64>,
    pub(crate) calls_per_month: Option<i64>,
    pub(crate) capabilities: Vec<String>,
}

impl Plan {
    /// Each quota's name and limit.
    pub(crate) fn quotas(&self) -> [(&'static str, Option<i64>); 6] {
        [
            ("workspaces", self.workspaces),
            ("tables", self.tables),
            ("collections", self.collections),
            ("functions", self.functions),
            ("storageGb", self.storage_gb),
            ("callsPerMonth", self.calls_per_month),
        ]
    }
}

/// One entry of the audit trail.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditEvent {
    #[sqlx(try_from = "String")]
    pub(crate) id: AuditId,
    #[sqlx(rename = "at")]
    pub(crate) timestamp: Time,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    pub(crate) tenant_id: Option<String>,
    pub(crate) workspace_id: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) correlation_id: String,
    pub(crate) client_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) changes: Option<Json<Value>>,
}
