//! Two tenants, and two roles of one.

use anyhow::Result;
use serde_json::json;

use super::{notes, rows, stack, tables, workspace};

#[tokio::test]
async fn a_tenant_sees_nothing_of_another() -> Result<()> {
    let stack = stack().await;
    let (acme, umbrella) = (
        stack.with_tenant("acme").await?,
        stack.with_tenant("umbrella").await?,
    );
    let (mine, theirs) = (workspace(&acme).await?, workspace(&umbrella).await?);
    for (tenant, own, text) in [
        (&acme, &mine, "of acme"),
        (&umbrella, &theirs, "of umbrella"),
    ] {
        notes(tenant, own).await?;
        let row = json!({"text": text});
        tenant
            .admin
            .post(&rows(own, "notes"), &row)
            .await?
            .expect(201)?;
    }
    let found = acme.admin.get(&rows(&mine, "notes")).await?.expect(200)?;
    assert_eq!(found.at("/pagination/total")?, 1);
    assert_eq!(found.at("/data/0/text")?, "of acme");
    for path in [
        rows(&theirs, "notes"),
        tables(&theirs),
        format!("{}/notes", tables(&theirs)),
    ] {
        let refused = acme.admin.get(&path).await?;
        refused.refused(404, "WORKSPACE_NOT_FOUND")?;
    }
    let row = json!({"text": "of acme"});
    let refused = acme.admin.post(&rows(&theirs, "notes"), &row).await?;
    refused.refused(404, "WORKSPACE_NOT_FOUND")?;
    let path = format!("{}?text=like.*", rows(&theirs, "notes"));
    let refused = acme.admin.delete(&path).await?;
    refused.refused(404, "WORKSPACE_NOT_FOUND")?;
    let left = umbrella
        .admin
        .get(&rows(&theirs, "notes"))
        .await?
        .expect(200)?;
    assert_eq!(left.at("/pagination/total")?, 1);
    Ok(())
}

#[tokio::test]
async fn an_operator_reads_and_changes_nothing() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    notes(&acme, &dev).await?;
    let operator = acme.member("tenant_operator").await?;
    operator.get(&rows(&dev, "notes")).await?.expect(200)?;
    let row = json!({"text": "x"});
    let refused = operator.post(&rows(&dev, "notes"), &row).await?;
    refused.refused(403, "ROLE_DENIED")?;
    Ok(())
}

#[tokio::test]
async fn the_plan_bounds_the_tables() -> Result<()> {
    let acme = stack().await.with_tenant_of("starter", "acme").await?;
    let dev = workspace(&acme).await?;
    for n in 0..20 {
        let table = json!({"name": format!("t{n}"), "columns": [{"name": "a", "type": "text"}]});
        acme.admin.post(&tables(&dev), &table).await?.expect(201)?;
    }
    let table = json!({"name": "one_more", "columns": [{"name": "a", "type": "text"}]});
    let refused = acme.admin.post(&tables(&dev), &table).await?;
    refused.refused(403, "QUOTA_EXCEEDED")?;
    let usage = acme
        .admin
        .get(&format!("{}/usage", acme.path()))
        .await?
        .expect(200)?;
    assert!(
        usage
            .text()
            .contains(r#""quota":"tables","used":20,"limit":20"#),
        "{usage:?}"
    );
    Ok(())
}
