//! Handlers that are killed in the middle of a change of Keycloak.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_harness::keycloak::Keycloak;
use postern_harness::token::unique;
use postern_harness::wait_for;
use serde_json::json;

use crate::world::World;

const REACHED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn handlers_are_killed_in_the_middle() -> Result<()> {
    let mut world = World::before(Keycloak::shared().await?).await?;
    a_client_is_made_once(&mut world).await?;
    anothers_client_is_not_taken_for_ones_own(&mut world).await
}

/// At each point the handlers are killed with -9; the retry with the same key ends with
/// one client, whose secret is good.
async fn a_client_is_made_once(world: &mut World) -> Result<()> {
    let keycloak = Keycloak::shared().await?;
    for point in [
        "after-record",
        "after-effect",
        "before-commit",
        "after-commit",
    ] {
        let home = world.tenant("killed").await?;
        let (realm, slug, admin) = (
            home.realm.clone(),
            home.tenant.slug.clone(),
            home.tenant.admin.clone(),
        );
        let body = json!({"clientId": "robot", "grantTypes": ["client_credentials"]});
        let (key, path) = (unique(), home.path("clients"));
        let armed = world.stack.faults()?.join(point);
        std::fs::write(&armed, "")?;
        let call = tokio::spawn({
            let (admin, path, body, key) = (admin.clone(), path.clone(), body.clone(), key.clone());
            async move { admin.post(&path, &body).key(&key).await }
        });
        wait_for("the fault point", REACHED, async || {
            ensure!(
                armed.with_extension("reached").exists(),
                "nothing has come to {point}"
            );
            Ok(())
        })
        .await?;
        world.stack.services()?.restart_handlers().await?;
        let first = call.await??;
        assert_ne!(first.status, 201, "{point}: {first:?}");
        let _ = std::fs::remove_file(armed.with_extension("reached"));

        let made = wait_for("the retry", REACHED, async || {
            admin.post(&path, &body).key(&key).await?.expect(201)
        })
        .await
        .with_context(|| point.to_owned())?;
        let log_in = json!({"grantType": "client_credentials", "tenant": slug, "clientId": "robot",
            "clientSecret": made.text_at("/clientSecret")?});
        world.token(log_in).await?.expect(200)?;
        let found = keycloak
            .admin()
            .await?
            .call(
                Method::GET,
                &format!("/{realm}/clients?clientId=robot"),
                None,
            )
            .await?;
        assert_eq!(found.json()?.as_array().map(Vec::len), Some(1), "{point}");
        // One deed, one event.
        let tenant = admin.get("/v1/tenants").await?.text_at("/data/0/id")?;
        let trail = admin
            .get(&format!(
                "/v1/tenants/{tenant}/audit?action=iam.clients.create"
            ))
            .await?
            .expect(200)?;
        assert_eq!(
            trail.at("/data")?.as_array().map(Vec::len),
            Some(1),
            "{point}: {trail:?}"
        );
    }
    Ok(())
}

/// Started and killed before Keycloak was asked; then somebody else takes the name. The
/// retry does not take that client for its own.
async fn anothers_client_is_not_taken_for_ones_own(world: &mut World) -> Result<()> {
    let home = world.tenant("taken").await?;
    let (admin, path) = (home.tenant.admin.clone(), home.path("clients"));
    let body = json!({"clientId": "robot", "grantTypes": ["client_credentials"]});
    let key = unique();
    let armed = world.stack.faults()?.join("after-record");
    std::fs::write(&armed, "")?;
    let call = tokio::spawn({
        let (admin, path, body, key) = (admin.clone(), path.clone(), body.clone(), key.clone());
        async move { admin.post(&path, &body).key(&key).await }
    });
    wait_for("the fault point", REACHED, async || {
        ensure!(
            armed.with_extension("reached").exists(),
            "nothing has come to it"
        );
        Ok(())
    })
    .await?;
    world.stack.services()?.restart_handlers().await?;
    call.await??;
    admin.post(&path, &body).await?.expect(201)?;
    wait_for("the retry", REACHED, async || {
        admin
            .post(&path, &body)
            .key(&key)
            .await?
            .refused(409, "DUPLICATE_KEY")
    })
    .await?;
    Ok(())
}
