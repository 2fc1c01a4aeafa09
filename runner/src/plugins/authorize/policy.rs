//! The rules, in their order, over what is known without waiting.
//!
//! The tenant's own issuer → scope → role → tenant named in path or query → the token's
//! tenant → the workspace in the path → family on. What belongs to another tenant answers
//! exactly as what does not exist.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use postern_contract::{Code, Family, Match, Params, Route};
use postern_directory::{Status, Tenant, Workspace};

use super::directory::{Directory, Entry, Value};
use super::{Denied, Refusal};
use crate::plugins::no_route::not_found;
use crate::{Identity, Reply, Request};

/// What a request may do, and what was learned on the way.
#[derive(Debug, Default)]
pub(super) struct Granted {
    /// The plan of the caller's tenant, by the directory.
    pub(super) plan: Option<String>,
}

/// Why there is no grant.
pub(super) enum Halt {
    Refuse(Refusal),
    /// This tenant or workspace must be looked up first.
    Ask(String),
}

impl From<Reply> for Halt {
    fn from(reply: Reply) -> Self {
        Self::Refuse(reply.into())
    }
}

/// Entries that were fetched for this very request, cached or not.
#[derive(Default)]
pub(super) struct Answers(Vec<(String, Arc<Entry>)>);

impl Answers {
    pub(super) fn add(&mut self, id: String, entry: Arc<Entry>) {
        self.0.push((id, entry));
    }

    fn look(&self, directory: &Directory, id: &str) -> Result<Arc<Entry>, Halt> {
        let fetched = self.0.iter().find(|(known, _)| known == id);
        match fetched
            .map(|(_, entry)| Arc::clone(entry))
            .or_else(|| directory.cached(id))
        {
            Some(entry) => Ok(entry),
            None => Err(Halt::Ask(id.to_owned())),
        }
    }
}

pub(super) fn judge(
    families: &BTreeSet<Family>,
    directory: &Directory,
    answers: &Answers,
    request: &Request<'_>,
) -> Result<Granted, Halt> {
    let Ok(Match::Found(route, params)) = request.route() else {
        return Err(not_found(request).into());
    };
    let granted = if route.is_public() {
        Granted::default()
    } else {
        granted(directory, answers, request, route, params)?
    };
    // Last, as it is where the handler says so: who may not use a family does not
    // learn whether it is on, and both answer alike.
    if families.contains(&route.family) {
        return Ok(granted);
    }
    let message = format!(
        "the family {} is not served by this deployment",
        route.family
    );
    Err(Reply::refuse(Code::FamilyUnavailable, message).into())
}

/// What a route by token asks for.
fn granted<'a>(
    directory: &Directory,
    answers: &Answers,
    request: &Request<'a>,
    route: &'static Route,
    params: &Params<'a>,
) -> Result<Granted, Halt> {
    let Some(who) = &request.facts.identity else {
        let message = "authorize: nobody has checked the token; put jwt before authorize";
        return Err(Reply::refuse(Code::GatewayMisconfigured, message).into());
    };
    let asked = Asked {
        route,
        params,
        who,
        request,
    };
    asked.issuer(directory, answers)?;
    asked.scope()?;
    asked.role()?;
    let named = asked.named_tenant()?;
    match &who.tenant {
        None => asked.by_the_platform(directory, answers, named.as_deref()),
        Some(tenant) => asked.by_a_tenant(directory, answers, tenant),
    }
}

/// A request by somebody for a route.
struct Asked<'r, 'a> {
    route: &'static Route,
    params: &'r Params<'a>,
    who: &'r Identity,
    request: &'r Request<'a>,
}

impl Asked<'_, '_> {
    /// A tenant's own issuer speaks for that tenant: before anything else is said of a
    /// tenant or kept in its name.
    fn issuer(&self, directory: &Directory, answers: &Answers) -> Result<(), Halt> {
        let (Some(slug), Some(id)) = (&self.who.tenant_slug, &self.who.tenant) else {
            return Ok(());
        };
        let entry = answers.look(directory, id)?;
        if entry.tenant().is_some_and(|tenant| tenant.slug == *slug) {
            return Ok(());
        }
        Err(self.deny_to(false, no_tenant(id), Some(&shown(id))))
    }

    fn scope(&self) -> Result<(), Halt> {
        match &self.route.scope {
            Some(scope) if !self.who.scopes.contains(scope) => {
                let message = format!("the token lacks the scope {scope}");
                let challenge = format!(
                    r#"Bearer error="insufficient_scope", scope="{scope}", realm="postern""#
                );
                let reply = Reply::refuse(Code::ScopeDenied, message);
                Err(self.deny(reply.with_header("WWW-Authenticate", challenge), None))
            }
            _ => Ok(()),
        }
    }

    fn role(&self) -> Result<(), Halt> {
        let needed = &self.route.roles;
        let has = |role: &String| self.who.roles.contains(role);
        if needed.is_empty() || needed.iter().any(has) {
            return Ok(());
        }
        let unpinned = self.who.workspace.is_none()
            && needed.iter().any(|role| role.starts_with("workspace_"));
        let pin = if unpinned {
            "; a workspace's roles count on a token that is pinned to one"
        } else {
            ""
        };
        let needed = needed.join(", ");
        let message = format!("the caller has none of the roles {needed}{pin}");
        Err(self.deny(Reply::refuse(Code::RoleDenied, message), None))
    }

    /// The tenant in the path or, on the control plane's lists, in `?tenantId=`: a
    /// tenant's token names none but its own.
    fn named_tenant(&self) -> Result<Option<String>, Halt> {
        let mut named: Vec<String> = self
            .params
            .get("tenantId")
            .map(str::to_owned)
            .into_iter()
            .collect();
        if self.route.capability.is_none() && self.route.method == Method::GET {
            let args = self.request.args().filter(|(name, _)| *name == b"tenantId");
            named.extend(
                args.map(|(_, value)| {
                    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
                }),
            );
        }
        if let Some(own) = &self.who.tenant
            && let Some(other) = named.iter().find(|id| *id != own)
        {
            return Err(self.no_tenant(other));
        }
        Ok(named.into_iter().next())
    }

    /// A platform token acts on the control plane, whatever state a tenant is in: it is
    /// who must be able to read and reactivate one.
    fn by_the_platform(
        &self,
        directory: &Directory,
        answers: &Answers,
        named: Option<&str>,
    ) -> Result<Granted, Halt> {
        if self.route.capability.is_some() {
            let message = format!(
                "platform tokens have no access to {}: use a token of the tenant",
                self.route.family
            );
            return Err(self.deny(Reply::refuse(Code::PermissionDenied, message), None));
        }
        if let (Family::Iam, Some(id)) = (self.route.family, named) {
            let entry = answers.look(directory, id)?;
            let tenant = entry.tenant().ok_or_else(|| self.no_tenant(id))?;
            self.plan_has_identity(tenant)?;
        }
        Ok(Granted::default())
    }

    fn by_a_tenant(
        &self,
        directory: &Directory,
        answers: &Answers,
        id: &str,
    ) -> Result<Granted, Halt> {
        let entry = answers.look(directory, id)?;
        let tenant = entry.tenant().ok_or_else(|| self.no_tenant(id))?;
        let state = match tenant.status() {
            Status::Suspended => Some("suspended"),
            Status::Deactivated => Some("deactivated"),
            Status::Unspecified | Status::Provisioning | Status::Active => None,
        };
        if let Some(state) = state {
            let message = format!("the tenant {id} is {state}");
            return Err(self.deny(Reply::refuse(Code::TenantSuspended, message), Some(id)));
        }
        if self.route.family == Family::Iam {
            self.plan_has_identity(tenant)?;
        }
        if let Some(workspace) = self.params.get("workspaceId") {
            self.workspace(directory, answers, tenant, workspace)?;
        }
        Ok(Granted {
            plan: Some(tenant.plan.clone()),
        })
    }

    fn workspace(
        &self,
        directory: &Directory,
        answers: &Answers,
        tenant: &Tenant,
        id: &str,
    ) -> Result<(), Halt> {
        let roams = self.who.workspace.as_ref().is_none_or(|only| only == id);
        let entry = if roams {
            Some(answers.look(directory, id)?)
        } else {
            None
        };
        let own = |workspace: &&Workspace| workspace.tenant_id == tenant.id;
        let Some(workspace) = entry.as_deref().and_then(Entry::workspace).filter(own) else {
            return Err(self.no_workspace(id));
        };
        // On the control plane a workspace may be in any state: that is where it changes.
        let Some(capability) = &self.route.capability else {
            return Ok(());
        };
        match workspace.status() {
            Status::Active => {}
            Status::Suspended => {
                let message = format!("the workspace {id} is suspended");
                return Err(self.deny(Reply::refuse(Code::WorkspaceSuspended, message), Some(id)));
            }
            Status::Provisioning => {
                let message = format!("the workspace {id} is being provisioned: retry");
                let reply = Reply::refuse(Code::WorkspaceProvisioning, message);
                return Err(reply.with_header("Retry-After", "1").into());
            }
            Status::Deactivated | Status::Unspecified => return Err(self.no_workspace(id)),
        }
        if !workspace.capabilities.contains(capability) {
            let message = format!("the workspace {id} does not have the capability {capability}");
            return Err(self.deny(Reply::refuse(Code::CapabilityDisabled, message), Some(id)));
        }
        Ok(())
    }

    fn plan_has_identity(&self, tenant: &Tenant) -> Result<(), Halt> {
        if tenant
            .plan_capabilities
            .iter()
            .any(|capability| capability == IDENTITY)
        {
            return Ok(());
        }
        let message = format!(
            "the plan {} does not have the capability {IDENTITY}",
            tenant.plan
        );
        Err(self.deny(
            Reply::refuse(Code::PlanCapabilityRequired, message),
            Some(&tenant.id),
        ))
    }

    fn no_tenant(&self, id: &str) -> Halt {
        self.deny(no_tenant(id), Some(&shown(id)))
    }

    fn no_workspace(&self, id: &str) -> Halt {
        let message = postern_contract::id::not_found("Workspace", id);
        self.deny(
            Reply::refuse(Code::WorkspaceNotFound, message),
            Some(&shown(id)),
        )
    }

    fn deny(&self, reply: Reply, resource: Option<&str>) -> Halt {
        self.deny_to(true, reply, resource)
    }

    /// A denial for the trail of the caller's tenant, or the platform's only.
    fn deny_to(&self, to_tenant: bool, reply: Reply, resource: Option<&str>) -> Halt {
        let named = || self.params.iter().next().map(|(_, value)| shown(value));
        let resource = resource.map(str::to_owned).or_else(named);
        Halt::Refuse(Refusal {
            reply,
            denied: Some(Denied {
                resource,
                to_tenant,
            }),
        })
    }
}

fn no_tenant(id: &str) -> Reply {
    let message = postern_contract::id::not_found("Tenant", id);
    Reply::refuse(Code::TenantNotFound, message)
}

/// What IAM routes ask of a plan.
const IDENTITY: &str = "identity";

/// An id from a path for the audit trail, where any text may come.
fn shown(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(64).collect()
}

impl Entry {
    pub(super) fn tenant(&self) -> Option<&Tenant> {
        match self.value.as_ref()? {
            Value::Tenant(tenant) => Some(tenant),
            Value::Workspace(_) => None,
        }
    }

    fn workspace(&self) -> Option<&Workspace> {
        match self.value.as_ref()? {
            Value::Workspace(workspace) => Some(workspace),
            Value::Tenant(_) => None,
        }
    }
}
