//! Collections: made with a validator and indexes, listed, dropped, within the plan.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use postern_harness::wait_for;
use serde_json::json;

use super::{SOON, collections, documents, workspace, world};

#[tokio::test]
async fn a_validator_names_the_failing_path() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let made = json!({
        "name": "people",
        "validator": {"jsonSchema": {"bsonType": "object", "required": ["name"], "additionalProperties": false,
            "properties": {"name": {"bsonType": "string"}, "age": {"bsonType": "int", "minimum": 0}}}},
        "indexes": [{"keys": {"name": 1}, "unique": true}],
    });
    let reply = acme
        .admin
        .post(&collections(&dev), &made)
        .await?
        .expect(201)?;
    assert!(!reply.text().contains("_tenantId"), "{reply:?}");
    let path = documents(&dev, "people");
    acme.admin
        .post(&path, &json!({"name": "Ada", "age": 36}))
        .await?
        .expect(201)?;
    for (person, what) in [
        (json!({"age": 1}), "name is missing"),
        (json!({"name": "Bob", "age": -1}), "age breaks minimum"),
        (
            json!({"name": "Bob", "more": 1}),
            "more is not in the schema",
        ),
    ] {
        let refused = acme.admin.post(&path, &person).await?;
        refused.refused(422, "DOCUMENT_INVALID")?;
        assert!(refused.text().contains(what), "{refused:?}");
    }
    let twice = acme.admin.post(&path, &json!({"name": "Ada"})).await?;
    twice.refused(409, "DUPLICATE_KEY")?;
    let again = acme
        .admin
        .post(&collections(&dev), &json!({"name": "people"}))
        .await?;
    again.refused(409, "DUPLICATE_KEY")?;
    let listed = acme.admin.get(&collections(&dev)).await?.expect(200)?;
    assert_eq!(listed.at("/data/0/name")?, "people");
    assert!(!listed.text().contains("postern"), "{listed:?}");
    let one = format!("{}/people", collections(&dev));
    acme.admin.delete(&one).await?.expect(200)?;
    acme.admin
        .delete(&one)
        .await?
        .refused(404, "COLLECTION_NOT_FOUND")?;
    Ok(())
}

#[tokio::test]
async fn the_plan_bounds_the_collections() -> Result<()> {
    let acme = world()
        .await
        .stack
        .with_tenant_of("starter", "acme")
        .await?;
    let dev = workspace(&acme).await?;
    for n in 0..10 {
        let made = json!({"name": format!("c{n}")});
        acme.admin
            .post(&collections(&dev), &made)
            .await?
            .expect(201)?;
    }
    let more = acme
        .admin
        .post(&collections(&dev), &json!({"name": "more"}))
        .await?;
    more.refused(403, "QUOTA_EXCEEDED")?;
    let implicit = acme
        .admin
        .post(&documents(&dev, "more"), &json!({"a": 1}))
        .await?;
    implicit.refused(403, "QUOTA_EXCEEDED")?;
    let usage = acme
        .admin
        .get(&format!("{}/usage", acme.path()))
        .await?
        .expect(200)?;
    assert!(
        usage
            .text()
            .contains(r#""quota":"collections","used":10,"limit":10"#),
        "{usage:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_plan_bounds_many_at_once() -> Result<()> {
    let acme = world()
        .await
        .stack
        .with_tenant_of("starter", "acme")
        .await?;
    let dev = workspace(&acme).await?;
    // Each has its own rate.
    let clients = try_join_all((0..4).map(|_| acme.member("tenant_admin"))).await?;
    let asked = (0..40).zip(clients.iter().cycle()).map(|(n, client)| {
        let path = documents(&dev, &format!("c{n}"));
        async move {
            // On a slow disk the turn may not come in time: then it is told to come again.
            wait_for("an answer that stands", SOON * 3, async || {
                let reply = client.post(&path, &json!({"n": n})).key(&path).await?;
                ensure!(reply.header("retry-after").is_none(), "{reply:?}");
                Ok(reply)
            })
            .await
        }
    });
    let answers = try_join_all(asked).await?;
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(made.len(), 10, "{refused:?}");
    for answer in refused {
        answer.refused(403, "QUOTA_EXCEEDED")?;
    }
    Ok(())
}

/// The tenant's turn is one over all processes of the handlers: whoever else has it is
/// waited for.
#[tokio::test]
async fn handlers_elsewhere_are_waited_for() -> Result<()> {
    let stack = &world().await.stack;
    let acme = stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let database = sqlx::PgPool::connect(stack.database_url()?).await?;
    let mut elsewhere = database.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('postern.collections ' || $1, 0))")
        .bind(&acme.id)
        .execute(&mut *elsewhere)
        .await?;
    let (path, body) = (collections(&dev), json!({"name": "things"}));
    let made = tokio::spawn(std::future::IntoFuture::into_future(
        acme.admin.post(&path, &body),
    ));
    wait_for("the request to wait", SOON, async || {
        // For this tenant's lock: others are waited for by the tests beside this one.
        let (waiting,): (bool,) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
             AND (classid::bigint << 32 | objid::bigint) = hashtextextended('postern.collections ' || $1, 0))",
        )
        .bind(&acme.id)
        .fetch_one(&database)
        .await?;
        ensure!(waiting, "nobody waits");
        Ok(())
    })
    .await?;
    assert!(!made.is_finished());
    elsewhere.commit().await?;
    made.await??.expect(201)?;
    Ok(())
}
