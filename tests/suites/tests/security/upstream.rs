//! Every route before an upstream that is not one of our handlers (`context` with
//! `mode: headers`): what it learns of the caller is what the token says, whatever the
//! client wrote into the same headers.

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, stream};
use postern_contract::{Route, header, routes};
use postern_harness::api::Call;
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use postern_suites::foreign::{self, received, rerouted};
use tokio::sync::OnceCell;

use crate::SOON;
use crate::rules::{Asked, Tenant, Workspace};
use crate::walk::{AT_ONCE, room, shown};
use crate::world::World;

const FORGED: &str = "forged";

/// Every way in which a client's header could pass for one of ours.
fn forge(call: Call) -> Call {
    header::AUTH.iter().fold(call, |call, name| {
        let spellings = [
            (*name).to_owned(),
            name.replace('-', "_"),
            name.replacen('-', "_", 1),
            name.replacen("-auth-", "-auth_", 1),
            // No header name to nginx, and dropped; others read it as one of ours.
            name.replace('-', "."),
        ];
        spellings.iter().fold(call, |call, name| {
            call.add(name, FORGED.as_bytes())
                .add(name, b"forged once more")
        })
    })
}

/// What the upstream must be told, in the order of [`header::AUTH`].
fn told(world: &World, route: &Route, asked: &Asked, subject: &str) -> [Option<String>; 6] {
    if route.is_public() {
        return [const { None }; 6];
    }
    let tenant = asked.of.map(|tenant| world.tenant_id(tenant).to_owned());
    let workspace = asked
        .pinned
        .map(|workspace| world.workspace_id(workspace).to_owned());
    [
        Some(subject.to_owned()),
        tenant.clone(),
        workspace,
        tenant.map(|_| "enterprise".to_owned()),
        Some(asked.role.to_owned()),
        Some(
            postern_harness::token::ALL_SCOPES
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        ),
    ]
}

/// One request, pinned or not, and what is wrong with what arrived.
async fn judge(world: &World, route: &'static Route, pinned: bool) -> Result<Option<String>> {
    let asked = Asked::rightly(route);
    let pinned = (pinned && asked.of == Some(Tenant::Own)).then_some(Workspace::Whole);
    let asked = Asked { pinned, ..asked };
    let token = world.token(route, &asked);
    let path = world.path(route, &asked);
    let call = world.call(route, &asked, &path).await?;
    let call = match route.is_public() {
        true => call,
        false => call.set(
            "authorization",
            &format!("Bearer {}", world.stack.sign(&token).await?),
        ),
    };
    let _room = room().await?;
    let reply = forge(call).await?;
    let Ok(head) = reply.text_at("/head") else {
        return Ok(Some(format!("{}: {reply:?}", route.id)));
    };
    if head.contains(FORGED) {
        return Ok(Some(format!("{}: arrived: {head}", route.id)));
    }
    if !head.starts_with(&format!("{} {path} HTTP/1.", route.method)) {
        return Ok(Some(format!("{}: not as it was judged: {head}", route.id)));
    }
    for (name, value) in header::AUTH
        .into_iter()
        .zip(told(world, route, &asked, token.subject()))
    {
        let got = received(&head, name);
        if got != Vec::from_iter(value.clone()) {
            return Ok(Some(format!(
                "{}: {name} is {got:?} and not {value:?}",
                route.id
            )));
        }
    }
    Ok(None)
}

#[tokio::test]
async fn learns_nothing_forged() -> Result<()> {
    static STACK: OnceCell<Stack> = OnceCell::const_new();
    let stack = STACK.get_or_try_init(Stack::start).await?;
    let world = World::of(stack).await?;
    let port = foreign::start().await?;
    let (file, text) = rerouted(stack, port, |_| true)?;
    let any = routes()
        .all()
        .iter()
        .find(|route| !route.is_public())
        .context("a route")?;
    wait_for("the gateway to read its routes", SOON, async || {
        // A gateway sees by the second in which it was written that it is new.
        std::fs::write(&file, &text)?;
        let asked = Asked::rightly(any);
        let reply = world
            .call(any, &asked, &world.path(any, &asked))
            .await?
            .await?;
        reply.expect(200)?.text_at("/head").map(drop)
    })
    .await?;
    let each = routes()
        .all()
        .iter()
        .flat_map(|route| [(route, false), (route, true)]);
    let all = routes().all().len() * 2;
    let judged: Vec<Result<Option<String>>> = stream::iter(each)
        .map(async |(route, pinned)| judge(&world, route, pinned).await)
        .buffered(AT_ONCE)
        .collect()
        .await;
    let wrong = judged
        .into_iter()
        .filter_map(Result::transpose)
        .collect::<Result<Vec<String>>>()?;
    shown(all, &wrong)
}
