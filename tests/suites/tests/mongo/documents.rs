//! One document and many: inserted, found, changed, with their types.

use anyhow::Result;
use serde_json::{Value, json};

use super::{documents, patch, workspace, world};

#[tokio::test]
async fn a_document_lives_and_dies() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "people");
    let made = acme
        .admin
        .post(&path, &json!({"name": "Ada", "born": 1815}))
        .await?
        .expect(201)?;
    assert_eq!(made.at("/inserted")?, 1);
    let location = made.one("location")?.to_owned();
    let found = acme.admin.get(&location).await?.expect(200)?;
    assert_eq!(found.at("/name")?, "Ada");
    assert!(!found.text().contains("_tenantId"), "{found:?}");
    let etag = found.one("etag")?.to_owned();

    let change = json!({"$set": {"name": "Ada Lovelace"}, "$inc": {"born": 0}});
    let stale = patch(&acme.admin, &location, &change)
        .set("if-match", "\"0000000000000000\"")
        .await?;
    stale.refused(412, "PRECONDITION_FAILED")?;
    let changed = patch(&acme.admin, &location, &change)
        .set("if-match", &etag)
        .await?
        .expect(200)?;
    assert_eq!(changed.at("/name")?, "Ada Lovelace");
    assert_ne!(changed.one("etag")?, etag);
    let again = acme
        .admin
        .get(&location)
        .set("if-none-match", changed.one("etag")?)
        .await?;
    assert_eq!(again.status, 304);

    let put = acme
        .admin
        .call(http::Method::PUT, &location)
        .json(&json!({"name": "A"}))
        .await?
        .expect(200)?;
    assert!(put.at("/born").is_err(), "{put:?}");
    let gone = acme.admin.delete(&location).await?.expect(200)?;
    assert_eq!(gone.at("/deleted")?, 1);
    acme.admin
        .get(&location)
        .await?
        .refused(404, "DOCUMENT_NOT_FOUND")?;
    acme.admin
        .delete(&location)
        .await?
        .refused(404, "DOCUMENT_NOT_FOUND")?;
    let upsert = format!("{path}/7?upsert=true");
    acme.admin
        .call(http::Method::PUT, &upsert)
        .json(&json!({"a": 1}))
        .await?
        .expect(201)?;
    let number = acme.admin.get(&format!("{path}/7")).await?.expect(200)?;
    assert_eq!(number.at("/_id")?, 7);
    Ok(())
}

#[tokio::test]
async fn numbers_and_dates_keep_their_type() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "values");
    let values = json!({
        "int": 7, "long": i64::MAX, "double": 7.0, "tiny": -4.790580620002064e-279,
        "decimal": {"$numberDecimal": "1.10"}, "nan": {"$numberDouble": "NaN"},
        "date": {"$date": "2024-01-15T10:00:00Z"}, "id": {"$oid": "507f1f77bcf86cd799439011"},
        "bytes": {"$binary": {"base64": "AAEC", "subType": "00"}}, "z": 1, "a": [{"y": 1, "b": null}],
    });
    let made = acme.admin.post(&path, &values).await?.expect(201)?;
    let found = acme.admin.get(made.one("location")?).await?.expect(200)?;
    let Value::Object(mut shown) = serde_json::from_str(&found.text())? else {
        panic!("{found:?}")
    };
    shown.shift_remove("_id");
    assert_eq!(Value::Object(shown), values);
    assert!(found.text().contains("\"double\":7.0"), "{found:?}");
    let canonical = acme
        .admin
        .get(&format!("{}?json=canonical", made.one("location")?))
        .await?
        .expect(200)?;
    assert_eq!(canonical.at("/int")?, json!({"$numberInt": "7"}));
    let more = acme.admin.post(&path, &json!({"n": u64::MAX})).await?;
    more.refused(400, "VALIDATION_ERROR")?;
    Ok(())
}

#[tokio::test]
async fn filters_order_and_pages() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "things");
    // Every type in the sorted field, some of them equal, one missing.
    let mut things: Vec<Value> = (0..20)
        .map(|n| json!({"_id": n, "n": n % 5, "tag": "x"}))
        .collect();
    things.extend([
        json!({"_id": 20, "n": "text"}),
        json!({"_id": 21, "n": null}),
        json!({"_id": 22}),
        json!({"_id": 23, "n": true}),
        json!({"_id": 24, "n": {"a": 1}}),
        json!({"_id": 25, "n": {"$date": "2024-01-15T10:00:00Z"}}),
        json!({"_id": 26, "n": {"$numberDouble": "NaN"}}),
        json!({"_id": 27, "n": 2.5}),
    ]);
    let made = acme.admin.post(&path, &json!(things)).await?.expect(201)?;
    assert_eq!(made.at("/inserted")?, 28);
    let ids = async |query: &str| -> Result<Vec<Value>> {
        let page = acme
            .admin
            .get(&format!("{path}?{query}"))
            .await?
            .expect(200)?;
        Ok(page
            .at("/data")?
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["_id"].clone())
            .collect())
    };
    assert_eq!(
        ids("filter.n=gte:4&filter.tag=x&sort=-_id").await?,
        [19, 14, 9, 4]
    );
    assert_eq!(ids("filter.n=text").await?, [20]);
    assert_eq!(ids("filter.n=in:text,true&sort=_id").await?, [20, 23]);
    assert_eq!(ids("filter.n=exists:false").await?, [22]);
    assert_eq!(
        ids("filter=%7B%22$or%22:[%7B%22_id%22:1%7D,%7B%22_id%22:2%7D]%7D").await?,
        [1, 2]
    );
    for sort in ["n", "-n", "tag,-n", "-tag,n", "_id"] {
        let whole = ids(&format!("sort={sort}&limit=100")).await?;
        assert_eq!(whole.len(), 28);
        let mut paged = Vec::new();
        // A subject of its own: each has its own rate.
        let reader = acme.member("tenant_operator").await?;
        let mut cursor = String::new();
        for _ in 0..20 {
            let page = reader
                .get(&format!("{path}?sort={sort}&limit=3&count=none{cursor}"))
                .await?
                .expect(200)?;
            paged.extend(
                page.at("/data")?
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|it| it["_id"].clone()),
            );
            match page.at("/pagination/nextCursor")? {
                Value::String(next) => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        assert_eq!(paged, whole, "sort={sort}");
    }
    let page = acme
        .admin
        .get(&format!("{path}?projection=n,-_id&limit=1&count=estimated"))
        .await?
        .expect(200)?;
    assert_eq!(page.at("/data/0")?, json!({"n": 0}));
    assert_eq!(page.at("/pagination/total")?, 28);
    let forged = acme.admin.get(&format!("{path}?cursor=AAAA")).await?;
    forged.refused(400, "VALIDATION_ERROR")?;
    acme.admin
        .get(&documents(&dev, "nothing"))
        .await?
        .refused(404, "COLLECTION_NOT_FOUND")?;
    Ok(())
}

#[tokio::test]
async fn bulk_is_all_or_nothing() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "items");
    let bulk = path.replace("/documents", "/bulk");
    let operations = json!({"operations": [
        {"insertOne": {"document": {"_id": 1, "n": 1}}},
        {"insertOne": {"document": {"_id": 2, "n": 1}}},
        {"updateMany": {"filter": {"n": 1}, "update": {"$inc": {"n": 1}}}},
        {"updateOne": {"filter": {"_id": 3}, "update": {"$set": {"n": 9}}, "upsert": true}},
        {"replaceOne": {"filter": {"_id": 1}, "replacement": {"n": 5}}},
        {"deleteOne": {"filter": {"_id": 2}}},
    ]});
    let done = acme.admin.post(&bulk, &operations).await?.expect(200)?;
    assert_eq!(done.at("/data/2/modified")?, 2);
    let all = acme
        .admin
        .get(&format!("{path}?sort=_id"))
        .await?
        .expect(200)?;
    assert_eq!(
        all.at("/data")?,
        json!([{"_id": 1, "n": 5}, {"_id": 3, "n": 9}])
    );
    let broken = json!({"operations": [
        {"insertOne": {"document": {"_id": 4}}},
        {"insertOne": {"document": {"_id": 1}}},
    ]});
    let refused = acme.admin.post(&bulk, &broken).await?;
    refused.refused(409, "DUPLICATE_KEY")?;
    assert!(refused.text().contains("operations[1]"), "{refused:?}");
    acme.admin
        .get(&format!("{path}/4"))
        .await?
        .refused(404, "DOCUMENT_NOT_FOUND")?;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_is_named() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "odd");
    acme.admin
        .post(&path, &json!({"_id": "here", "a": "text", "list": [1]}))
        .await?
        .expect(201)?;
    for body in [
        json!({"$where": "1"}),
        json!({"a": {"$gt": 1}}),
        json!({"a.b": 1}),
        json!({"_tenantId": "x"}),
        json!({"_id": [1]}),
        json!({"a": {"$code": "x"}}),
        json!([]),
        json!("text"),
        json!([1]),
        json!({"a\u{0}": 1}),
    ] {
        let refused = acme.admin.post(&path, &body).await?;
        refused
            .refused(400, "VALIDATION_ERROR")
            .map_err(|error| error.context(body.to_string()))?;
    }
    for update in [
        json!({"$inc": {"a": 1}}),
        json!({"$push": {"a": 1}}),
        json!({"$rename": {"a": "_tenantId"}}),
        json!({"$set": {"_workspaceId": "x"}}),
        json!({"$unset": {"_tenantId": 1}}),
        json!({"$set": {"_id": 1}}),
        json!({"$bogus": {"a": 1}}),
    ] {
        let refused = patch(&acme.admin, &format!("{path}/here"), &update).await?;
        refused
            .refused(400, "VALIDATION_ERROR")
            .map_err(|error| error.context(update.to_string()))?;
        assert!(!refused.text().contains("mongodb://"), "{refused:?}");
    }
    let proto = json!({"_id": "p", "__proto__": {"constructor": {"prototype": 1}}});
    acme.admin.post(&path, &proto).await?.expect(201)?;
    let twice = acme.admin.post(&path, &proto).await?;
    twice.refused(409, "DUPLICATE_KEY")?;
    Ok(())
}
