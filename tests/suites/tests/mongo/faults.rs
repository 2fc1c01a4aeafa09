//! One effect a key, whoever is killed whenever.

use anyhow::{Result, ensure};
use postern_harness::wait_for;
use serde_json::json;

use super::{SOON, World, documents, start, workspace, world};

/// Where an insert can be held.
const POINTS: [&str; 6] = [
    "before-record",
    "after-record",
    "after-effect",
    "before-commit",
    "after-commit",
    "after-claim",
];

/// Kills the handlers while an insert, the first of its collection, stands at a point, and
/// repeats it until it is answered: then there is one document.
#[tokio::test]
async fn handlers_killed_at_every_point() -> Result<()> {
    let World {
        mut stack,
        mongo: _mongo,
    } = start().await?;
    let (clients, dev) = {
        let acme = stack.with_tenant("acme").await?;
        let dev = workspace(&acme).await?;
        let mut clients = Vec::new();
        for point in POINTS {
            // Each has its own rate, which the repeated insert may use up.
            let writer = acme.member("tenant_admin").await?;
            clients.push((point, writer, acme.member("tenant_operator").await?));
        }
        (clients, dev)
    };
    for (point, admin, reader) in &clients {
        let path = documents(&dev, point);
        let reached = stack.faults()?.join(format!("{point}.reached"));
        std::fs::write(stack.faults()?.join(point), "")?;
        let post = || admin.post(&path, &json!({"text": point})).key(point);
        let lost = tokio::spawn(std::future::IntoFuture::into_future(post()));
        wait_for("the insert to come to the point", SOON, async || {
            ensure!(reached.exists(), "it is not at {point}");
            Ok(())
        })
        .await?;
        stack.services()?.restart_handlers().await?;
        // A file that is left would hold whoever comes next.
        let _ = std::fs::remove_file(&reached);
        let _ = lost.await?;
        wait_for("the repeated insert", SOON, async || {
            let reply = post().await?;
            ensure!(reply.status == 201, "{reply:?}");
            Ok(())
        })
        .await?;
        let found = reader
            .get(&format!("{path}?filter.text={point}"))
            .await?
            .expect(200)?;
        assert_eq!(found.at("/pagination/total")?, 1, "{point}");
    }
    Ok(())
}

/// A primary that steps down, and a server that is killed, under load: every key once.
#[tokio::test]
async fn the_server_falls_under_load() -> Result<()> {
    let World { stack, mut mongo } = start().await?;
    let acme = stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "notes");
    acme.admin
        .post(&path, &json!({"text": "first"}))
        .await?
        .expect(201)?;
    let writers = futures::future::try_join_all((0..4).map(|writer| {
        let (admin, path) = (&acme.admin, &path);
        async move {
            for n in 0..12 {
                let key = format!("fall-{writer}-{n}");
                let post = || {
                    admin
                        .post(path, &json!({"text": "load", "key": key}))
                        .key(&key)
                };
                wait_for("a write to be answered", SOON, async || {
                    let reply = post().await?;
                    ensure!(reply.status == 201, "{reply:?}");
                    Ok(())
                })
                .await?;
            }
            Ok::<_, anyhow::Error>(())
        }
    }));
    let falls = async {
        mongo.step_down().await?;
        mongo.restart().await
    };
    tokio::try_join!(writers, falls)?;
    let found = acme
        .admin
        .get(&format!("{path}?filter.text=load&limit=100"))
        .await?
        .expect(200)?;
    let mut keys: Vec<_> = found
        .at("/data")?
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["key"].to_string())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(
        (found.at("/pagination/total")?, keys.len()),
        (json!(48), 48)
    );
    Ok(())
}

#[tokio::test]
async fn a_key_replays_and_is_not_reused() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "notes");
    let first = acme
        .admin
        .post(&path, &json!({"a": 1}))
        .key("the-key")
        .await?
        .expect(201)?;
    let again = acme
        .admin
        .post(&path, &json!({"a": 1}))
        .key("the-key")
        .await?
        .expect(201)?;
    assert_eq!(first.text(), again.text());
    assert_eq!(again.one("x-idempotency-replayed")?, "true");
    let other = acme
        .admin
        .post(&path, &json!({"a": 2}))
        .key("the-key")
        .await?;
    other.refused(422, "IDEMPOTENCY_KEY_REUSED")?;
    let duplicate = || acme.admin.post(&path, &json!({"_id": "x"})).key("twice");
    duplicate().await?.expect(201)?;
    let refused = || acme.admin.post(&path, &json!({"_id": "x"})).key("refused");
    let first = refused().await?;
    first.refused(409, "DUPLICATE_KEY")?;
    // Byte for byte: its body still has the first request's correlation id.
    let kept = refused().await?.expect(409)?;
    assert_eq!(kept.text(), first.text());
    assert_eq!(kept.one("x-idempotency-replayed")?, "true");
    Ok(())
}
