//! Straight at a handler, past gateway and runner: each route of each family × every
//! context that was not sealed for just this request.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use futures::{StreamExt as _, stream};
use postern_context::{Context, PathParam, SealingKeys};
use postern_contract::routes::Segment;
use postern_contract::{Code, Family, Route, header, routes};
use postern_harness::api::{Call, Client};

use crate::rules::{Asked, Tenant, Verdict, Workspace, has, served};
use crate::walk::{AT_ONCE, answered, discreet, room, shown};
use crate::world::{World, shaped, world};

/// Sealed and sent alike.
const CORRELATION_ID: &str = "sealed-correlation";

/// Seals what the runner would.
pub(crate) struct Sealer {
    world: &'static World,
    keys: SealingKeys,
}

fn now_ms() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(age.as_millis()).unwrap()
}

impl Sealer {
    pub(crate) fn new(world: &'static World) -> Result<Self> {
        let keys = std::fs::read_to_string(world.stack.master_keys()?)?;
        let keys = SealingKeys::parse(&keys)?;
        Ok(Self { world, keys })
    }

    fn context(&self, route: &Route, asked: &Asked) -> Context {
        let tail = |name: &str| PathParam {
            name: name.to_owned(),
            value: "folder/thing".to_owned(),
        };
        let params = route.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Param(name) => Some(PathParam {
                name: name.clone(),
                value: self.world.param(name, route, asked),
            }),
            Segment::Tail(name) => Some(tail(name)),
        });
        let id = |tenant: Tenant| self.world.tenant_id(tenant).to_owned();
        Context {
            route: route.id.clone(),
            method: route.method.to_string(),
            params: params.collect(),
            issuer: "https://issuer.example.com".to_owned(),
            subject: "somebody".to_owned(),
            tenant: asked.of.map(id).unwrap_or_default(),
            plan: "enterprise".to_owned(),
            roles: vec![asked.role.to_owned()],
            scopes: route.scope.iter().cloned().collect(),
            correlation_id: CORRELATION_ID.to_owned(),
            client_address: "192.0.2.1".to_owned(),
            api_version: "2024-01-01".to_owned(),
            body_limit: route.body_limit,
            ..Context::default()
        }
    }

    /// The header of a route's request.
    pub(crate) fn seal(&self, route: &Route, asked: &Asked) -> String {
        self.keys
            .seal(route.family, self.context(route, asked), now_ms())
    }

    /// The same, changed before it is sealed.
    fn bent(&self, route: &Route, bend: impl FnOnce(&mut Context)) -> String {
        let mut context = self.context(route, &Asked::rightly(route));
        bend(&mut context);
        self.keys.seal(route.family, context, now_ms())
    }
}

/// What a request carries, and what it must be answered.
type Row = (&'static str, Vec<String>, Verdict);

/// Everything that is no context of ours, or not valid now.
fn invalid(sealer: &Sealer, route: &'static Route) -> Result<Vec<Row>> {
    let asked = Asked::rightly(route);
    let good = sealer.seal(route, &asked);
    let at = |ms: u64| {
        sealer
            .keys
            .seal(route.family, sealer.context(route, &asked), ms)
    };
    let stranger = SealingKeys::parse("k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")?;
    let forged = stranger.seal(route.family, sealer.context(route, &asked), now_ms());
    let [version, kid, text] = good.split('.').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the seal has not three parts");
    };
    let bytes = BASE64.decode(text)?;
    let (message, tag) = bytes.split_last_chunk::<32>().context("no tag")?;
    let of = |message: &[u8], tag: &[u8]| {
        let text = BASE64.encode([message, tag].concat());
        vec![format!("{version}.{kid}.{text}")]
    };
    let turned: Vec<u8> = tag.iter().rev().copied().collect();
    let more = [b"\x0a\x00", message].concat();
    let rows = [
        ("none", vec![]),
        ("an empty one", vec![String::new()]),
        ("nonsense", vec!["v2.k1.nonsense".to_owned()]),
        ("forged", vec![forged.clone()]),
        ("expired", vec![at(now_ms() - 61_500)]),
        ("of the future", vec![at(now_ms() + 20_000)]),
        ("two of the same", vec![good.clone(), good.clone()]),
        ("a forged one beside it", vec![good.clone(), forged]),
        ("no tag", of(message, &[])),
        ("another tag", of(message, &turned)),
        ("half a tag", of(message, &tag[..16])),
        ("a tag alone", of(&[], tag)),
        ("another message", of(&more, tag)),
        ("an unknown key", vec![format!("{version}.k9.{text}")]),
        ("another version", vec![format!("v1.{kid}.{text}")]),
        ("a part more", vec![format!("{good}.{text}")]),
        ("a book", vec!["x".repeat(20_000)]),
    ];
    let refused = Verdict::Refused(Code::ContextInvalid);
    Ok(rows.map(|(case, sealed)| (case, sealed, refused)).into())
}

/// Contexts of ours, for other requests than this one.
fn rebound(sealer: &Sealer, route: &'static Route) -> Vec<Row> {
    let all = routes().all();
    let next = |from: &dyn Fn(&&Route) -> bool| {
        let at = all
            .iter()
            .position(|other| other.id == route.id)
            .unwrap_or_default();
        let (before, after) = all.split_at(at + 1);
        after
            .iter()
            .chain(before)
            .find(|other| other.id != route.id && from(other))
    };
    let family = Family::ALL
        .into_iter()
        .find(|family| *family != route.family);
    let mut rows = Vec::new();
    if let Some(other) = next(&|_| true) {
        rows.push((
            "for the next route",
            sealer.seal(other, &Asked::rightly(other)),
        ));
    }
    if let Some(other) = next(&|other| other.path == route.path) {
        rows.push((
            "for another method of the path",
            sealer.seal(other, &Asked::rightly(other)),
        ));
    }
    if let Some(other) = next(&|other| other.family != route.family) {
        rows.push((
            "for another family's route",
            sealer.seal(other, &Asked::rightly(other)),
        ));
    }
    if let Some(family) = family {
        let context = sealer.context(route, &Asked::rightly(route));
        rows.push((
            "sealed for another family",
            sealer.keys.seal(family, context, now_ms()),
        ));
    }
    let method = if route.method == http::Method::GET {
        "DELETE"
    } else {
        "GET"
    };
    rows.push((
        "another method",
        sealer.bent(route, |context| context.method = method.to_owned()),
    ));
    rows.push((
        "another route's name",
        sealer.bent(route, |context| context.route.push('x')),
    ));
    rows.push((
        "a parameter more",
        sealer.bent(route, |context| context.params.push(PathParam::default())),
    ));
    if route
        .segments
        .iter()
        .any(|segment| !matches!(segment, Segment::Literal(_)))
    {
        rows.push((
            "another value",
            sealer.bent(route, |context| context.params[0].value.push('x')),
        ));
        rows.push((
            "another name",
            sealer.bent(route, |context| context.params[0].name.push('x')),
        ));
        rows.push((
            "no parameter",
            sealer.bent(route, |context| context.params.clear()),
        ));
    }
    let ambiguous = Verdict::Refused(Code::PathAmbiguous);
    rows.into_iter()
        .map(|(case, sealed)| (case, vec![sealed], ambiguous))
        .collect()
}

/// Contexts for just this request: the family's own code decides, and looks for itself.
fn valid(sealer: &Sealer, route: &'static Route) -> Vec<Row> {
    let world = sealer.world;
    let on = world.on.contains(&route.family);
    let let_in = if on {
        served(route)
    } else {
        Verdict::Refused(Code::FamilyUnavailable)
    };
    let mut rows = vec![(
        "as it should be",
        vec![sealer.seal(route, &Asked::rightly(route))],
        let_in,
    )];
    let asked = Asked::rightly(route);
    if asked.of.is_none() || !on {
        return rows;
    }
    let other = Asked {
        of: Some(Tenant::Other),
        ..asked
    };
    if has(route, "tenantId") {
        let refused = Verdict::Refused(Code::TenantNotFound);
        rows.push((
            "sealed for another tenant",
            vec![sealer.seal(route, &other)],
            refused,
        ));
    }
    if has(route, "realmId") {
        let refused = Verdict::Refused(Code::RealmNotFound);
        rows.push((
            "sealed for another tenant",
            vec![sealer.seal(route, &other)],
            refused,
        ));
    }
    if has(route, "workspaceId") {
        let refused = Verdict::Refused(Code::WorkspaceNotFound);
        rows.push((
            "sealed for another tenant",
            vec![sealer.seal(route, &other)],
            refused,
        ));
    }
    // Routes that pinned tokens are for.
    if has(route, "workspaceId")
        && route
            .roles
            .iter()
            .any(|role| role.starts_with("workspace_"))
    {
        let refused = Verdict::Refused(Code::WorkspaceNotFound);
        let mut context = sealer.context(route, &asked);
        context.workspace = world.workspace_id(Workspace::Asleep).to_owned();
        let pinned = sealer.keys.seal(route.family, context, now_ms());
        rows.push(("sealed for a token pinned elsewhere", vec![pinned], refused));
    }
    rows
}

/// Sends each row's request to the handlers.
async fn walk(world: &'static World, rows: Vec<(&'static Route, Row)>) -> Result<()> {
    let url = world.stack.handlers_url()?;
    let all = rows.len();
    let judge = async |(route, (case, sealed, expected)): (&'static Route, Row)| -> Option<String> {
        let client = Client::new(&url, None);
        let path = world.path(route, &Asked::rightly(route));
        let call = shaped(client.call(route.method.clone(), &path), route)
            .set("x-correlation-id", CORRELATION_ID);
        // Nobody who gets here by another way is believed for what it says beside the seal.
        let call = header::AUTH
            .iter()
            .fold(call, |call, name| call.add(name, b"superadmin"));
        let call: Call = sealed.iter().fold(call, |call, sealed| {
            call.add(header::POSTERN_CONTEXT, sealed.as_bytes())
        });
        let _room = room().await.ok()?;
        let reply = match call.await {
            Ok(reply) => reply,
            Err(error) => return Some(format!("{} {case}: {error:#}", route.id)),
        };
        let wrong = answered(&reply, expected)
            .and_then(|()| discreet(&reply))
            .err()?;
        Some(format!(
            "{:24} | {case:36} | {expected:?} | {wrong}",
            route.id
        ))
    };
    let wrong: Vec<String> = stream::iter(rows)
        .map(judge)
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    shown(all, &wrong)
}

#[tokio::test]
async fn none_forged_or_expired() -> Result<()> {
    let world = world().await;
    let sealer = Sealer::new(world)?;
    let mut rows = Vec::new();
    for route in routes().all() {
        rows.extend(invalid(&sealer, route)?.into_iter().map(|row| (route, row)));
    }
    walk(world, rows).await
}

#[tokio::test]
async fn bound_to_another_request() -> Result<()> {
    let world = world().await;
    let sealer = Sealer::new(world)?;
    let of = |route| {
        rebound(&sealer, route)
            .into_iter()
            .map(move |row| (route, row))
    };
    walk(world, routes().all().iter().flat_map(of).collect()).await
}

#[tokio::test]
async fn bound_to_this_one() -> Result<()> {
    let world = world().await;
    let sealer = Sealer::new(world)?;
    let of = |route| {
        valid(&sealer, route)
            .into_iter()
            .map(move |row| (route, row))
    };
    walk(world, routes().all().iter().flat_map(of).collect()).await
}
