//! Keycloak's keys change while everybody works.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_harness::keycloak::{Realm, User};
use postern_harness::token::unique;
use postern_harness::wait_for;

use super::signer::header_of;
use super::{GRACE, REFRESH, SOON, WAIT, World, judge};

/// Between two requests with a token that is to end: less would meet a limit.
const STEP: Duration = Duration::from_millis(300);
/// What a refresh and a request may take besides, on a machine that does other things too.
const SLACK: Duration = Duration::from_secs(3);
/// Requests that are seen beside each key that comes, and each that goes: those of four
/// fresh tokens.
const ENOUGH: usize = 8;

#[tokio::test]
async fn no_token_of_a_new_key_is_refused_and_none_of_an_old_one_stays() -> Result<()> {
    let world = World::shared().await?;
    let admin = world.keycloak.admin().await?;
    let tenant = world.stack.with_tenant("rotating").await?;
    // Subjects of their own: each has limits of its own, and few enough requests.
    let realm = Realm::of_tenant(&tenant.slug, &tenant.id)
        .user(User::new("ada", "secret", &["tenant_admin"]))
        .user(User::new("bob", "secret", &["tenant_operator"]));
    world.create(&realm).await?;
    let (done, judged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let work = async |name: &str| -> Result<()> {
        while !done.load(Ordering::SeqCst) {
            let token = world.keycloak.log_in(&realm, name, "secret").await?.access;
            // Twice: once to be verified, once remembered.
            for _ in 0..2 {
                let reply = world.judge(&token).await?;
                reply.expect(200).with_context(|| {
                    format!("{:?} after {judged:?} requests", header_of(&token))
                })?;
                judged.fetch_add(1, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    };
    let see_some = async || -> Result<()> {
        let before = judged.load(Ordering::SeqCst);
        let seen = async || {
            let more = judged.load(Ordering::SeqCst) - before;
            ensure!(more >= ENOUGH, "{more} requests");
            Ok(())
        };
        wait_for("requests with tokens of this key", SOON, seen).await
    };
    let rotate = async || -> Result<Vec<(Duration, String)>> {
        let mut ends = Vec::new();
        for algorithm in ["RS256", "ES256", "PS256"] {
            let old = world.keycloak.service_account(&realm).await?.access;
            admin.rotate_keys(realm.name(), algorithm).await?;
            let kid = header_of(&old)?["kid"]
                .as_str()
                .context("no kid")?
                .to_owned();
            world.judge(&old).await?.expect(200)?;
            see_some().await?;
            admin.remove_key(realm.name(), &kid).await?;
            let removed = Instant::now();
            let refused = async || {
                tokio::time::sleep(STEP).await;
                let reply = world.judge(&old).await?;
                reply.refused(401, "TOKEN_INVALID").map(drop)
            };
            wait_for("the old key to go", SOON, refused).await?;
            ends.push((removed.elapsed(), old));
            see_some().await?;
        }
        Ok(ends)
    };
    let rotating = async {
        let ends = rotate().await;
        done.store(true, Ordering::SeqCst);
        ends
    };
    let (ends, one, two) = tokio::join!(rotating, work("ada"), work("bob"));
    one.and(two)?;
    let ends = ends?;
    let slowest = ends.iter().map(|(took, _)| *took).max().unwrap();
    assert!(
        slowest < REFRESH + GRACE + SLACK,
        "an old key stayed for {slowest:?}"
    );
    for (_, old) in &ends {
        world.judge(old).await?.refused(401, "TOKEN_INVALID")?;
    }
    println!(
        "{judged:?} requests through {} rotations; an old key was gone after {slowest:?} at the latest",
        ends.len()
    );
    Ok(())
}

#[tokio::test]
async fn the_first_token_of_a_new_key_waits_for_it_and_is_taken() -> Result<()> {
    let world = World::shared().await?;
    let admin = world.keycloak.admin().await?;
    let tenant = world.stack.with_tenant("fresh").await?;
    let realm = Realm::of_tenant(&tenant.slug, &tenant.id);
    world.create(&realm).await?;
    let token = world.keycloak.service_account(&realm).await?.access;
    judge(&world.stack, &token).await?.expect(200)?;
    for _ in 0..3 {
        admin.rotate_keys(realm.name(), "RS256").await?;
        // An invented name just before, so that the runner has only just asked.
        let forged = super::signer::P256::new(&unique())?;
        let claims = super::signer::claims_of(&token)?;
        judge(&world.stack, &forged.sign(&claims)?)
            .await?
            .refused(401, "TOKEN_INVALID")?;
        admin.rotate_keys(realm.name(), "RS256").await?;
        let token = world.keycloak.service_account(&realm).await?.access;
        let start = Instant::now();
        judge(&world.stack, &token).await?.expect(200)?;
        assert!(start.elapsed() < WAIT, "{:?}", start.elapsed());
    }
    Ok(())
}
