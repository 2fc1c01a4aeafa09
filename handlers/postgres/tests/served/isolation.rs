//! What one tenant can never see, change, or learn of another.

use http::Method;
use serde_json::{Value, json};

use crate::both_ways;
use crate::cases::seeded;
use postern_served::Ask;

use crate::support::{Served, Way, bounds};

both_ways!(
    a_workspace_of_another_tenant_is_none,
    rows_of_others_in_a_shared_table,
    two_tenants_interleaved_on_a_small_pool,
    roles_reach_only_their_own,
    refusals_tell_nothing_of_the_database,
);

async fn a_workspace_of_another_tenant_is_none(way: Way) {
    let served = Served::by(way, bounds()).await;
    let (mine, theirs) = (seeded(&served).await, seeded(&served).await);
    for (method, path) in [
        (Method::GET, "rows/customers"),
        (Method::GET, "rows/customers/1"),
        (Method::GET, "tables"),
        (Method::DELETE, "rows/lines?order_id=eq.10"),
        (Method::POST, "rpc/who"),
    ] {
        let ask = Ask::new(&theirs, method, path).of_tenant(mine.tenant);
        let answer = ask.json(&json!({})).send(&served).await;
        assert_eq!(
            answer.refused(),
            (404, "WORKSPACE_NOT_FOUND".into()),
            "{path}"
        );
    }
    let left = "SELECT count(*)::text FROM $schema.lines";
    assert_eq!(served.text(&theirs, left).await.as_deref(), Some("4"));
}

/// Rows of others in the same table, as an operator may keep them: the policy alone
/// stands between.
async fn rows_of_others_in_a_shared_table(way: Way) {
    let served = Served::by(way, bounds()).await;
    let mine = seeded(&served).await;
    served
        .seed(
            &mine,
            "INSERT INTO labels (id, name, tenant_id, workspace_id) VALUES
                 (50, 'theirs', 'tnt_other', 'wks_other'), (51, 'other workspace', current_setting('app.tenant_id'), 'wks_other')",
        )
        .await;
    let all = served
        .get(&mine, "rows/labels?select=id&order=id")
        .await
        .ok();
    assert_eq!(all["data"], json!([{"id": 1}, {"id": 2}, {"id": 3}]));
    assert_eq!(all["pagination"]["total"], 3);
    for count in ["exact", "planned", "estimated"] {
        let page = served
            .get(&mine, &format!("rows/labels?id=eq.50&count={count}"))
            .await
            .ok();
        assert_eq!(page["data"], json!([]), "{count}");
    }
    assert_eq!(served.get(&mine, "rows/labels/50").await.refused().0, 404);
    let change = |method, path: &str| Ask::new(&mine, method, path).json(&json!({"name": "x"}));
    let updated = change(Method::PATCH, "rows/labels?id=gte.50")
        .send(&served)
        .await
        .ok();
    assert_eq!(updated["updated"], 0);
    let deleted = change(Method::DELETE, "rows/labels?id=gte.50")
        .send(&served)
        .await
        .ok();
    assert_eq!(deleted["deleted"], 0);
    let embedded = served
        .get(&mine, "rows/products?select=labels(id)&id=eq.100")
        .await
        .ok();
    assert_eq!(
        embedded["data"],
        json!([{"labels": [{"id": 1}, {"id": 2}]}])
    );
}

/// Connections are shared by everybody, and nothing of a request stays on one.
async fn two_tenants_interleaved_on_a_small_pool(way: Way) {
    let small = postern_postgres::Bounds {
        connections: 2,
        tenant_connections: 2,
        ..bounds()
    };
    let served = Served::by(way, small).await;
    let workspaces = [seeded(&served).await, seeded(&served).await];
    for workspace in &workspaces {
        let name = format!("{}", workspace.tenant);
        let row = json!({"id": 100, "name": name});
        served.post(workspace, "rows/labels", &row).await.ok();
    }
    let asks = (0..200).map(|n| {
        let (served, workspace) = (&served, workspaces[n % 2]);
        async move {
            let own = workspace.tenant.to_string();
            match n % 3 {
                0 => {
                    let row = served.get(&workspace, "rows/labels/100").await.ok();
                    assert_eq!(row["name"], *own);
                    assert_eq!(row["tenant_id"], *own);
                }
                1 => {
                    let who = served.post(&workspace, "rpc/who", &json!({})).await.ok();
                    assert_eq!(who["data"], format!("{}_data user-1", workspace.schema()));
                }
                // A failure in the middle leaves nothing behind either.
                _ => {
                    let answer = served.get(&workspace, "rows/labels?id=eq.x").await;
                    assert_eq!(answer.refused().0, 400);
                }
            }
        }
    });
    futures::future::join_all(asks).await;
}

/// The data login alone reaches no workspace, and no workspace's role the records.
async fn roles_reach_only_their_own(way: Way) {
    let served = Served::by(way, bounds()).await;
    let (mine, theirs) = (seeded(&served).await, seeded(&served).await);
    let allowed = async |role: &str, what: String| -> Option<String> {
        let sql = format!("SELECT {what}::text FROM pg_roles WHERE rolname = '{role}'");
        served.text(&mine, &sql).await
    };
    let data = format!("{}_data", mine.schema());
    for table in [
        "postern_data.record",
        "postern_data.kept",
        "postern_data.workspace",
    ] {
        for right in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
            let what = format!("has_table_privilege(rolname, '{table}', '{right}')");
            assert_eq!(
                allowed(&data, what).await.as_deref(),
                Some("false"),
                "{table} {right}"
            );
        }
    }
    let other = format!(
        "has_schema_privilege(rolname, '{}', 'USAGE')",
        theirs.schema()
    );
    assert_eq!(
        allowed(&data, other.clone()).await.as_deref(),
        Some("false")
    );
    assert_eq!(
        allowed("postern_data", other).await.as_deref(),
        Some("false")
    );
    let what = "(rolsuper OR rolbypassrls OR rolinherit OR rolcreaterole)".to_owned();
    assert_eq!(
        allowed("postern_data", what).await.as_deref(),
        Some("false")
    );
    let member = format!("pg_has_role(rolname, '{}_data', 'MEMBER')", theirs.schema());
    assert_eq!(allowed(&data, member).await.as_deref(), Some("false"));
}

async fn refusals_tell_nothing_of_the_database(way: Way) {
    let served = Served::by(way, bounds()).await;
    let mine = seeded(&served).await;
    let dirty = [
        "SELECT",
        "postern",
        "ws_",
        "pg_",
        "127.0.0.1",
        "relation",
        "syntax",
    ];
    for path in [
        "rows/customers?id=eq.x",
        "rows/customers?name=match.(",
        "rows/unguarded",
        "rows/nope",
        "rows/customers?select=nope",
        "rows/customers?id=cs.{1}",
        "rows/transfers?select=customers(id)",
    ] {
        let answer = served.get(&mine, path).await;
        let error: Value = answer.json()["error"].clone();
        let told = error["message"].as_str().unwrap();
        for word in dirty {
            assert!(!told.contains(word), "{path}: {told}");
        }
    }
}
