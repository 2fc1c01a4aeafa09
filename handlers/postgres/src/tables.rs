//! `/v1/postgres/:workspaceId/tables`: a workspace's tables without a database shell.

use std::sync::Arc;

use http::StatusCode;
use http::header::LOCATION;
use postern_common::{Call, Failure, Reply};
use postern_contract::Code;
use serde_json::{Value, json};

use crate::catalog::{Catalog, Identity, Kind, Table, is_scope};
use crate::define::{self, Alter, Create};
use crate::execute::{Role, Work};
use crate::family::{Planned, Postgres, Stop};
use crate::parse::shown;
use crate::plan::Unplanned;

/// A table as the API shows it.
fn resource(table: &Table) -> Value {
    let columns = table.columns.iter().map(|column| {
        let identity = column.identity.map(|identity| match identity {
            Identity::Always => "always",
            Identity::ByDefault => "byDefault",
        });
        let filled = is_scope(&column.name);
        json!({
            "name": column.name,
            "type": column.shown_type,
            "nullable": !column.not_null,
            "default": if filled || identity.is_some() { None } else { column.default.as_ref() },
            "identity": identity,
            "generated": column.generated,
            // By the platform: nobody writes it.
            "filled": filled,
        })
    });
    let names = |columns: &[String]| -> Vec<String> {
        let visible = table.visible(columns);
        visible.iter().map(|column| column.name.clone()).collect()
    };
    let unique = table.keys.iter().filter(|key| !key.primary);
    let references = table.references.iter().map(|reference| {
        let target: Vec<_> = reference
            .target_columns
            .iter()
            .filter(|name| !is_scope(name) || reference.target_columns.len() == 1)
            .collect();
        json!({
            "name": reference.name,
            "columns": names(&reference.columns),
            "table": reference.target,
            "references": target,
            "onDelete": match reference.on_delete {
                'r' => "restrict",
                'c' => "cascade",
                'n' => "setNull",
                'd' => "setDefault",
                _ => "noAction",
            },
        })
    });
    let indexes = table.indexes.iter().map(|index| {
        json!({"name": index.name, "method": index.method, "columns": names(&index.columns)})
    });
    let primary: Vec<_> = table
        .primary_key()
        .iter()
        .map(|column| column.name.clone())
        .collect();
    json!({
        "name": table.name,
        "kind": match table.kind {
            Kind::Table => "table",
            Kind::Partitioned => "partitioned",
            Kind::View => "view",
            Kind::Materialized => "materializedView",
            Kind::Foreign => "foreign",
        },
        "protected": table.protected,
        "comment": table.comment,
        "columns": columns.collect::<Vec<_>>(),
        "primaryKey": primary,
        "unique": unique.map(|key| names(&key.columns)).collect::<Vec<_>>(),
        "foreignKeys": references.collect::<Vec<_>>(),
        "indexes": indexes.collect::<Vec<_>>(),
    })
}

/// `GET tables`: all of them on one page, as a plan bounds how many are made.
pub(crate) async fn list(app: Arc<Postgres>, call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    call.query()?.finish()?;
    let live = app.catalog(&session).await?;
    let tables = live.catalog.tables();
    let tables: Vec<_> = tables.into_iter().map(|table| resource(table)).collect();
    let count = tables.len();
    Reply::json(
        StatusCode::OK,
        &json!({"data": tables, "pagination": {"limit": count, "nextCursor": null}}),
    )
}

/// `GET tables/:table`
pub(crate) async fn get(app: Arc<Postgres>, call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    call.query()?.finish()?;
    let name = call.param("table").to_owned();
    let name = &name;
    app.reading(&session, |catalog| async move {
        let Some(table) = catalog.table(name) else {
            return Err(Stop::Unplanned(Unplanned::NoTable(name.clone())));
        };
        Reply::json(StatusCode::OK, &resource(table))
            .map_err(|failure| Stop::Fault(failure.into(), None))
    })
    .await
}

/// `POST tables`
pub(crate) async fn create(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    call.query()?.finish()?;
    let (body, fields) = call.json().await?;
    let wanted = Create::read(&body, fields)?;
    let quota = app.quotas.tables(session.tenant).await?;
    let roles = [session.role(Role::Data), session.role(Role::Owner)];
    let (name, location) = (
        wanted.name.clone(),
        format!("/v1/postgres/{}/tables/{}", session.workspace, wanted.name),
    );
    let (schema, tenant) = (session.schema.clone(), session.tenant);
    let reply = app
        .mutate(&call, session, &body, move |catalog| {
            let [data, owner] = &roles;
            let definitions = define::create(catalog, &wanted, [data, owner])?;
            let (name, location) = (name.clone(), location.clone());
            Ok(Planned {
                work: Work::Tables { definitions, quota },
                table: None,
                removes: false,
                answer: Box::new(move |done| {
                    let made = done
                        .catalog
                        .as_ref()
                        .and_then(|catalog| catalog.table(&name));
                    let made =
                        made.ok_or_else(|| Failure::internal("a table that was made is missing"))?;
                    Ok(Reply::json(StatusCode::CREATED, &resource(made))?
                        .with_header(LOCATION, &location))
                }),
            })
        })
        .await?;
    changed(&app, &schema, tenant).await;
    Ok(reply)
}

/// `PATCH tables/:table`
pub(crate) async fn alter(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    call.query()?.finish()?;
    let (body, fields) = call.json().await?;
    let wanted = Alter::read(&body, fields)?;
    let name = call.param("table").to_owned();
    let (schema, tenant) = (session.schema.clone(), session.tenant);
    let reply = app
        .mutate(&call, session, &body, move |catalog| {
            let table = own(catalog, &name)?;
            let definitions = define::alter(catalog, table, &wanted)?;
            let name = name.clone();
            Ok(Planned {
                work: Work::Tables {
                    definitions,
                    quota: None,
                },
                table: Some(Arc::clone(table)),
                removes: false,
                answer: Box::new(move |done| {
                    let altered = done
                        .catalog
                        .as_ref()
                        .and_then(|catalog| catalog.table(&name));
                    let altered = altered.ok_or_else(|| no_table(&name))?;
                    Reply::json(StatusCode::OK, &resource(altered))
                }),
            })
        })
        .await?;
    changed(&app, &schema, tenant).await;
    Ok(reply)
}

/// A table whose definition the workspace may change: it serves it and owns it.
fn own<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c Arc<Table>, Unplanned> {
    match catalog.table(name) {
        None => Err(Unplanned::NoTable(name.to_owned())),
        Some(table) if !table.protected => Err(Unplanned::NotProtected(name.to_owned())),
        Some(table) if !table.own => Err(Unplanned::NotOwn(name.to_owned())),
        Some(table) => Ok(table),
    }
}

fn no_table(name: &str) -> Failure {
    Failure::new(
        Code::TableNotFound,
        format!("there is no table {}", shown(name)),
    )
}

/// `DELETE tables/:table`
pub(crate) async fn drop_table(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    call.query()?.finish()?;
    let body = call.body().await?;
    let name = call.param("table").to_owned();
    let (schema, tenant) = (session.schema.clone(), session.tenant);
    let reply = app
        .mutate(&call, session, &body, move |catalog| {
            let table = own(catalog, &name)?;
            let shown = resource(table);
            Ok(Planned {
                work: Work::Tables {
                    definitions: define::drop_table(table),
                    quota: None,
                },
                table: Some(Arc::clone(table)),
                removes: true,
                answer: Box::new(move |_| Reply::json(StatusCode::OK, &shown)),
            })
        })
        .await?;
    changed(&app, &schema, tenant).await;
    Ok(reply)
}

/// The next request here sees it at once; others are told by the database. The tenant's
/// use is written down.
async fn changed(app: &Postgres, schema: &str, tenant: postern_contract::TenantId) {
    app.catalogs.changed(schema);
    match app.db.tables_of(tenant).await {
        Ok(tables) => app.quotas.used(tenant, tables).await,
        Err(error) => tracing::warn!(%error, "a tenant's tables were not counted"),
    }
}
