//! Who asks, and how far that reaches.
//!
//! Both types are made by the context layer alone, from what the runner sealed;
//! a [`Scope`] is the first argument of every store function that acts for a caller.

use std::sync::Arc;

use postern_context::Context;
use postern_contract::{Code, TenantId, WorkspaceId};

use crate::Failure;

/// Roles that reach every tenant, carried by tokens without a tenant.
pub const PLATFORM_ROLES: [&str; 3] = ["superadmin", "platform_admin", "platform_operator"];
/// Roles that reach a whole tenant.
pub const TENANT_ROLES: [&str; 2] = ["tenant_admin", "tenant_operator"];

/// The verified caller of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    context: Arc<Context>,
    tenant: Option<TenantId>,
    pinned: Option<WorkspaceId>,
}

/// Which rows a caller can see or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    tenant: Option<TenantId>,
    workspace: Option<WorkspaceId>,
}

impl Caller {
    /// From an opened context.
    ///
    /// # Errors
    /// `CONTEXT_INVALID` when its ids are not ids: nothing of ours seals that.
    pub(crate) fn new(context: Context) -> Result<Self, Failure> {
        fn id<T: std::str::FromStr>(text: &str) -> Result<Option<T>, Failure> {
            let invalid = |_| {
                Failure::new(
                    Code::ContextInvalid,
                    "the token's tenant or workspace is not an id",
                )
            };
            if text.is_empty() {
                Ok(None)
            } else {
                text.parse().map(Some).map_err(invalid)
            }
        }
        Ok(Self {
            tenant: id(&context.tenant)?,
            pinned: id(&context.workspace)?,
            context: Arc::new(context),
        })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// `sub` of the token; empty on a public route.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.context.subject
    }

    /// The token's tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// The workspace that the token is pinned to.
    #[must_use]
    pub fn pinned(&self) -> Option<WorkspaceId> {
        self.pinned
    }

    /// The request's correlation id.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        &self.context.correlation_id
    }

    /// The client's address as the gateway saw it.
    #[must_use]
    pub fn client_address(&self) -> &str {
        &self.context.client_address
    }

    /// Whether the caller has one of these roles.
    #[must_use]
    pub fn has_role(&self, roles: &[&str]) -> bool {
        self.context
            .roles
            .iter()
            .any(|role| roles.contains(&role.as_str()))
    }

    /// Asks for one of these roles.
    ///
    /// # Errors
    /// `ROLE_DENIED`, naming them.
    pub fn need_role(&self, roles: &[&str], what: &str) -> Result<(), Failure> {
        if self.has_role(roles) {
            return Ok(());
        }
        Err(Failure::new(
            Code::RoleDenied,
            format!("{what} needs one of the roles {}", roles.join(", ")),
        ))
    }

    /// How far the caller reaches: a pinned token its workspace, a tenant's token its
    /// tenant, a platform token everything.
    ///
    /// # Errors
    /// `ROLE_DENIED` when a token without a tenant has no platform role, or a token
    /// with workspace roles only is pinned to none.
    pub fn scope(&self) -> Result<Scope, Failure> {
        let Some(tenant) = self.tenant else {
            self.need_role(&PLATFORM_ROLES, "a token without a tenant")?;
            return Ok(Scope {
                tenant: None,
                workspace: None,
            });
        };
        if self.pinned.is_none() && !self.has_role(&TENANT_ROLES) && !self.has_role(&PLATFORM_ROLES)
        {
            self.need_role(&TENANT_ROLES, "a token that is pinned to no workspace")?;
        }
        Ok(Scope {
            tenant: Some(tenant),
            workspace: self.pinned,
        })
    }
}

impl Scope {
    /// Only this tenant; `None`: every tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// Only this workspace; `None`: every workspace of the tenant.
    #[must_use]
    pub fn workspace(&self) -> Option<WorkspaceId> {
        self.workspace
    }

    /// Whether a tenant is within reach.
    #[must_use]
    pub fn reaches(&self, tenant: TenantId) -> bool {
        self.tenant.is_none_or(|own| own == tenant)
    }

    /// The tenant as a bind value: `null` for every tenant.
    #[must_use]
    pub fn tenant_filter(&self) -> Option<String> {
        self.tenant.map(|id| id.to_string())
    }

    /// The workspace as a bind value: `null` for every workspace.
    #[must_use]
    pub fn workspace_filter(&self) -> Option<String> {
        self.workspace.map(|id| id.to_string())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn caller(tenant: &str, workspace: &str, role: &str) -> Caller {
        let (tenant, workspace) = (tenant.into(), workspace.into());
        Caller::new(Context {
            tenant,
            workspace,
            roles: vec![role.into()],
            ..Context::default()
        })
        .unwrap()
    }

    #[test]
    fn reach() {
        let (tenant, workspace) = (TenantId::new(), WorkspaceId::new());
        let (t, w) = (tenant.to_string(), workspace.to_string());
        assert_eq!(
            caller("", "", "platform_operator").scope().unwrap(),
            Scope {
                tenant: None,
                workspace: None
            }
        );
        assert_eq!(
            caller(&t, "", "tenant_admin").scope().unwrap().tenant(),
            Some(tenant)
        );
        assert_eq!(
            caller(&t, &w, "workspace_admin")
                .scope()
                .unwrap()
                .workspace(),
            Some(workspace)
        );
        assert_eq!(
            caller(&t, &w, "tenant_admin").scope().unwrap().workspace(),
            Some(workspace)
        );
        for (tenant, role) in [
            ("", "tenant_admin"),
            ("", "workspace_admin"),
            (t.as_str(), "workspace_admin"),
        ] {
            assert_eq!(
                caller(tenant, "", role).scope().unwrap_err().code(),
                Code::RoleDenied,
                "{role}"
            );
        }
        assert!(
            !caller(&t, "", "tenant_admin")
                .scope()
                .unwrap()
                .reaches(TenantId::new())
        );
    }

    #[test]
    fn ids_that_are_none_are_refused() {
        let context = Context {
            tenant: "tnt_x".into(),
            ..Context::default()
        };
        assert_eq!(
            Caller::new(context).unwrap_err().code(),
            Code::ContextInvalid
        );
    }
}
