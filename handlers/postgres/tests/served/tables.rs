//! From an empty workspace to a query, without a database shell.

use http::Method;
use serde_json::{Value, json};

use postern_served::Ask;

use crate::support::{Served, Workspace, bounds};

fn customers() -> Value {
    json!({"name": "customers", "comment": "who buys", "columns": [
        {"name": "id", "type": "bigint", "identity": "byDefault", "primaryKey": true},
        {"name": "name", "type": "text", "nullable": false},
        {"name": "email", "type": "varchar(100)", "unique": true},
        {"name": "joined", "type": "timestamptz", "default": "now()"},
        {"name": "token", "type": "uuid", "default": "gen_random_uuid()"},
        {"name": "quote", "type": "text", "default": "it's \\ 'so'"},
        {"name": "score", "type": "numeric(5,2)", "default": 1.5},
        {"name": "tags", "type": "text[]"},
    ]})
}

fn orders() -> Value {
    json!({"name": "orders", "columns": [
        {"name": "id", "type": "bigint", "identity": true, "primaryKey": true},
        {"name": "customer_id", "type": "bigint", "references": {"table": "customers", "onDelete": "setNull"}},
        {"name": "total", "type": "numeric(12,2)", "default": 0},
        {"name": "data", "type": "jsonb", "default": {"a": 1}},
    ], "indexes": [{"columns": ["data"], "method": "gin"}]})
}

async fn made(served: &Served) -> Workspace {
    let workspace = served.workspace().await;
    for table in [customers(), orders()] {
        let answer = served.post(&workspace, "tables", &table).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    workspace
}

#[tokio::test]
async fn made_filled_and_queried() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    assert_eq!(
        served.get(&workspace, "tables").await.ok()["data"],
        json!([])
    );
    let answer = served.post(&workspace, "tables", &customers()).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(
        location,
        format!("/v1/postgres/{}/tables/customers", workspace.id)
    );
    let table = answer.ok();
    assert_eq!(table["protected"], true);
    assert_eq!(table["primaryKey"], json!(["id"]));
    assert_eq!(table["unique"], json!([["email"]]));
    assert_eq!(table["comment"], "who buys");
    served.post(&workspace, "tables", &orders()).await.ok();
    // At once, without waiting for anybody to be told.
    let rows = json!([{"name": "Ada", "email": "ada@example.com"}, {"name": "Bob"}]);
    let rows = served.post(&workspace, "rows/customers", &rows).await.ok();
    assert_eq!(rows["inserted"], 2);
    assert_eq!(rows["data"][0]["quote"], "it's \\ 'so'");
    assert_eq!(rows["data"][0]["tenant_id"], workspace.tenant.to_string());
    let order = json!({"customer_id": 1, "total": "9.50"});
    served.post(&workspace, "rows/orders", &order).await.ok();
    let page = served
        .get(
            &workspace,
            "rows/customers?select=name,orders(total,data)&order=id",
        )
        .await;
    assert!(
        page.text()
            .contains("[{\"total\":9.50,\"data\":{\"a\": 1}}]"),
        "{page:?}"
    );
    let list = served.get(&workspace, "tables").await.ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        served.get(&workspace, "tables/orders").await.ok()["foreignKeys"][0]["table"],
        "customers"
    );
    // A reference that is set to null leaves the workspace alone.
    Ask::new(&workspace, Method::DELETE, "rows/customers/1")
        .send(&served)
        .await
        .ok();
    let left = served
        .get(&workspace, "rows/orders?select=customer_id,workspace_id")
        .await
        .ok();
    assert_eq!(
        left["data"],
        json!([{"customer_id": null, "workspace_id": workspace.id.to_string()}])
    );
}

/// Keys hold the workspace: rows of others in the same table conflict with nobody.
#[tokio::test]
async fn keys_tell_nothing_of_others() {
    let served = Served::new().await;
    let workspace = made(&served).await;
    served
        .seed(
            &workspace,
            "INSERT INTO customers (id, name, email, tenant_id, workspace_id) VALUES (7, 'x', 'x@example.com', 'tnt_other', 'wks_other')",
        )
        .await;
    let row = json!({"id": 7, "name": "mine", "email": "x@example.com"});
    assert_eq!(
        served.post(&workspace, "rows/customers", &row).await.status,
        201
    );
    let order = json!({"customer_id": 8});
    let answer = served.post(&workspace, "rows/orders", &order).await;
    assert_eq!(answer.refused(), (422, "FOREIGN_KEY_VIOLATION".into()));
    let again = json!({"id": 9, "name": "mine", "email": "x@example.com"});
    let answer = served.post(&workspace, "rows/customers", &again).await;
    assert_eq!(answer.refused(), (409, "DUPLICATE_KEY".into()));
    assert!(answer.text().contains("this email"), "{answer:?}");
    let merged = Ask::new(
        &workspace,
        Method::POST,
        "rows/customers?onConflict=email&select=id,name",
    )
    .header("prefer", "resolution=merge-duplicates")
    .json(&json!({"id": 7, "name": "merged", "email": "x@example.com"}))
    .send(&served)
    .await
    .ok();
    assert_eq!(merged["data"], json!([{"id": 7, "name": "merged"}]));
    let theirs = "SELECT name FROM $schema.customers WHERE workspace_id = 'wks_other'";
    assert_eq!(served.text(&workspace, theirs).await.as_deref(), Some("x"));
}

#[tokio::test]
async fn altered() {
    let served = Served::new().await;
    let workspace = made(&served).await;
    let patch = |body: Value| Ask::new(&workspace, Method::PATCH, "tables/customers").json(&body);
    let table = patch(json!({
        "dropColumns": ["tags"], "renameColumns": {"quote": "motto"},
        "addColumns": [{"name": "vip", "type": "boolean", "default": false, "nullable": false}],
        "addUnique": [["name", "email"]], "comment": "new",
    }))
    .send(&served)
    .await
    .ok();
    let names: Vec<_> = table["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"motto") && names.contains(&"vip") && !names.contains(&"tags"),
        "{names:?}"
    );
    served
        .get(&workspace, "rows/customers?select=motto,vip")
        .await
        .ok();
    for (body, status) in [
        (json!({}), 400),
        (json!({"dropColumns": ["nope"]}), 400),
        (json!({"dropColumns": ["tenant_id"]}), 400),
        (json!({"renameColumns": {"name": "workspace_id"}}), 400),
        (json!({"addColumns": [{"name": "id", "type": "text"}]}), 409),
        (json!({"surprise": 1}), 400),
    ] {
        assert_eq!(
            patch(body.clone()).send(&served).await.refused().0,
            status,
            "{body}"
        );
    }
    let refers = Ask::new(&workspace, Method::DELETE, "tables/customers")
        .send(&served)
        .await;
    assert_eq!(refers.refused(), (409, "FOREIGN_KEY_VIOLATION".into()));
    for table in ["orders", "customers"] {
        Ask::new(&workspace, Method::DELETE, &format!("tables/{table}"))
            .send(&served)
            .await
            .ok();
        assert_eq!(
            served
                .get(&workspace, &format!("tables/{table}"))
                .await
                .refused()
                .0,
            404
        );
    }
}

#[tokio::test]
async fn nothing_of_a_definition_becomes_sql() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let column = |column: Value| json!({"name": "t", "columns": [column]});
    for body in [
        json!({"name": "t; DROP SCHEMA public", "columns": [{"name": "a", "type": "text"}]}),
        json!({"name": "t\"", "columns": [{"name": "a", "type": "text"}]}),
        json!({"name": "x".repeat(64), "columns": [{"name": "a", "type": "text"}]}),
        json!({"name": "t", "columns": []}),
        json!({"name": "t"}),
        column(json!({"name": "a b", "type": "text"})),
        column(json!({"name": "a", "type": "text); DROP TABLE x; --"})),
        column(json!({"name": "a", "type": "regclass"})),
        column(json!({"name": "a", "type": "varchar(0)"})),
        column(json!({"name": "a", "type": "text", "default": {"sql": "now()"}})),
        column(json!({"name": "a", "type": "text", "default": "a\u{0}b"})),
        column(json!({"name": "a", "type": "text", "identity": true})),
        column(json!({"name": "a", "type": "text", "check": "a > 1"})),
        column(json!({"name": "tenant_id", "type": "text"})),
        column(json!({"name": "a", "type": "int", "references": {"table": "pg_class"}})),
        json!({"name": "t", "columns": [{"name": "a", "type": "text"}], "primaryKey": ["b"]}),
        json!({"name": "t", "columns": [{"name": "a", "type": "text"}, {"name": "a", "type": "text"}]}),
        json!([1]),
    ] {
        let answer = served.post(&workspace, "tables", &body).await;
        assert_eq!(answer.refused().0, 400, "{body}: {answer:?}");
    }
    // A default that looks like SQL is the text that it is.
    let sly = "'); DROP TABLE t; --";
    let body = column(json!({"name": "a", "type": "text", "default": sly}));
    served.post(&workspace, "tables", &body).await.ok();
    let row = served.post(&workspace, "rows/t", &json!({})).await.ok();
    assert_eq!(row["data"][0]["a"], sly);
    let wrong = json!({"name": "u", "columns": [{"name": "a", "type": "int", "default": "many"}]});
    assert_eq!(
        served.post(&workspace, "tables", &wrong).await.refused().0,
        400
    );
    let twice = served.post(&workspace, "tables", &body).await;
    assert_eq!(twice.refused(), (409, "DUPLICATE_KEY".into()));
}

#[tokio::test]
async fn as_many_as_the_plan_has() {
    let served = Served::with(bounds(), Some(2), true).await;
    let first = made(&served).await;
    let second = served.workspace_of(first.tenant).await;
    let table = json!({"name": "t", "columns": [{"name": "a", "type": "text"}]});
    let answer = served.post(&second, "tables", &table).await;
    assert_eq!(answer.refused(), (403, "QUOTA_EXCEEDED".into()));
    Ask::new(&first, Method::DELETE, "tables/orders")
        .send(&served)
        .await
        .ok();
    served.post(&second, "tables", &table).await.ok();
}

/// The table that a retry asks for again was made once.
#[tokio::test]
async fn a_repeated_definition_is_replayed() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let post = || {
        Ask::new(&workspace, Method::POST, "tables")
            .header("idempotency-key", "k-table")
            .json(&customers())
    };
    let first = post().send(&served).await;
    let again = post().send(&served).await;
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(again.headers["x-idempotency-replayed"], "true");
}

/// Keys and indexes share their names with everything in a schema: none that the client
/// did not choose stands in the way of a table.
#[tokio::test]
async fn names_never_collide() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let id = json!({"name": "id", "type": "bigint", "primaryKey": true});
    let long = "x".repeat(62);
    for body in [
        json!({"name": "role", "columns": [id]}),
        json!({"name": "usr", "columns": [id, {"name": "role_id", "type": "bigint", "references": {"table": "role"}}]}),
        json!({"name": "usr_role", "columns": [id, {"name": "id2", "type": "bigint"}],
               "foreignKeys": [{"columns": ["id"], "table": "usr"}]}),
        json!({"name": "ordr", "columns": [{"name": "item_code", "type": "text", "unique": true}]}),
        json!({"name": "ordr_item", "columns": [{"name": "code", "type": "text", "unique": true}]}),
        json!({"name": "role_pkey2", "columns": [id]}),
        json!({"name": "pairs", "columns": [{"name": "a", "type": "int"}, {"name": "b_c", "type": "int"},
               {"name": "a_b", "type": "int"}, {"name": "c", "type": "int"}, {"name": "j", "type": "jsonb"}],
               "unique": [["a", "b_c"], ["a_b", "c"]],
               "indexes": [{"columns": ["c"]}, {"columns": ["c"], "method": "hash"}]}),
        json!({"name": "twins", "columns": [{"name": "a", "type": "int"}, {"name": "b_c", "type": "int"},
               {"name": "a_b", "type": "int"}, {"name": "c", "type": "int"}],
               "foreignKeys": [{"columns": ["a", "b_c"], "table": "pairs", "references": ["a", "b_c"]},
                               {"columns": ["a_b", "c"], "table": "pairs", "references": ["a", "b_c"]}]}),
        json!({"name": format!("{long}a"), "columns": [id]}),
        json!({"name": format!("{long}b"), "columns": [id]}),
    ] {
        let answer = served.post(&workspace, "tables", &body).await;
        assert_eq!(answer.status, 201, "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn a_table_refers_to_itself_by_a_key_only() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let tree = |target: Value| {
        json!({"name": "tree", "columns": [
            {"name": "id", "type": "bigint", "primaryKey": true}, {"name": "code", "type": "text", "unique": true},
            {"name": "free", "type": "text"},
            {"name": "up", "type": "text", "references": {"table": "tree", "column": target}},
        ]})
    };
    for target in ["free", "nope"] {
        let answer = served
            .post(&workspace, "tables", &tree(json!(target)))
            .await;
        assert_eq!(answer.refused().0, 400, "{answer:?}");
    }
    served
        .post(&workspace, "tables", &tree(json!("code")))
        .await
        .ok();
    let keyless = json!({"name": "k", "columns": [{"name": "up", "type": "text", "references": {"table": "k"}}]});
    let answer = served.post(&workspace, "tables", &keyless).await;
    assert_eq!(answer.refused().0, 400, "{answer:?}");
}

#[tokio::test]
async fn defaults_keep_their_digits() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let body = r#"{"name": "t", "columns": [{"name": "a", "type": "int"},
        {"name": "n", "type": "numeric", "default": 1234567890123456789012345678901234567890},
        {"name": "j", "type": "json", "default": {"e": 1.10, "k": 1111111111111111111111111111111111111111}}]}"#;
    Ask::new(&workspace, Method::POST, "tables")
        .body("application/json", body)
        .send(&served)
        .await
        .ok();
    let row = served.post(&workspace, "rows/t", &json!({"a": 1})).await;
    for digits in [
        "1234567890123456789012345678901234567890",
        r#"{"e": 1.10, "k": 1111111111111111111111111111111111111111}"#,
    ] {
        assert!(row.text().contains(digits), "{row:?}");
    }
}

/// What the operator made is the operator's, wherever it stands.
#[tokio::test]
async fn the_operators_relations_stay() {
    let served = Served::new().await;
    let workspace = made(&served).await;
    served
        .seed(
            &workspace,
            "RESET ROLE; CREATE VIEW bare AS SELECT id FROM customers;
             CREATE VIEW invoked WITH (security_invoker) AS SELECT id FROM customers;
             CREATE MATERIALIZED VIEW kept AS SELECT 1 AS id; CREATE TABLE open (id int);",
        )
        .await;
    for (name, code) in [
        ("bare", "TABLE_NOT_PROTECTED"),
        ("invoked", "PERMISSION_DENIED"),
        ("kept", "TABLE_NOT_PROTECTED"),
        ("open", "TABLE_NOT_PROTECTED"),
    ] {
        let path = format!("tables/{name}");
        let drop = Ask::new(&workspace, Method::DELETE, &path);
        assert_eq!(drop.send(&served).await.refused(), (403, code.into()));
        let alter = Ask::new(&workspace, Method::PATCH, &path).json(&json!({"comment": "mine"}));
        assert_eq!(alter.send(&served).await.refused(), (403, code.into()));
    }
    let left = "SELECT count(*)::text FROM pg_class WHERE relnamespace = '$schema'::regnamespace
                AND relname IN ('bare', 'invoked', 'kept', 'open')";
    assert_eq!(served.text(&workspace, left).await.as_deref(), Some("4"));
}

#[tokio::test]
async fn names_are_not_exchanged_in_one_request() {
    let served = Served::new().await;
    let workspace = made(&served).await;
    let answer = Ask::new(&workspace, Method::PATCH, "tables/customers")
        .json(&json!({"renameColumns": {"name": "quote", "quote": "name"}}))
        .send(&served)
        .await;
    assert_eq!(answer.refused().0, 400);
    assert!(answer.text().contains("renameColumns"), "{answer:?}");
}
