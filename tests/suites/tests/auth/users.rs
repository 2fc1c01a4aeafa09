//! Users: invited, listed, given roles.

use anyhow::{Context as _, Result};
use http::Method;
use postern_harness::http::Reply;
use postern_harness::keycloak::Keycloak;
use postern_harness::token::unique;
use serde_json::{Value, json};

use crate::world::{World, bearer};

#[tokio::test]
async fn somebody_is_invited_and_given_roles() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("invites").await?;
    let admin = &home.tenant.admin;
    let body = json!({"email": "Eve@example.com", "firstName": "Eve", "lastName": "Y", "roles": ["tenant_operator"]});
    let key = unique();
    let made = admin
        .post(&home.path("users"), &body)
        .key(&key)
        .await?
        .expect(201)?;
    assert_eq!(made.text_at("/username")?, "eve@example.com");
    assert_eq!(made.at("/roles")?, json!(["tenant_operator"]));
    // The realm can send no mail.
    assert_eq!(made.text_at("/invitation")?, "none");
    let again = admin
        .post(&home.path("users"), &body)
        .key(&key)
        .await?
        .expect(201)?;
    assert_eq!(again.body, made.body);
    admin
        .post(&home.path("users"), &body)
        .await?
        .refused(409, "DUPLICATE_KEY")?;

    let id = made.text_at("/id")?;
    let roles = |id: &str, roles: Value| {
        let path = home.path(&format!("users/{id}/roles"));
        admin
            .call(Method::PUT, &path)
            .json(&json!({"roles": roles}))
    };
    let set = roles(&id, json!(["tenant_operator", "tenant_admin"]))
        .await?
        .expect(200)?;
    assert_eq!(
        set.at("/roles")?,
        json!(["tenant_admin", "tenant_operator"])
    );
    let keycloak = Keycloak::shared().await?.admin().await?;
    let has = async || -> Result<Vec<String>> {
        let path = format!("/{}/users/{id}/role-mappings/realm", home.realm);
        let reply = keycloak
            .call(Method::GET, &path, None)
            .await?
            .expect(200)?
            .json()?;
        let mut names: Vec<String> = reply
            .as_array()
            .context("no list")?
            .iter()
            .filter_map(|role| role["name"].as_str().map(str::to_owned))
            .filter(|name| !name.starts_with("default-roles"))
            .collect();
        names.sort();
        Ok(names)
    };
    assert_eq!(has().await?, ["tenant_admin", "tenant_operator"]);
    roles(&id, json!([])).await?.expect(200)?;
    assert!(has().await?.is_empty());

    for name in ["superadmin", "platform_admin", "nothing", "offline_access"] {
        let error = roles(&id, json!([name]))
            .await?
            .refused(400, "VALIDATION_ERROR")?;
        assert!(error["details"].to_string().contains("roles[0]"), "{error}");
    }
    for nobody in [
        "00000000-0000-0000-0000-000000000000",
        "eve",
        "..%2f..%2fmaster",
    ] {
        let reply = roles(nobody, json!([])).await?;
        assert!(
            matches!(reply.status, 400 | 404 | 405),
            "{nobody}: {reply:?}"
        );
    }
    for bad in [
        json!({}),
        json!({"email": "x"}),
        json!({"email": "a@b.c", "enabled": true}),
        json!({"email": "a@b.c", "roles": [1]}),
    ] {
        admin
            .post(&home.path("users"), &bad)
            .await?
            .refused(400, "VALIDATION_ERROR")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_role_of_a_workspace_is_good_for_the_one_of_the_invitation() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("pinned").await?;
    let own = home.tenant.with_workspace("own", &[]).await?;
    let other = home.tenant.with_workspace("other", &[]).await?;
    let (admin, users) = (&home.tenant.admin, home.path("users"));
    let body = |id: &str| json!({"email": "finn@example.com", "firstName": "Finn", "lastName": "Y", "roles": ["workspace_operator"], "workspaceId": id});
    let error = admin.post(&users, &body("wks_1")).await?;
    error.refused(400, "VALIDATION_ERROR")?;
    let made = admin.post(&users, &body(&own.id)).await?.expect(201)?;
    assert_eq!(made.text_at("/workspaceId")?, own.id);
    let finn = home.listed("finn@example.com").await?;
    assert_eq!(finn["workspaceId"], own.id);

    // What Finn does with the mail, were there any.
    let (keycloak, password) = (Keycloak::shared().await?.admin().await?, unique());
    let path = format!("/{}/users/{}", home.realm, made.text_at("/id")?);
    let mut ready = keycloak
        .call(Method::GET, &path, None)
        .await?
        .expect(200)?
        .json()?;
    ready["requiredActions"] = json!([]);
    ready["credentials"] = json!([{"type": "password", "value": password, "temporary": false}]);
    let done = keycloak.call(Method::PUT, &path, Some(ready)).await?;
    done.expect(204)?;
    let log_in = home.log_in("finn@example.com", &password);
    let tokens = world.token(log_in).await?.expect(200)?;
    let finn = bearer(&world.stack.anonymous(), &tokens)?;
    finn.get(&own.path()).await?.expect(200)?;
    let elsewhere = finn.get(&other.path()).await?;
    elsewhere.refused(404, "WORKSPACE_NOT_FOUND")?;
    Ok(())
}

#[tokio::test]
async fn a_new_role_counts_with_the_next_token() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("promoted").await?;
    let password = home.user(Keycloak::shared().await?, "ada", &[]).await?;
    let ada = home.listed("ada").await?;
    let id = ada["id"].as_str().unwrap_or_default();
    home.give(id, &json!({"roles": ["tenant_operator"]}))
        .await?
        .expect(200)?;
    let tokens = world
        .token(home.log_in("ada", &password))
        .await?
        .expect(200)?;
    let ada = bearer(&world.stack.anonymous(), &tokens)?;
    ada.get("/v1/workspaces").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn pages_stay_right_while_users_come() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("pages").await?;
    let admin = &home.tenant.admin;
    let invite = async |name: &str| {
        let body = json!({"email": format!("{name}@example.com"), "username": name});
        admin.post(&home.path("users"), &body).await?.expect(201)
    };
    let names = |reply: &Reply| -> Result<Vec<String>> {
        let data = reply.at("/data")?;
        let names = data.as_array().context("no list")?.iter();
        Ok(names
            .filter_map(|user| user["username"].as_str().map(str::to_owned))
            .collect())
    };
    for name in ["user-b", "user-d", "user-f", "user-h"] {
        invite(name).await?;
    }
    let mut seen = Vec::new();
    let mut path = home.path("users?limit=2");
    let mut coming = ["user-a", "user-aa", "user-i"].into_iter();
    loop {
        let page = admin.get(&path).await?.expect(200)?;
        seen.extend(names(&page)?);
        let Some(cursor) = page
            .at("/pagination/nextCursor")?
            .as_str()
            .map(str::to_owned)
        else {
            break;
        };
        if let Some(name) = coming.next() {
            invite(name).await?;
        }
        path = home.path(&format!("users?limit=2&cursor={cursor}"));
    }
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(once, seen, "somebody was told twice");
    for name in ["user-b", "user-d", "user-f", "user-h"] {
        assert!(
            seen.iter().any(|one| one == name),
            "{name} is missing in {seen:?}"
        );
    }
    Ok(())
}
