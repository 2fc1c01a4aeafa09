//! Two tenants on one replica set: neither sees, changes or names the other's documents.

use anyhow::Result;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use super::{collections, documents, workspace, world};

/// A workspace's database, as the handlers name it.
fn database(workspace: &str) -> String {
    workspace.to_ascii_lowercase().replace("wks_", "ws_")
}

#[tokio::test]
async fn nothing_of_another_tenant_comes_back() -> Result<()> {
    let world = world().await;
    let acme = world.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "orders");
    acme.admin
        .post(
            &path,
            &json!({"_id": 1, "customer": "c1", "tags": ["a", "b"], "n": 5}),
        )
        .await?
        .expect(201)?;
    acme.admin
        .post(
            &documents(&dev, "customers"),
            &json!({"_id": "c1", "name": "mine"}),
        )
        .await?
        .expect(201)?;
    // The worst case: another tenant's documents stand in the same collections, as if
    // the databases were not apart.
    let client = world.mongo.client().await?;
    let own = client.database(&database(&dev.id));
    let foreign = |extra: Document| {
        let mut document = doc! {"_tenantId": "tnt_FOREIGN", "_workspaceId": "wks_FOREIGN", "secret": "FOREIGN", "customer": "c1", "n": 5, "tags": ["a"]};
        document.extend(extra);
        document
    };
    own.collection("orders")
        .insert_many([foreign(doc! {"_id": 100}), foreign(doc! {"_id": 101})])
        .await?;
    own.collection("customers")
        .insert_many([
            foreign(doc! {"_id": "c2", "name": "FOREIGN"}),
            foreign(doc! {"_id": "c3"}),
        ])
        .await?;

    let aggregate = path.replace("/documents", "/aggregate");
    let lookup = json!({"$lookup": {"from": "customers", "localField": "customer", "foreignField": "customer", "as": "j"}});
    let open = json!({"$lookup": {"from": "customers", "pipeline": [], "as": "j"}});
    let nested = json!({"$lookup": {"from": "customers", "let": {"c": "$customer"}, "pipeline": [open, {"$addFields": {"root": "$$ROOT"}}], "as": "k"}});
    for pipeline in [
        json!([]),
        json!([{"$match": {}}]),
        json!([lookup]),
        json!([open]),
        json!([nested]),
        json!([{"$match": {"$or": [{"n": 5}, {"n": {"$exists": false}}]}}]),
        json!([{"$facet": {"a": [open], "b": [{"$group": {"_id": null, "all": {"$push": "$$ROOT"}}}]}}]),
        json!([{"$group": {"_id": "$customer", "n": {"$sum": 1}, "docs": {"$push": "$$ROOT"}}}]),
        json!([{"$unwind": "$tags"}, {"$sortByCount": "$tags"}]),
        json!([{"$replaceRoot": {"newRoot": {"all": {"$objectToArray": "$$ROOT"}}}}]),
        json!([{"$project": {"x": {"$mergeObjects": ["$$ROOT", {"y": 1}]}}}]),
        json!([{"$sample": {"size": 100}}]),
        json!([{"$bucketAuto": {"groupBy": "$n", "buckets": 2, "output": {"d": {"$push": "$$ROOT"}}}}]),
        json!([{"$count": "n"}]),
    ] {
        let found = acme
            .admin
            .post(&aggregate, &json!({"pipeline": pipeline}))
            .await?
            .expect(200)?;
        let text = found.text();
        assert!(
            !text.contains("FOREIGN")
                && !text.contains("_tenantId")
                && !text.contains("_workspaceId"),
            "{pipeline}: {text}"
        );
    }
    let counted = acme
        .admin
        .post(&aggregate, &json!({"pipeline": [{"$count": "n"}]}))
        .await?
        .expect(200)?;
    assert_eq!(counted.at("/data/0/n")?, 1);
    for pipeline in [
        json!([{"$out": "x"}]),
        json!([{"$merge": "x"}]),
        json!([{"$unionWith": "customers"}]),
        json!([{"$match": {"_tenantId": "tnt_FOREIGN"}}]),
        json!([{"$match": {"$expr": {"$function": {"body": "1", "args": [], "lang": "js"}}}}]),
        json!([{"$project": {"t": "$_tenantId"}}]),
        json!([{"$lookup": {"from": "postern.record", "pipeline": [], "as": "j"}}]),
        json!([{"$lookup": {"from": {"db": "postern", "coll": "workspace"}, "pipeline": [], "as": "j"}}]),
    ] {
        let refused = acme
            .admin
            .post(&aggregate, &json!({"pipeline": pipeline}))
            .await?;
        refused
            .refused(400, "VALIDATION_ERROR")
            .map_err(|error| error.context(pipeline.to_string()))?;
    }

    for query in [
        "",
        "?filter.n=5",
        "?filter=%7B%22$or%22:[%7B%7D,%7B%22n%22:5%7D]%7D",
        "?filter=%7B%22$nor%22:[%7B%22n%22:6%7D]%7D",
        "?projection=secret",
    ] {
        let listed = acme
            .admin
            .get(&format!("{path}{query}"))
            .await?
            .expect(200)?;
        assert!(!listed.text().contains("FOREIGN"), "{query}: {listed:?}");
        assert_eq!(listed.at("/pagination/total")?, 1, "{query}");
    }
    acme.admin
        .get(&format!("{path}/100"))
        .await?
        .refused(404, "DOCUMENT_NOT_FOUND")?;
    crate::patch(
        &acme.admin,
        &format!("{path}/100"),
        &json!({"secret": "taken"}),
    )
    .await?
    .refused(404, "DOCUMENT_NOT_FOUND")?;
    acme.admin
        .delete(&format!("{path}/100"))
        .await?
        .refused(404, "DOCUMENT_NOT_FOUND")?;
    let bulk = json!({"operations": [
        {"updateMany": {"filter": {}, "update": {"$set": {"seen": true}}}},
        {"deleteMany": {"filter": {"secret": "FOREIGN"}}},
    ]});
    let done = acme
        .admin
        .post(&path.replace("/documents", "/bulk"), &bulk)
        .await?
        .expect(200)?;
    assert_eq!(done.at("/data/0/matched")?, 1);
    assert_eq!(done.at("/data/1/deleted")?, 0);
    let left = own
        .collection::<Document>("orders")
        .count_documents(doc! {"secret": "FOREIGN", "seen": {"$exists": false}})
        .await?;
    assert_eq!(left, 2);
    Ok(())
}

#[tokio::test]
async fn another_tenants_workspace_is_not_there() -> Result<()> {
    let stack = &world().await.stack;
    let (acme, umbrella) = (
        stack.with_tenant("acme").await?,
        stack.with_tenant("umbrella").await?,
    );
    let theirs = workspace(&umbrella).await?;
    for path in [
        collections(&theirs),
        documents(&theirs, "x"),
        format!("{}/1", documents(&theirs, "x")),
    ] {
        acme.admin
            .get(&path)
            .await?
            .refused(404, "WORKSPACE_NOT_FOUND")?;
    }
    let refused = acme
        .admin
        .post(&documents(&theirs, "x"), &json!({"a": 1}))
        .await?;
    refused.refused(404, "WORKSPACE_NOT_FOUND")?;
    Ok(())
}

#[tokio::test]
async fn credentials_read_views_and_end() -> Result<()> {
    let world = world().await;
    let acme = world.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    acme.admin
        .post(&documents(&dev, "things"), &json!({"_id": 1}))
        .await?
        .expect(201)?;
    let path = format!("/v1/mongo/{}/credentials", dev.id);
    let order = json!({"collections": ["things"], "ttlSeconds": 60});
    let given = acme.admin.post(&path, &order).await?.expect(201)?;
    let (user, password) = (given.text_at("/username")?, given.text_at("/password")?);
    let (database, view) = (given.text_at("/database")?, given.text_at("/views/0")?);
    let host = world
        .mongo
        .url()
        .split('@')
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let url =
        format!("mongodb://{user}:{password}@{host}/?authSource={database}&directConnection=true");
    let client = mongodb::Client::with_uri_str(&url).await?;
    let reader = client.database(&database);
    let seen = reader
        .collection::<Document>(&view)
        .find_one(doc! {})
        .await?
        .unwrap();
    assert_eq!(seen, doc! {"_id": 1});
    for forbidden in ["things", "postern.record"] {
        assert!(
            reader
                .collection::<Document>(forbidden)
                .find_one(doc! {})
                .await
                .is_err(),
            "{forbidden}"
        );
    }
    assert!(
        reader
            .collection::<Document>(&view)
            .insert_one(doc! {"a": 1})
            .await
            .is_err()
    );
    let nothing = acme
        .admin
        .post(&path, &json!({"collections": ["nothing"]}))
        .await?;
    nothing.refused(404, "COLLECTION_NOT_FOUND")?;
    let ours: Value = json!({"collections": ["postern.record"]});
    acme.admin
        .post(&path, &ours)
        .await?
        .refused(400, "VALIDATION_ERROR")?;
    // They end with what they were given for, long before their time.
    let closed = json!({"status": "suspended"});
    let admin = world.stack.platform_admin().await?;
    admin.patch(&dev.path(), &closed).await?.expect(200)?;
    postern_harness::wait_for("the credentials to end", super::SOON, async || {
        let again = mongodb::Client::with_uri_str(&url).await?;
        let read = again
            .database(&database)
            .collection::<Document>(&view)
            .find_one(doc! {})
            .await;
        anyhow::ensure!(read.is_err(), "they still read");
        Ok(())
    })
    .await?;
    // Whoever was connected is shut out, too.
    let before = reader.collection::<Document>(&view);
    assert!(before.find_one(doc! {}).await.is_err());
    Ok(())
}
