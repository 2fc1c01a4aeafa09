//! Which realm is whose.
//!
//! A tenant's realm is named after its slug by the operator's template; a slug never
//! changes, so the name does neither. The platform's own people have a realm apart. What
//! is neither does not exist, `master` included.

mod keep;
mod representation;

use postern_common::control_plane::Tenant;
use postern_common::{Call, Failure};
use postern_contract::{Code, TenantId};
use serde_json::Value;

pub(crate) use keep::keep;
pub(crate) use representation::{BUILT_IN_CLIENTS, SCOPE, scopes};

use crate::Auth;

/// What IAM asks of a plan.
pub(crate) const IDENTITY: &str = "identity";

/// The template of tenants' realms: `tenant-{slug}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: String,
    after: String,
}

/// Why a text is no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Other realms would be taken for tenants'.
    #[error("must hold {{slug}} once and something in front of it, such as tenant-{{slug}}")]
    Slug,
    /// A realm of this name could not stand in an address.
    #[error("may hold a-z, 0-9, - and _ besides {{slug}}")]
    Character,
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (before, after) = text.split_once("{slug}").ok_or(TemplateError::Slug)?;
        if before.is_empty() || after.contains("{slug}") {
            return Err(TemplateError::Slug);
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !before.bytes().chain(after.bytes()).all(plain) {
            return Err(TemplateError::Character);
        }
        Ok(Self {
            before: before.to_owned(),
            after: after.to_owned(),
        })
    }
}

/// The realms of a deployment.
#[derive(Clone, Debug)]
pub struct RealmNames {
    template: Template,
    platform: String,
    client: String,
}

impl RealmNames {
    /// Tenants' realms by `template`, the platform's own people in `platform`. `client` is
    /// the public client of each realm that logs in who names none.
    #[must_use]
    pub fn new(template: Template, platform: String, client: String) -> Self {
        Self {
            template,
            platform,
            client,
        }
    }

    pub(crate) fn platform(&self) -> &str {
        &self.platform
    }

    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    pub(crate) fn of_slug(&self, slug: &str) -> String {
        let Template { before, after } = &self.template;
        format!("{before}{slug}{after}")
    }

    /// The slug in the name of a tenant's realm.
    fn slug<'r>(&self, realm: &'r str) -> Option<&'r str> {
        let slug = realm
            .strip_prefix(self.template.before.as_str())?
            .strip_suffix(self.template.after.as_str())?;
        let good = postern_common::fields::slug(Value::from(slug)).is_ok();
        (good && realm != self.platform).then_some(slug)
    }

    /// Whether a name can be that of a realm whose tokens are ours.
    pub(crate) fn is_ours(&self, realm: &str) -> bool {
        realm == self.platform || self.slug(realm).is_some()
    }
}

/// A tenant's realm that the caller may see: the only kind whose name reaches Keycloak's
/// admin REST.
#[derive(Clone, Debug)]
pub(crate) struct Realm {
    pub(crate) name: String,
    pub(crate) tenant: Tenant,
}

fn not_found(name: &str) -> Failure {
    Failure::new(
        Code::RealmNotFound,
        postern_contract::id::not_found("Realm", name),
    )
}

impl Auth {
    /// The realm in the path. One of another tenant answers as one that does not exist.
    pub(crate) async fn realm_in_path(&self, call: &Call) -> Result<Realm, Failure> {
        let name = call.param("realmId");
        let (scope, own) = (call.scope()?, call.caller.tenant());
        crate::iam::refuse_pinned(&call.caller)?;
        let Some(slug) = self.realms.slug(name) else {
            return Err(not_found(name).denying(denied(name)));
        };
        // By its own id where there is one: a foreign name is not even looked up.
        let found = match own {
            Some(own) => self.control_plane.tenant(own).await?,
            None => self.control_plane.tenant_named(slug).await?,
        };
        let tenant = found
            .filter(|tenant| tenant.slug == slug && scope.reaches(tenant.id) && !tenant.ended)
            .ok_or_else(|| not_found(name).denying(denied(name)))?;
        self.realm_of(tenant)
    }

    /// The realm of a tenant whose plan has one.
    pub(crate) fn realm_of(&self, tenant: Tenant) -> Result<Realm, Failure> {
        if !tenant.capabilities.iter().any(|has| has == IDENTITY) {
            let message = format!(
                "the plan {} does not have the capability {IDENTITY}",
                tenant.plan
            );
            return Err(Failure::new(Code::PlanCapabilityRequired, message));
        }
        Ok(Realm {
            name: self.realms.of_slug(&tenant.slug),
            tenant,
        })
    }

    /// The tenant of a list: the token's, or the one that a platform token names.
    pub(crate) async fn tenant_of_list(
        &self,
        call: &Call,
        named: Option<TenantId>,
    ) -> Result<Tenant, Failure> {
        let scope = call.scope()?;
        let id = call.caller.tenant().or(named).ok_or_else(|| {
            Failure::invalid_field("tenantId", "is required with a token of the platform")
        })?;
        let no_tenant = || {
            let message = postern_contract::id::not_found("Tenant", &id.to_string());
            Failure::new(Code::TenantNotFound, message)
        };
        if named.is_some_and(|named| !scope.reaches(named)) {
            return Err(no_tenant().denying(id.to_string()));
        }
        self.control_plane.tenant(id).await?.ok_or_else(no_tenant)
    }
}

fn denied(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn names() -> RealmNames {
        let template = "tenant-{slug}".parse().unwrap();
        RealmNames::new(template, "platform".into(), "postern".into())
    }

    #[test]
    fn a_realm_is_a_tenants_or_does_not_exist() {
        assert_eq!(names().of_slug("acme"), "tenant-acme");
        assert_eq!(names().slug("tenant-acme"), Some("acme"));
        for other in [
            "master",
            "platform",
            "../master",
            "tenant-",
            "tenant-../master",
            "tenant-acme/../../master",
            "tenant-acme%2f..",
            "tenant-Acme",
            "tenant-a",
            "TENANT-acme",
            "tenant-acme\u{0}",
            "",
        ] {
            assert_eq!(names().slug(other), None, "{other:?}");
        }
        assert!(names().is_ours("platform") && !names().is_ours("master"));
    }

    #[test]
    fn templates() {
        for (bad, why) in [
            ("tenants", TemplateError::Slug),
            ("{slug}", TemplateError::Slug),
            ("{slug}-x", TemplateError::Slug),
            ("a{slug}{slug}", TemplateError::Slug),
            ("a/{slug}", TemplateError::Character),
            ("t {slug}", TemplateError::Character),
        ] {
            assert_eq!(bad.parse::<Template>(), Err(why), "{bad}");
        }
    }

    /// A tenant whose slug makes its realm's name that of the platform's realm has none.
    #[test]
    fn the_platforms_realm_is_nobodys() {
        let template = "tenant-{slug}".parse().unwrap();
        let names = RealmNames::new(template, "tenant-ops".into(), "postern".into());
        assert_eq!(names.slug("tenant-ops"), None);
    }
}
