//! A token's claims: what is read before its signature is checked, and who it names after.
//!
//! Of the header, `alg`, `kid`, `typ` and `crit` are read and nothing else: keys that a
//! token brings or points to (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.

use jsonwebtoken::{Header, dangerous, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::settings::ClaimNames;
use crate::Identity;

/// All claims of a token.
pub(super) type Claims = Map<String, Value>;

/// What a token says of itself, good for finding the key that it must be verified with.
pub(super) struct Unverified {
    pub(super) header: Header,
    pub(super) issuer: String,
}

/// A longer name is no key's.
const MAX_KID: usize = 256;
/// What Keycloak says of an access token in the claim `typ`; other values are of ID,
/// refresh and logout tokens, and of those that are bound to a key.
const ACCESS: &str = "Bearer";

/// Reads header and issuer of a token that nobody vouches for yet.
pub(super) fn peek(token: &[u8]) -> Result<Unverified, Refusal> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    const NO_JWT: Refusal = Refusal::Malformed("it is no signed JWT");
    if token.iter().filter(|byte| **byte == b'.').count() != 2 {
        return Err(NO_JWT);
    }
    // An algorithm that the library cannot name (`none`) ends here.
    let header = decode_header(token).map_err(|_| NO_JWT)?;
    if header.crit.is_some() {
        return Err(Refusal::Malformed(
            "it has critical extensions (crit), and none is known here",
        ));
    }
    if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
        return Err(Refusal::Malformed("its kid is longer than 256 bytes"));
    }
    let claims = dangerous::insecure_decode_claims::<Issuer>(token);
    let issuer = claims.map_err(|_| Refusal::Claim("iss".into()))?.iss;
    Ok(Unverified { header, issuer })
}

/// Whether the header's `typ` is one of these.
pub(super) fn is_of_type(header: &Header, types: &[String]) -> bool {
    let Some(typ) = &header.typ else { return true };
    let plain = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.strip_prefix("application/")
            .map_or(text.clone(), str::to_owned)
    };
    let typ = plain(typ);
    types.iter().any(|allowed| plain(allowed) == typ)
}

/// Whether it may be used as a bearer token at all: an access token that is not bound
/// to a key (`cnf`), which nobody here could check.
pub(super) fn is_bearer(claims: &Claims) -> Result<(), Refusal> {
    match text(claims, "typ")?.as_deref() {
        None | Some(ACCESS) => {}
        Some(_) => return Err(Refusal::Claim("typ".into())),
    }
    match claims.get("cnf") {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(Refusal::Bound),
    }
}

/// Who a verified token names; `slug` of the issuer, if it is a tenant's own.
pub(super) fn identity(
    claims: &Claims,
    names: &ClaimNames,
    slug: Option<&str>,
) -> Result<Identity, Refusal> {
    let mut identity = Identity {
        issuer: required(claims, "iss")?,
        subject: required(claims, "sub")?,
        tenant: text(claims, &names.tenant)?,
        workspace: text(claims, &names.workspace)?,
        plan: text(claims, &names.plan)?,
        roles: texts(claims, &names.roles)?,
        scopes: words(claims, &names.scopes)?,
        expires_at: i64::try_from(seconds(claims, "exp")?).unwrap_or(i64::MAX),
        session: text(claims, &names.session)?,
        client: text(claims, &names.client)?,
        tenant_slug: slug.map(str::to_owned),
    };
    if (identity.workspace.is_some() || slug.is_some()) && identity.tenant.is_none() {
        // Without its tenant it would count as the platform's own.
        return Err(Refusal::Claim(names.tenant.clone()));
    }
    let (tenant, workspace) = (identity.tenant.is_some(), identity.workspace.is_some());
    identity
        .roles
        .retain(|role| counts(role, tenant, workspace));
    Ok(identity)
}

/// Whether a role means anything on a token with or without a tenant and a workspace: the
/// platform's only on those without a tenant, a tenant's only on those with one, a
/// workspace's only on those that are pinned to one. So nobody who hands out roles within
/// a tenant can make a platform admin, and a role of one workspace opens no other.
fn counts(role: &str, tenant: bool, workspace: bool) -> bool {
    if role == "superadmin" || role.starts_with("platform_") {
        !tenant
    } else if role.starts_with("workspace_") {
        workspace
    } else if role.starts_with("tenant_") {
        tenant
    } else {
        true
    }
}

/// `aud`: a text or a list of texts.
pub(super) fn audiences(claims: &Claims) -> Result<Vec<String>, Refusal> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        _ => texts(claims, "aud"),
    }
}

/// A time in whole seconds since 1970 (RFC 7519, 2: it may have a fraction); 0 if absent.
pub(super) fn seconds(claims: &Claims, name: &str) -> Result<u64, Refusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => match (value.as_u64(), value.as_f64()) {
            (Some(whole), _) => Ok(whole),
            // Beyond 2^53 a fraction could not be told from a whole number anyway.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "in range by the guard"
            )]
            (None, Some(number)) if (0.0..9.0e15).contains(&number) => Ok(number.round() as u64),
            _ => Err(Refusal::Claim(name.to_owned())),
        },
    }
}

fn find<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    let value = claims.get(name).or_else(|| {
        let mut path = name.split('.');
        let first = claims.get(path.next()?)?;
        path.try_fold(first, |value, key| value.get(key))
    });
    value.filter(|value| !value.is_null())
}

fn required(claims: &Claims, name: &str) -> Result<String, Refusal> {
    text(claims, name)?.ok_or_else(|| Refusal::Claim(name.to_owned()))
}

/// A claim that is there must be a text that can stand in a header and in a log. An
/// empty one is refused: it must not pass for an absent one.
pub(super) fn text(claims: &Claims, name: &str) -> Result<Option<String>, Refusal> {
    match find(claims, name) {
        None => Ok(None),
        Some(Value::String(text)) if is_plain(text) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::Claim(name.to_owned())),
    }
}

fn texts(claims: &Claims, name: &str) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::Claim(name.to_owned());
    match find(claims, name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|value| match value {
                Value::String(text) if is_plain(text) => Ok(text.clone()),
                _ => Err(wrong()),
            });
            texts.collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn words(claims: &Claims, name: &str) -> Result<Vec<String>, Refusal> {
    match find(claims, name) {
        Some(Value::String(text)) if text.chars().all(|c| !c.is_control()) => Ok(text
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()),
        _ => texts(claims, name),
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_control())
}
