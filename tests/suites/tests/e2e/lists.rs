//! Lists in pages: stable under inserts, with cursors that cannot be bent.

use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Client;
use serde_json::Value;

use super::{named_fields, stack};

struct Page {
    ids: Vec<String>,
    next: Option<String>,
}

async fn page(client: &Client, path: &str) -> Result<Page> {
    let body = client.get(path).await?.expect(200)?.json()?;
    let data = body["data"].as_array().context("a list has data")?;
    let ids = data
        .iter()
        .filter_map(|one| one["id"].as_str().map(str::to_owned));
    let next = &body["pagination"]["nextCursor"];
    ensure!(next.is_string() || *next == Value::Null, "{body}");
    ensure!(body["pagination"]["limit"].is_u64(), "{body}");
    Ok(Page {
        ids: ids.collect(),
        next: next.as_str().map(str::to_owned),
    })
}

#[tokio::test]
async fn pages_are_stable_while_others_insert() -> Result<()> {
    let acme = stack().await.with_tenant_of("enterprise", "acme").await?;
    let mut before = Vec::new();
    for n in 0..7 {
        before.push(acme.with_workspace(&format!("n{n}"), &[]).await?.id);
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    for round in 0.. {
        ensure!(round < 20, "the list has no end: {seen:?}");
        let path = match &cursor {
            None => "/v1/workspaces?limit=2".to_owned(),
            Some(cursor) => format!("/v1/workspaces?limit=2&cursor={cursor}"),
        };
        let page = page(&acme.admin, &path).await?;
        ensure!(page.ids.len() <= 2, "{:?}", page.ids);
        seen.extend(page.ids);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        if round < 3 {
            acme.with_workspace("late", &[]).await?;
        }
    }
    let distinct: HashSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "some came twice: {seen:?}");
    let of_before: Vec<&String> = seen.iter().filter(|id| before.contains(id)).collect();
    assert_eq!(of_before.len(), before.len(), "some never came: {seen:?}");
    Ok(())
}

#[tokio::test]
async fn every_tenant_is_somewhere_in_the_list() -> Result<()> {
    let stack = stack().await;
    let admin = stack.platform_admin().await?;
    let (one, two) = (
        stack.with_tenant("one").await?,
        stack.with_tenant_of("regulated", "two").await?,
    );
    let walk = async |filter: &str| -> Result<Vec<String>> {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = page(&admin, &format!("/v1/tenants?limit=100{filter}{cursor}")).await?;
            seen.extend(page.ids);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(seen),
            }
        }
    };
    let all = walk("").await?;
    for tenant in [&one, &two] {
        assert_eq!(all.iter().filter(|id| **id == tenant.id).count(), 1);
    }
    let regulated = walk("&plan=regulated").await?;
    ensure!(regulated.contains(&two.id) && !regulated.contains(&one.id));
    admin.delete(&two.path()).await?.expect(200)?;
    let gone = walk("&plan=regulated&status=deactivated").await?;
    ensure!(gone.contains(&two.id));
    ensure!(!walk("&status=active").await?.contains(&two.id));
    ensure!(walk("&plan=gold").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_page_is_as_large_as_asked_within_bounds() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    for (query, limit) in [
        ("", 20),
        ("?limit=1", 1),
        ("?limit=100", 100),
        ("?limit=101", 100),
        ("?limit=99999999999999999999", 100),
    ] {
        for list in [
            "/v1/tenants",
            "/v1/workspaces",
            &format!("{}/audit", acme.path()),
        ] {
            let reply = acme
                .admin
                .get(&format!("{list}{query}"))
                .await?
                .expect(200)?;
            assert_eq!(reply.at("/pagination/limit")?, limit, "{list}{query}");
        }
    }
    for bad in ["-1", "x", "1.5", "1e2", "", "%201", "0x10"] {
        let error = acme
            .admin
            .get(&format!("/v1/workspaces?limit={bad}"))
            .await?;
        let error = error.refused(400, "VALIDATION_ERROR")?;
        assert_eq!(named_fields(&error), ["limit"], "{bad}");
    }
    let error = acme
        .admin
        .get("/v1/workspaces?limit=x&cursor=y&surprise=1&status=gone")
        .await?;
    let error = error.refused(400, "VALIDATION_ERROR")?;
    assert_eq!(
        named_fields(&error),
        ["cursor", "limit", "status", "surprise"]
    );
    Ok(())
}

#[tokio::test]
async fn a_cursor_that_was_bent_is_refused() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let other = stack.with_tenant("other").await?;
    for tenant in [&acme, &other] {
        for name in ["one", "two"] {
            tenant.with_workspace(name, &[]).await?;
        }
    }
    let first = page(&acme.admin, "/v1/workspaces?limit=1").await?;
    let cursor = first.next.context("there is a second page")?;
    let rest = page(
        &acme.admin,
        &format!("/v1/workspaces?limit=5&cursor={cursor}"),
    )
    .await?;
    assert_eq!(rest.ids.len(), 1);
    let flipped: String = cursor
        .chars()
        .enumerate()
        .map(|(at, c)| match (at, c) {
            (3, 'A') => 'B',
            (3, _) => 'A',
            (_, other) => other,
        })
        .collect();
    let theirs = page(&other.admin, "/v1/workspaces?limit=1").await?;
    let theirs = theirs.next.context("there is a second page")?;
    let audit = page(&acme.admin, &format!("{}/audit?limit=1", acme.path())).await?;
    let audit = audit.next.context("there is a second page")?;
    let refused = async |what: &str, path: String| -> Result<()> {
        let error = acme
            .admin
            .get(&path)
            .await?
            .refused(400, "VALIDATION_ERROR");
        let error = error.with_context(|| what.to_owned())?;
        assert_eq!(named_fields(&error), ["cursor"], "{what}");
        Ok(())
    };
    for (what, cursor) in [
        ("flipped", flipped.as_str()),
        ("cut", &cursor[..cursor.len() - 2]),
        ("longer", &format!("{cursor}AA")),
        ("empty", ""),
        ("an id", first.ids[0].as_str()),
        ("another tenant's", &theirs),
        ("another list's", &audit),
        ("a book", &"A".repeat(3_000)),
        ("no text", "%ff"),
    ] {
        if what == "no text" {
            let reply = acme
                .admin
                .get(&format!("/v1/workspaces?cursor={cursor}"))
                .await?;
            reply.refused(400, "VALIDATION_ERROR")?;
            continue;
        }
        refused(what, format!("/v1/workspaces?cursor={cursor}")).await?;
    }
    refused(
        "another filter's",
        format!("/v1/workspaces?status=active&cursor={cursor}"),
    )
    .await
}
