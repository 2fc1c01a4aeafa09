//! An upstream that is not one of our handlers (`context` with `mode: headers`):
//! it learns who asks from headers that no client can forge, and the path as it
//! was judged. The upstream here tells back what it received.

use anyhow::{Context as _, Result, ensure};
use postern_harness::stack::Stack;
use postern_harness::token::Token;
use postern_harness::wait_for;
use postern_suites::foreign::{self, received, rerouted};

use super::SOON;

#[tokio::test]
async fn another_upstream_learns_who_asks_and_nothing_forged() -> Result<()> {
    let stack = Stack::start().await?;
    let port = foreign::start().await?;
    let acme = stack.with_tenant("acme").await?;
    let dev = acme.with_workspace("dev", &["mongo"]).await?;
    let (routes, text) = rerouted(&stack, port, |family| family == "mongo")?;
    let path = format!("/v1/mongo/{}/collections/a%20b/documents", dev.id);
    let token = Token::of_tenant(&acme.id, "workspace_operator").pinned_to(&dev.id);
    let client = stack
        .client(&token.clone().scopes("mongo:read mongo:write"))
        .await?;
    wait_for("the gateway to read its routes", SOON, async || {
        // A gateway sees by the second in which it was written that it is new.
        std::fs::write(&routes, &text)?;
        // Somebody else each time: rates are not what this is about.
        let somebody = acme.member("tenant_operator").await?;
        let reply = somebody.get(&path).await?.expect(200);
        reply.map(drop).with_context(|| stack.logs())
    })
    .await?;

    let forging = [
        "subject",
        "tenant-id",
        "workspace-id",
        "plan-id",
        "roles",
        "scopes",
    ]
    .iter()
    .fold(client.get(&path), |call, name| {
        let name = format!("x-auth-{name}");
        call.add(&name, b"forged")
            .add(&name, b"forged-again")
            .add(&name.replace('-', "_"), b"forged")
            .add(&name.replacen('-', "_", 1), b"forged")
    });
    let head = forging.await?.expect(200)?.text_at("/head")?;
    ensure!(!head.contains("forged"), "{head}");
    for (name, value) in [
        ("x-auth-subject", token.subject()),
        ("x-auth-tenant-id", &acme.id),
        ("x-auth-workspace-id", &dev.id),
        ("x-auth-plan-id", "growth"),
        ("x-auth-roles", "workspace_operator"),
        ("x-auth-scopes", "mongo:read mongo:write"),
    ] {
        assert_eq!(received(&head, name), [value], "{name} in {head}");
    }
    // Both read the same path, encoded once.
    ensure!(head.starts_with(&format!("GET {path} HTTP/1.")), "{head}");
    // What does not hold deletes: a token that is pinned nowhere names no workspace.
    let head = acme
        .admin
        .get(&path)
        .set("X-Auth-Workspace-Id", "forged")
        .await?;
    let head = head.expect(200)?.text_at("/head")?;
    assert_eq!(received(&head, "x-auth-workspace-id"), Vec::<String>::new());
    // Where some might be out of sight, none gets through.
    let many = (0..110).fold(client.get(&path), |call, n| {
        call.set(&format!("x-filler-{n}"), "x")
    });
    many.add("x-auth-roles", b"superadmin")
        .await?
        .refused(431, "HEADERS_TOO_LARGE")?;
    // And who may not, may not: the upstream is never asked.
    let other = stack.with_tenant("other").await?;
    other
        .admin
        .get(&path)
        .await?
        .refused(404, "WORKSPACE_NOT_FOUND")?;
    Ok(())
}
