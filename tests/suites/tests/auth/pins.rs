//! Pins: a workspace's roles, and the one workspace that they are good for.

use anyhow::{Context as _, Result};
use postern_harness::api::Client;
use postern_harness::http::Reply;
use postern_harness::keycloak::Keycloak;
use postern_harness::token::unique;
use serde_json::{Value, json};

use crate::world::{Home, World, bearer};

/// 422, and the field to mend.
fn refused(reply: &Reply) -> Result<Value> {
    let error = reply.refused(422, "CONSTRAINT_VIOLATION")?;
    assert_eq!(error["details"][0]["field"], "workspaceId", "{error}");
    Ok(error)
}

/// The audit entries of one kind, the newest first.
async fn trail(home: &Home<'_>, action: &str) -> Result<Value> {
    let path = format!("{}/audit?action={action}", home.tenant.path());
    let trail = home.tenant.admin.get(&path).await?.expect(200)?;
    trail.at("/data")
}

async fn logged_in(world: &World, home: &Home<'_>, password: &str) -> Result<Client> {
    let tokens = world.token(home.log_in("ada", password)).await?;
    bearer(&world.stack.anonymous(), &tokens.expect(200)?)
}

#[tokio::test]
async fn a_workspaces_role_needs_a_workspace_of_the_tenant() -> Result<()> {
    let world = World::shared().await?;
    let (home, stranger) = (
        world.tenant("needs-a-pin").await?,
        world.stack.with_tenant("elsewhere").await?,
    );
    let (own, ended) = (
        home.tenant.with_workspace("own", &[]).await?,
        home.tenant.with_workspace("ended", &[]).await?,
    );
    let foreign = stranger.with_workspace("foreign", &[]).await?;
    let admin = &home.tenant.admin;
    admin.delete(&ended.path()).await?.expect(200)?;
    home.user(Keycloak::shared().await?, "ada", &["tenant_operator"])
        .await?;
    let ada = home.listed("ada").await?;
    let ada = ada["id"].as_str().unwrap_or_default();
    let invite = async |pin: Value| {
        let mut body = json!({"email": "gus@example.com", "roles": ["workspace_operator"]});
        if !pin.is_null() {
            body["workspaceId"] = pin;
        }
        admin.post(&home.path("users"), &body).await
    };
    let give = async |pin: Value| {
        let body = json!({"roles": ["workspace_admin", "tenant_operator"], "workspaceId": pin});
        home.give(ada, &body).await
    };

    for told in [
        refused(&invite(Value::Null).await?)?,
        refused(&give(Value::Null).await?)?,
        refused(
            &home
                .give(ada, &json!({"roles": ["workspace_admin"]}))
                .await?,
        )?,
    ] {
        let message = told["message"].as_str().unwrap_or_default();
        assert!(message.contains("name it in workspaceId"), "{told}");
    }
    let told = refused(&invite(json!(ended.id)).await?)?;
    assert_eq!(
        refused(&give(json!(ended.id)).await?)?["message"],
        told["message"]
    );
    assert!(told.to_string().contains("deactivated"), "{told}");
    // Nobody learns of another tenant's.
    for id in [&foreign.id, "wks_01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        for reply in [invite(json!(id)).await?, give(json!(id)).await?] {
            let error = reply.refused(404, "WORKSPACE_NOT_FOUND")?;
            assert_eq!(error["message"], format!("Workspace {id} not found"));
        }
    }
    for bad in [json!("wks_1"), json!(7), json!([own.id])] {
        for reply in [invite(bad.clone()).await?, give(bad.clone()).await?] {
            reply.refused(400, "VALIDATION_ERROR")?;
        }
    }
    // Nothing came of any of it.
    assert!(home.listed("gus@example.com").await.is_err());
    assert_eq!(home.listed("ada").await?["workspaceId"], Value::Null);
    for action in ["iam.users.create", "iam.users.roles"] {
        let trail = trail(&home, action).await?;
        let denied = |entry: &Value| entry["outcome"] == "denied";
        let entries = trail.as_array().context("no list")?;
        assert!(entries.iter().all(denied), "{trail}");
        assert!(trail.to_string().contains(&foreign.id), "{trail}");
    }
    give(json!(own.id)).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn somebody_who_is_there_is_pinned_moved_and_let_go() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("pinned-later").await?;
    let own = home.tenant.with_workspace("own", &[]).await?;
    let other = home.tenant.with_workspace("other", &[]).await?;
    let keycloak = Keycloak::shared().await?;
    let password = home.user(keycloak, "ada", &["tenant_operator"]).await?;
    let before = home.listed("ada").await?;
    let id = before["id"].as_str().unwrap_or_default();
    let ada = logged_in(world, &home, &password).await?;
    for workspace in [&own, &other] {
        ada.get(&workspace.path()).await?.expect(200)?;
    }

    let given = json!({"roles": ["workspace_admin"], "workspaceId": own.id});
    let set = home.give(id, &given).await?.expect(200)?;
    assert_eq!(
        set.json()?,
        json!({"userId": id, "roles": ["workspace_admin"], "workspaceId": own.id})
    );
    let ada = logged_in(world, &home, &password).await?;
    let named = json!({"displayName": "By Ada"});
    ada.patch(&own.path(), &named).await?.expect(200)?;
    let elsewhere = ada.patch(&other.path(), &named).await?;
    elsewhere.refused(404, "WORKSPACE_NOT_FOUND")?;
    // Whatever else is known of her stays.
    let mut expected = before.clone();
    expected["workspaceId"] = json!(own.id);
    assert_eq!(home.listed("ada").await?, expected);
    let trail = trail(&home, "iam.users.roles").await?;
    assert_eq!(trail[0]["changes"]["workspaceId"], own.id, "{trail}");

    // The pin stays where it is not named, and a role of a workspace does not go without.
    let set = home
        .give(id, &json!({"roles": ["workspace_operator"]}))
        .await?;
    assert_eq!(set.expect(200)?.text_at("/workspaceId")?, own.id);
    let ada = logged_in(world, &home, &password).await?;
    ada.get(&own.path()).await?.expect(200)?;
    ada.patch(&own.path(), &named)
        .await?
        .refused(403, "ROLE_DENIED")?;
    let free = json!({"roles": ["workspace_operator"], "workspaceId": null});
    refused(&home.give(id, &free).await?)?;

    let moved = json!({"roles": ["workspace_operator"], "workspaceId": other.id});
    home.give(id, &moved).await?.expect(200)?;
    let ada = logged_in(world, &home, &password).await?;
    ada.get(&other.path()).await?.expect(200)?;
    ada.get(&own.path())
        .await?
        .refused(404, "WORKSPACE_NOT_FOUND")?;

    // What she is pinned to ended: nothing of a workspace is given for it any more.
    home.tenant.admin.delete(&other.path()).await?.expect(200)?;
    refused(
        &home
            .give(id, &json!({"roles": ["workspace_admin"]}))
            .await?,
    )?;
    home.give(id, &json!({"roles": []})).await?.expect(200)?;
    let free = json!({"roles": ["tenant_operator"], "workspaceId": null});
    let set = home.give(id, &free).await?.expect(200)?;
    assert_eq!(set.at("/workspaceId")?, Value::Null);
    let ada = logged_in(world, &home, &password).await?;
    ada.get(&own.path()).await?.expect(200)?;
    assert_eq!(home.listed("ada").await?, before);
    Ok(())
}

#[tokio::test]
async fn a_machine_reaches_its_workspace_and_no_other() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("machines").await?;
    let own = home.tenant.with_workspace("own", &[]).await?;
    let other = home.tenant.with_workspace("other", &[]).await?;
    let scopes = [
        "workspaces:read",
        "workspaces:write",
        "tenants:read",
        "iam:read",
    ];
    let given = json!({"roles": ["workspace_admin"], "workspaceId": own.id});
    let (id, secret) = home.robot(&scopes, &given).await?;
    let log_in = json!({"grantType": "client_credentials", "tenant": home.tenant.slug,
        "clientId": id, "clientSecret": secret});
    let tokens = world.token(log_in).await?.expect(200)?;
    let robot = bearer(&world.stack.anonymous(), &tokens)?;
    let named = json!({"displayName": unique()});
    robot.patch(&own.path(), &named).await?.expect(200)?;
    let list = robot
        .get("/v1/workspaces")
        .await?
        .expect(200)?
        .at("/data")?;
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list[0]["id"], own.id);
    for call in [robot.get(&other.path()), robot.patch(&other.path(), &named)] {
        call.await?.refused(404, "WORKSPACE_NOT_FOUND")?;
    }
    let more =
        json!({"tenantId": home.tenant.id, "slug": "more", "displayName": "M", "capabilities": []});
    let made = robot.post("/v1/workspaces", &more).await?;
    made.refused(403, "ROLE_DENIED")?;
    for path in [home.tenant.path(), home.path("users")] {
        robot.get(&path).await?.refused(403, "ROLE_DENIED")?;
    }
    Ok(())
}
