//! Headers by which a client says who it is: whatever stands in them, the answer is
//! that of the same request without them.

use anyhow::{Result, ensure};
use futures::{StreamExt as _, stream};
use postern_contract::{Code, Route, header, routes};
use postern_harness::api::{API_VERSION, Call};
use postern_harness::token::unique;
use postern_suites::raw;

use crate::contexts::Sealer;
use crate::rules::{Asked, Bearer, Tenant, Verdict, verdict};
use crate::walk::{AT_ONCE, Cell, room, shown, walk};
use crate::world::{World, world};

/// Who a forger says it is: the mightiest there is, of the tenant that is asked for.
fn claimed(world: &World) -> Vec<(&'static str, String)> {
    let values = [
        "somebody-else".to_owned(),
        world.tenant_id(Tenant::Own).to_owned(),
        world
            .workspace_id(crate::rules::Workspace::Whole)
            .to_owned(),
        "enterprise".to_owned(),
        "superadmin,platform_admin,tenant_admin".to_owned(),
        postern_harness::token::ALL_SCOPES.to_owned(),
    ];
    header::AUTH.into_iter().zip(values).collect()
}

/// One spelling of a header's name.
type Spelling = (&'static str, fn(&str) -> String);

const SPELLINGS: [Spelling; 4] = [
    ("hyphens", str::to_owned),
    ("underscores", |name| name.replace('-', "_")),
    ("one underscore", |name| name.replacen('-', "_", 1)),
    ("a last underscore", |name| match name.rsplit_once('-') {
        Some((before, after)) => format!("{before}_{after}"),
        None => name.to_owned(),
    }),
];

type Weaken = fn(Asked) -> Asked;

/// Requests that would gain by being somebody else.
const WEAK: [(&str, Weaken); 4] = [
    ("nobody", |asked| Asked {
        bearer: Bearer::Nothing,
        ..asked
    }),
    ("no role", |asked| Asked {
        role: "nobody",
        ..asked
    }),
    ("no scope", |asked| Asked {
        scope: false,
        ..asked
    }),
    ("another tenant", |asked| Asked {
        of: asked.of.map(|_| Tenant::Other),
        ..asked
    }),
];

/// A platform's routes are not open to `nobody` of a platform either.
fn weak(route: &Route, weaken: Weaken) -> Asked {
    weaken(Asked::rightly(route))
}

#[tokio::test]
async fn in_every_spelling() -> Result<()> {
    let world = world().await;
    let mut cells = Vec::new();
    for route in routes().all() {
        for (who, weaken) in WEAK {
            for (how, spell) in SPELLINGS {
                let claimed = claimed(world);
                let forge = move |call: Call| {
                    claimed.iter().fold(call, |call, (name, value)| {
                        call.add(&spell(name), value.as_bytes())
                    })
                };
                let case = format!("{who}, {how}");
                cells.push(Cell::new(world, route, &case, weak(route, weaken)).bent(forge));
            }
            let claimed = claimed(world);
            let forge = move |call: Call| {
                SPELLINGS.iter().fold(call, |call, (_, spell)| {
                    claimed.iter().fold(call, |call, (name, value)| {
                        call.add(&spell(name), value.as_bytes())
                            .add(&spell(name), b"once more")
                    })
                })
            };
            let case = format!("{who}, all of them twice");
            cells.push(Cell::new(world, route, &case, weak(route, weaken)).bent(forge));
        }
        // Whoever may is not kept from it either.
        let claimed = claimed(world);
        let forge = move |call: Call| {
            claimed
                .iter()
                .fold(call, |call, (name, _)| call.add(name, b"nobody"))
        };
        cells
            .push(Cell::new(world, route, "rightly, as nobody", Asked::rightly(route)).bent(forge));
    }
    walk(world, cells).await
}

/// Out of the runner's sight they would travel on: nothing with so many headers does.
#[tokio::test]
async fn beyond_the_hundredth() -> Result<()> {
    let world = world().await;
    let mut cells = Vec::new();
    for route in routes().all() {
        for (who, weaken) in WEAK {
            let claimed = claimed(world);
            let forge = move |call: Call| {
                let call = call.filled(100);
                claimed
                    .iter()
                    .fold(call, |call, (name, value)| call.add(name, value.as_bytes()))
            };
            let asked = weak(route, weaken);
            cells.push(
                Cell::new(world, route, who, asked)
                    .bent(forge)
                    .refused(Code::HeadersTooLarge),
            );
        }
    }
    walk(world, cells).await
}

/// Even one that the runner sealed itself, for somebody who may: the gateway takes none.
#[tokio::test]
async fn a_sealed_context_from_outside() -> Result<()> {
    let world = world().await;
    let sealer = Sealer::new(world)?;
    let mut cells = Vec::new();
    for route in routes().all() {
        let sealed = sealer.seal(route, &Asked::rightly(route));
        for (who, weaken) in WEAK {
            for (how, name) in [
                ("hyphens", "x-postern-context"),
                ("underscores", "x_postern_context"),
            ] {
                let (asked, sealed) = (weak(route, weaken), sealed.clone());
                let forge = move |call: Call| {
                    call.add(name, sealed.as_bytes())
                        .add(name, sealed.as_bytes())
                };
                cells.push(Cell::new(world, route, &format!("{who}, {how}"), asked).bent(forge));
            }
        }
        let forge = |call: Call| call.add("x-postern-context", b"v2.k1.nonsense");
        cells.push(Cell::new(world, route, "rightly, nonsense", Asked::rightly(route)).bent(forge));
    }
    walk(world, cells).await
}

/// Names have no case. No client library of ours writes one that way, so these are
/// written out.
#[tokio::test]
async fn in_every_case() -> Result<()> {
    let world = world().await;
    let asked: Vec<(&'static Route, Asked)> = routes()
        .all()
        .iter()
        .map(|route| {
            (
                route,
                weak(route, |asked| Asked {
                    role: "nobody",
                    ..asked
                }),
            )
        })
        .collect();
    let all = asked.len();
    let judge = async |(route, asked): (&'static Route, Asked)| -> Result<Option<String>> {
        let Verdict::Refused(expected) = verdict(route, &asked, &world.on) else {
            // There is nothing to gain.
            return Ok(None);
        };
        let path = world.path(route, &asked);
        let mut head = format!(
            "{} {path} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nContent-Length: 0\r\n\
             X-API-Version: {API_VERSION}\r\nX-Correlation-Id: {}\r\nIdempotency-Key: {}\r\n",
            route.method,
            unique(),
            unique()
        );
        if !route.is_public() {
            let token = world.stack.sign(&world.token(route, &asked)).await?;
            head.push_str(&format!("AUTHORIZATION: Bearer {token}\r\n"));
        }
        for (name, value) in claimed(world) {
            for name in [
                name.to_uppercase(),
                titled(name),
                titled(name).replace('-', "_"),
            ] {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        let _room = room().await?;
        let mut stream = raw::connect(world.stack.url()).await?;
        raw::send(&mut stream, head.as_bytes()).await?;
        let (status, text) = raw::answer(&mut stream).await?;
        let as_expected = status == expected.status() && text.contains(&format!("\"{expected}\""));
        Ok((!as_expected).then(|| format!("{}: expected {expected}, got {text}", route.id)))
    };
    let judged: Vec<Result<Option<String>>> = stream::iter(asked)
        .map(judge)
        .buffered(AT_ONCE)
        .collect()
        .await;
    let wrong = judged
        .into_iter()
        .filter_map(Result::transpose)
        .collect::<Result<Vec<String>>>()?;
    ensure!(all > 0, "no route was walked");
    shown(all, &wrong)
}

/// `x-auth-roles` as `X-AuTh-rOlEs`.
fn titled(name: &str) -> String {
    let turn = |(at, c): (usize, char)| {
        if at % 3 == 0 {
            c.to_ascii_uppercase()
        } else {
            c
        }
    };
    name.chars().enumerate().map(turn).collect()
}
