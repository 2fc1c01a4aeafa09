//! What the API's "Identity and authorization" says of a request, by the routes table.
//!
//! Written once more and not shared with the runner: where the two differ, one is wrong.

use std::collections::BTreeSet;

use http::Method;
use postern_contract::routes::Segment;
use postern_contract::{Code, Family, Route};

/// A tenant of the [`World`](crate::world::World).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tenant {
    /// Whose request it is, unless a case says otherwise.
    Own,
    /// Another one.
    Other,
    /// No tenant has this id.
    Nobody,
    /// Suspended.
    Asleep,
    /// Of a plan without `identity`.
    Small,
}

/// A workspace of the [`World`](crate::world::World).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workspace {
    /// Of [`Tenant::Own`], active, with every capability.
    Whole,
    /// With every capability but the route's.
    Lacking,
    /// Suspended.
    Asleep,
    /// Not ready yet.
    Provisioning,
    /// Deactivated.
    Gone,
    /// Of [`Tenant::Other`].
    Others,
    /// No workspace has this id.
    Nobodys,
    /// Of [`Tenant::Asleep`], itself active.
    OfAsleep,
}

impl Workspace {
    fn tenant(self) -> Option<Tenant> {
        match self {
            Self::Whole | Self::Lacking | Self::Asleep | Self::Provisioning | Self::Gone => {
                Some(Tenant::Own)
            }
            Self::Others => Some(Tenant::Other),
            Self::OfAsleep => Some(Tenant::Asleep),
            Self::Nobodys => None,
        }
    }
}

/// What stands in `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    Good,
    Nothing,
    Expired,
    /// No JWT at all.
    Nonsense,
    /// Signed by a key of nobody's.
    Forged,
    /// For another audience.
    Elsewhere,
}

/// A request: who sends it and what it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) bearer: Bearer,
    /// The token's tenant; `None`: a platform token.
    pub(crate) of: Option<Tenant>,
    pub(crate) role: &'static str,
    /// Whether the token has the route's scope besides all others.
    pub(crate) scope: bool,
    /// The workspace that the token is pinned to.
    pub(crate) pinned: Option<Workspace>,
    /// The tenant in the path, or whose realm it is, where the route has one.
    pub(crate) tenant: Tenant,
    /// The workspace in the path, where the route has one.
    pub(crate) workspace: Workspace,
    /// The tenant in `?tenantId=`.
    pub(crate) query: Option<Tenant>,
}

/// What a request must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Refused(Code),
    /// The family's own code answers, whatever it says.
    Served,
    /// The same, or it has tried to ask a backend that is not there.
    ServedOrAway,
}

/// Every role of the API, and one that it does not know.
pub(crate) const ROLES: [&str; 8] = [
    "superadmin",
    "platform_admin",
    "platform_operator",
    "tenant_admin",
    "tenant_operator",
    "workspace_admin",
    "workspace_operator",
    "nobody",
];

impl Asked {
    /// A request that the route is there for.
    pub(crate) fn rightly(route: &Route) -> Self {
        let has = |role: &&&str| route.roles.is_empty() || route.roles.iter().any(|r| r == *role);
        let preferred = ["tenant_admin", "superadmin"];
        let role = preferred.iter().chain(&ROLES).find(has);
        Self::by(role.expect("a route has a role of the API"))
    }

    /// The same by somebody with this role, on such a token as such a role comes on.
    pub(crate) fn by(role: &'static str) -> Self {
        let of_the_platform = is_the_platforms(role);
        Self {
            bearer: Bearer::Good,
            of: (!of_the_platform).then_some(Tenant::Own),
            role,
            scope: true,
            pinned: role.starts_with("workspace_").then_some(Workspace::Whole),
            tenant: Tenant::Own,
            workspace: Workspace::Whole,
            query: None,
        }
    }
}

/// Whether the path names a parameter.
pub(crate) fn has(route: &Route, name: &str) -> bool {
    let named = |segment: &Segment| matches!(segment, Segment::Param(param) if param == name);
    route.segments.iter().any(named)
}

/// A platform's role counts only on a token without a tenant, any other only on one with;
/// a workspace's only on one that is pinned.
fn is_the_platforms(role: &str) -> bool {
    role == "superadmin" || role.starts_with("platform_")
}

/// Families whose backend is not there in the deployment under test: a request that is
/// refused was refused before it was asked.
const WITHOUT_BACKEND: [Family; 2] = [Family::Auth, Family::Iam];

/// What a request must be answered, in a deployment that serves these families.
pub(crate) fn verdict(route: &Route, asked: &Asked, on: &BTreeSet<Family>) -> Verdict {
    if let Some(code) = refused(route, asked) {
        return Verdict::Refused(code);
    }
    if !on.contains(&route.family) {
        return Verdict::Refused(Code::FamilyUnavailable);
    }
    // The family itself knows whose a realm is.
    if has(route, "realmId") && asked.of.is_some_and(|own| own != asked.tenant) {
        return Verdict::Refused(Code::RealmNotFound);
    }
    served(route)
}

/// Let in, in a deployment that serves its family.
pub(crate) fn served(route: &Route) -> Verdict {
    if WITHOUT_BACKEND.contains(&route.family) {
        Verdict::ServedOrAway
    } else {
        Verdict::Served
    }
}

fn refused(route: &Route, asked: &Asked) -> Option<Code> {
    if route.is_public() {
        return None;
    }
    let token = match asked.bearer {
        Bearer::Good => None,
        Bearer::Nothing => Some(Code::TokenMissing),
        Bearer::Expired => Some(Code::TokenExpired),
        Bearer::Nonsense | Bearer::Forged | Bearer::Elsewhere => Some(Code::TokenInvalid),
    };
    if token.is_some() {
        return token;
    }
    if !asked.scope {
        return Some(Code::ScopeDenied);
    }
    let counts = is_the_platforms(asked.role) == asked.of.is_none()
        && (asked.pinned.is_some() || !asked.role.starts_with("workspace_"));
    let held = counts && route.roles.iter().any(|role| role == asked.role);
    if !route.roles.is_empty() && !held {
        return Some(Code::RoleDenied);
    }
    match asked.of {
        Some(own) => by_a_tenant(route, asked, own),
        // Platform tokens have no access to data.
        None => route.capability.as_ref().map(|_| Code::PermissionDenied),
    }
}

fn by_a_tenant(route: &Route, asked: &Asked, own: Tenant) -> Option<Code> {
    let in_path = has(route, "tenantId").then_some(asked.tenant);
    // `?tenantId=` names a tenant on the control plane; on data it is a filter.
    let in_query = asked
        .query
        .filter(|_| route.method == Method::GET && route.capability.is_none());
    if [in_path, in_query]
        .into_iter()
        .flatten()
        .any(|named| named != own)
    {
        return Some(Code::TenantNotFound);
    }
    match own {
        Tenant::Nobody => return Some(Code::TenantNotFound),
        Tenant::Asleep => return Some(Code::TenantSuspended),
        Tenant::Small if route.family == Family::Iam => return Some(Code::PlanCapabilityRequired),
        _ => {}
    }
    if !has(route, "workspaceId") {
        return None;
    }
    let reached = asked.pinned.is_none_or(|only| only == asked.workspace);
    if !reached || asked.workspace.tenant() != Some(own) {
        return Some(Code::WorkspaceNotFound);
    }
    // A workspace's own routes serve it in any state: that is where it changes.
    route.capability.as_ref()?;
    match asked.workspace {
        Workspace::Asleep => Some(Code::WorkspaceSuspended),
        Workspace::Provisioning => Some(Code::WorkspaceProvisioning),
        Workspace::Gone => Some(Code::WorkspaceNotFound),
        Workspace::Lacking => Some(Code::CapabilityDisabled),
        _ => None,
    }
}
