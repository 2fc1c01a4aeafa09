//! Cursors: every row once, in order, whatever is inserted meanwhile.

use serde_json::{Value, json};

use crate::cases::seeded;
use crate::support::{Served, Workspace};

/// Rows with every mix of nulls and doubles in two keys.
async fn mixed(served: &Served) -> Workspace {
    let workspace = seeded(served).await;
    let sql = "INSERT INTO things (id, i8, d) SELECT n, CASE n % 4 WHEN 0 THEN NULL ELSE n % 3 END, \
               CASE WHEN n % 5 = 0 THEN NULL ELSE date '2024-01-01' + (n % 7) END FROM generate_series(100, 160) n";
    served.seed(&workspace, sql).await;
    workspace
}

async fn walk(served: &Served, workspace: &Workspace, query: &str, limit: usize) -> Vec<Value> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = served
            .get(
                workspace,
                &format!("rows/things?{query}&limit={limit}{cursor}"),
            )
            .await
            .ok();
        let data = page["data"].as_array().unwrap().clone();
        assert!(data.len() <= limit);
        found.extend(data);
        match page["pagination"]["nextCursor"].as_str() {
            Some(next) => {
                assert_eq!(page["pagination"]["hasMore"], true);
                cursor = format!("&cursor={next}");
            }
            None => {
                assert_eq!(page["pagination"]["hasMore"], false);
                return found;
            }
        }
    }
}

#[tokio::test]
async fn every_direction_and_every_null() {
    let served = Served::new().await;
    let workspace = mixed(&served).await;
    for order in [
        "i8",
        "i8.desc",
        "i8.nullsfirst",
        "i8.desc.nullslast",
        "i8,d.desc",
        "i8.desc,d",
        "i8.nullsfirst,d.desc.nullslast",
        "i8.desc.nullslast,d.nullsfirst,id.desc",
        "id",
        "id.desc",
        "d,i8.desc.nullsfirst",
        "i8.desc.nullslast,d.desc.nullslast,id.desc",
    ] {
        let query = format!("select=id&order={order}");
        let whole = served
            .get(&workspace, &format!("rows/things?{query}&limit=1000"))
            .await
            .ok();
        let walked = walk(&served, &workspace, &query, 7).await;
        assert_eq!(json!(walked), whole["data"], "{order}");
    }
}

#[tokio::test]
async fn by_paths_and_by_embedded_columns() {
    let served = Served::new().await;
    let workspace = seeded(&served).await;
    for query in [
        "rows/customers?select=id&order=meta->>age.desc.nullslast",
        "rows/orders?select=id,customers(name)&order=customers(name).desc.nullsfirst,total",
    ] {
        let whole = served.get(&workspace, query).await.ok();
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = served
                .get(&workspace, &format!("{query}&limit=1{cursor}"))
                .await
                .ok();
            found.extend(page["data"].as_array().unwrap().clone());
            match page["pagination"]["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(json!(found), whole["data"], "{query}");
    }
}

#[tokio::test]
async fn stable_under_inserts() {
    let served = Served::new().await;
    let workspace = mixed(&served).await;
    let first = served
        .get(&workspace, "rows/things?select=id&order=id.desc&limit=5")
        .await
        .ok();
    let cursor = first["pagination"]["nextCursor"]
        .as_str()
        .unwrap()
        .to_owned();
    for id in 1000..1010 {
        served
            .post(&workspace, "rows/things", &json!({"id": id}))
            .await
            .ok();
    }
    let path = format!("rows/things?select=id&order=id.desc&limit=5&cursor={cursor}");
    let second = served.get(&workspace, &path).await.ok();
    assert_eq!(first["data"][4], json!({"id": 156}));
    assert_eq!(second["data"][0], json!({"id": 155}));
    // The total is of all rows there are now, whatever the page.
    assert_eq!(second["pagination"]["total"], 3 + 61 + 10);
}

#[tokio::test]
async fn a_cursor_is_for_its_list_alone() {
    let served = Served::new().await;
    let (workspace, other) = (mixed(&served).await, mixed(&served).await);
    let first = served
        .get(&workspace, "rows/things?select=id&order=i8&limit=5")
        .await
        .ok();
    let cursor = first["pagination"]["nextCursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let forged = if cursor.starts_with('A') { "B" } else { "A" };
    let with = |query: &str, cursor: &str| format!("rows/things?select=id&{query}&cursor={cursor}");
    for (workspace, path) in [
        (&workspace, with("order=i8.desc", &cursor)),
        (&workspace, with("order=i8&id=gt.1", &cursor)),
        (&other, with("order=i8", &cursor)),
        (&workspace, with("order=i8", &cursor[1..])),
        (
            &workspace,
            with("order=i8", &format!("{forged}{}", &cursor[1..])),
        ),
        (&workspace, format!("rows/labels?cursor={cursor}")),
    ] {
        let answer = served.get(workspace, &path).await;
        assert_eq!(answer.refused(), (400, "VALIDATION_ERROR".into()), "{path}");
    }
    // Another page size and other columns are the same list.
    let path = format!("rows/things?select=id,d&order=i8&limit=3&cursor={cursor}");
    assert_eq!(
        served.get(&workspace, &path).await.ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}
