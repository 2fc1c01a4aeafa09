//! `mode: headers`: who asks, for upstreams that cannot open a sealed context.
//!
//! A client's own `X-Auth-*` must never arrive. The gateway lets `X_Auth_Subject` travel
//! beside `X-Auth-Subject`, and many servers read the two as one: so each of the six is set
//! or deleted on every request in both spellings, seen or not, and a mixed one
//! (`X-Auth_Subject`) where it is seen. With as many headers that some may be unseen the
//! request is refused.

use bytes::Bytes;
use postern_contract::{Code, header};

use crate::{Flow, Identity, Reply, Request};

/// The same six names with underscores, in the order of [`header::AUTH`].
const UNDERSCORED: [&str; 6] = [
    "x_auth_subject",
    "x_auth_tenant_id",
    "x_auth_workspace_id",
    "x_auth_plan_id",
    "x_auth_roles",
    "x_auth_scopes",
];

pub(super) fn project(request: &mut Request<'_>) -> Flow {
    if request.header_count() >= header::MAX_HEADERS {
        let message = format!("too many headers: send fewer than {}", header::MAX_HEADERS);
        return Flow::Stop(Reply::refuse(Code::HeadersTooLarge, message));
    }
    remove_mixed_spellings(request);
    let identity = request.facts.identity.clone();
    let values = identity
        .as_deref()
        .map_or([const { None }; 6], |who| values(who, request));
    for ((name, underscored), value) in header::AUTH.into_iter().zip(UNDERSCORED).zip(values) {
        request.remove_header(underscored);
        match value {
            Some(value) if !value.is_empty() => request.set_header(name, value),
            _ => request.remove_header(name),
        }
    }
    request.remove_header(header::POSTERN_CONTEXT);
    if let Some(id) = &request.facts.correlation_id {
        let id = Bytes::copy_from_slice(id.as_bytes());
        request.set_header(header::CORRELATION_ID, id);
    }
    // The upstream would get the client's own bytes, which it may read as another path.
    let judged = Bytes::copy_from_slice(request.path());
    request.set_path(judged);
    Flow::Next
}

fn remove_mixed_spellings(request: &mut Request<'_>) {
    let mixed: Vec<String> = request
        .headers()
        .filter(|(name, _)| name.contains(&b'_'))
        .map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase())
        .filter(|name| header::AUTH.contains(&name.replace('_', "-").as_str()))
        .collect();
    for name in mixed {
        request.remove_header(name);
    }
}

/// In the order of [`header::AUTH`].
fn values(who: &Identity, request: &Request<'_>) -> [Option<String>; 6] {
    // A role with a comma in it would arrive as two.
    let roles: Vec<_> = who
        .roles
        .iter()
        .map(String::as_str)
        .filter(|role| !role.contains(','))
        .collect();
    let plan = request.facts.plan.as_deref().or(who.plan.as_deref());
    [
        Some(who.subject.clone()),
        who.tenant.clone(),
        who.workspace.clone(),
        plan.map(str::to_owned),
        Some(roles.join(",")),
        Some(who.scopes.join(" ")),
    ]
}
