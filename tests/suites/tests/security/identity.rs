//! Who asks: every route × every token that is not good enough for it.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use http::Method;
use postern_contract::{Code, Route, routes};
use postern_harness::http::Reply;
use serde_json::{Value, json};

use crate::rules::{Asked, Bearer, ROLES, Tenant, Workspace, has, verdict};
use crate::walk::{AT_ONCE, Cell, room, shown, walk};
use crate::world::{World, names_a_tenant, world};

/// What a case makes of a route's rightful request.
type Bend = fn(&'static Route, Asked) -> Asked;

/// Each route with what a case makes of its rightful request.
fn cells(world: &World, cases: &[(&str, Bend)]) -> Vec<Cell> {
    let of = |route: &'static Route| {
        cases.iter().map(move |(case, bend)| {
            Cell::new(world, route, case, bend(route, Asked::rightly(route)))
        })
    };
    routes().all().iter().flat_map(of).collect()
}

#[tokio::test]
async fn tokens() -> Result<()> {
    let world = world().await;
    let cells = cells(
        world,
        &[
            ("as it should be", |_, asked| asked),
            ("no token", |_, asked| Asked {
                bearer: Bearer::Nothing,
                ..asked
            }),
            ("an expired token", |_, asked| Asked {
                bearer: Bearer::Expired,
                ..asked
            }),
            ("no JWT", |_, asked| Asked {
                bearer: Bearer::Nonsense,
                ..asked
            }),
            ("a forged token", |_, asked| Asked {
                bearer: Bearer::Forged,
                ..asked
            }),
            ("a token for somebody else", |_, asked| Asked {
                bearer: Bearer::Elsewhere,
                ..asked
            }),
            ("without the scope", |_, asked| Asked {
                scope: false,
                ..asked
            }),
        ],
    );
    walk(world, cells).await
}

#[tokio::test]
async fn roles() -> Result<()> {
    let world = world().await;
    let mut cells = Vec::new();
    for route in routes().all() {
        for role in ROLES {
            cells.push(Cell::new(world, route, role, Asked::by(role)));
            // The same name on a token of the other kind means nothing.
            let asked = Asked::by(role);
            let other = match asked.of {
                Some(_) => None,
                None => Some(Tenant::Own),
            };
            let asked = Asked {
                of: other,
                pinned: None,
                ..asked
            };
            let case = format!("{role} of the other kind");
            cells.push(Cell::new(world, route, &case, asked));
            let asked = Asked {
                pinned: None,
                ..Asked::by(role)
            };
            let case = format!("{role} pinned to no workspace");
            cells.push(Cell::new(world, route, &case, asked));
        }
    }
    walk(world, cells).await
}

#[tokio::test]
async fn tenants() -> Result<()> {
    let world = world().await;
    let mut cells = cells(
        world,
        &[
            ("another tenant's token", |_, asked| Asked {
                of: asked.of.map(|_| Tenant::Other),
                ..asked
            }),
            ("a token of a tenant that is none", |_, asked| Asked {
                of: asked.of.map(|_| Tenant::Nobody),
                tenant: asked.of.map_or(Tenant::Own, |_| Tenant::Nobody),
                ..asked
            }),
            ("a suspended tenant", |_, asked| Asked {
                of: asked.of.map(|_| Tenant::Asleep),
                tenant: Tenant::Asleep,
                workspace: Workspace::OfAsleep,
                ..asked
            }),
            ("a suspended tenant for another's", |_, asked| Asked {
                of: asked.of.map(|_| Tenant::Asleep),
                ..asked
            }),
            ("another's that is suspended", |_, asked| Asked {
                tenant: Tenant::Asleep,
                workspace: Workspace::OfAsleep,
                ..asked
            }),
            ("a plan without identity", |_, asked| Asked {
                of: asked.of.map(|_| Tenant::Small),
                tenant: Tenant::Small,
                ..asked
            }),
        ],
    );
    for route in routes()
        .all()
        .iter()
        .filter(|route| route.method == Method::GET)
    {
        for (case, named) in [
            ("another tenant in the query", Tenant::Other),
            ("nobody in the query", Tenant::Nobody),
        ] {
            let asked = Asked::rightly(route);
            if asked.of.is_some() {
                cells.push(Cell::new(
                    world,
                    route,
                    case,
                    Asked {
                        query: Some(named),
                        ..asked
                    },
                ));
            }
        }
    }
    for route in routes().all().iter().filter(|route| has(route, "realmId")) {
        // Keycloak's own, and whatever else may be beside tenants' realms.
        for realm in ["master", "postern", "tenant-", "tenant-%24%7Bslug%7D"] {
            let asked = Asked::rightly(route);
            let path = world.path(route, &asked);
            let path = path.replace(world.realm(asked.tenant), realm);
            let asked = Asked {
                tenant: Tenant::Nobody,
                ..asked
            };
            cells.push(Cell::new(world, route, realm, asked).at(path));
        }
    }
    walk(world, cells).await
}

#[tokio::test]
async fn workspaces() -> Result<()> {
    let world = world().await;
    let cases = [
        ("a suspended workspace", Workspace::Asleep),
        ("a workspace that is not ready", Workspace::Provisioning),
        ("a workspace without the capability", Workspace::Lacking),
        ("a workspace that is no more", Workspace::Gone),
        ("another tenant's workspace", Workspace::Others),
        ("a workspace that is none", Workspace::Nobodys),
    ];
    let mut cells = Vec::new();
    for route in routes()
        .all()
        .iter()
        .filter(|route| has(route, "workspaceId"))
    {
        for (case, workspace) in cases {
            // Only what asks for a capability can miss one.
            if workspace == Workspace::Lacking && route.capability.is_none() {
                continue;
            }
            let asked = Asked {
                workspace,
                ..Asked::rightly(route)
            };
            // What is deactivated stays as it is: the family's own code says so.
            if workspace != Workspace::Gone || route.capability.is_some() {
                cells.push(Cell::new(world, route, case, asked));
            }
            // Beyond the one it is pinned to, a token reaches none.
            let pinned = Some(Workspace::Whole);
            cells.push(Cell::new(
                world,
                route,
                &format!("pinned, {case}"),
                Asked { pinned, ..asked },
            ));
        }
    }
    walk(world, cells).await
}

/// Where a body names the tenant the handler judges it, with the same answer.
#[tokio::test]
async fn another_tenant_in_the_body() -> Result<()> {
    let world = world().await;
    let mut wrong = Vec::new();
    let mut all = 0;
    for route in routes().all() {
        let asked = Asked::rightly(route);
        let creates = route.method == Method::POST && route.segments.len() == 2;
        if !creates
            || asked.of.is_none()
            || route.capability.is_some()
            || !world.on.contains(&route.family)
        {
            continue;
        }
        for named in [Tenant::Other, Tenant::Nobody] {
            let body = json!({
                "tenantId": world.tenant_id(named), "slug": "anything", "displayName": "Anything", "capabilities": [],
            });
            let call = world
                .call(route, &asked, &world.path(route, &asked))
                .await?;
            let reply = call.json(&body).await?;
            all += 1;
            if let Err(error) = reply.refused(404, Code::TenantNotFound.as_str()) {
                wrong.push(format!("{}: {error:#}", route.id));
            }
        }
    }
    ensure!(all > 0, "no route takes a tenant in its body");
    shown(all, &wrong)
}

/// An answer with what differs from request to request taken out.
fn masked(reply: &Reply, id: &str) -> Result<(u16, Vec<String>, Value)> {
    let mut body: Value =
        serde_json::from_str(&String::from_utf8_lossy(&reply.body).replace(id, "ID"))?;
    let error = body
        .get_mut("error")
        .and_then(Value::as_object_mut)
        .context("no envelope")?;
    for name in ["correlationId", "timestamp"] {
        error.remove(name);
    }
    let mut names: Vec<String> = reply
        .headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect();
    names.sort();
    Ok((reply.status, names, body))
}

/// What is another's and what is nobody's cannot be told apart.
#[tokio::test]
async fn anothers_is_as_nobodys() -> Result<()> {
    let world = world().await;
    let routes: Vec<&'static Route> = routes()
        .all()
        .iter()
        .filter(|route| names_a_tenant(route).is_some() && Asked::rightly(route).of.is_some())
        .collect();
    let all = routes.len();
    let compare = async |route: &'static Route| -> Result<Option<String>> {
        let _room = room().await?;
        let asked = Asked::rightly(route);
        let mut seen = Vec::new();
        for (tenant, workspace) in [
            (Tenant::Other, Workspace::Others),
            (Tenant::Asleep, Workspace::OfAsleep),
            (Tenant::Nobody, Workspace::Nobodys),
        ] {
            let asked = Asked {
                tenant,
                workspace,
                ..asked
            };
            let id = names_a_tenant(route).map(|name| world.param(name, route, &asked));
            let id = id.context("a route that names a tenant")?;
            let reply = world
                .call(route, &asked, &world.path(route, &asked))
                .await?
                .await?;
            crate::walk::answered(&reply, verdict(route, &asked, &world.on))
                .map_err(anyhow::Error::msg)?;
            seen.push(masked(&reply, &id)?);
        }
        let same = seen.iter().all(|one| *one == seen[0]);
        Ok((!same).then(|| format!("{}: {seen:?}", route.id)))
    };
    let compared: Vec<Result<Option<String>>> = stream::iter(routes)
        .map(compare)
        .buffered(AT_ONCE)
        .collect()
        .await;
    let wrong: Vec<String> = compared
        .into_iter()
        .filter_map(|one| match one {
            Ok(difference) => difference,
            Err(error) => Some(format!("{error:#}")),
        })
        .collect();
    shown(all, &wrong)
}
