//! `POST /v1/postgres/:workspaceId/rpc/:function`: functions that the operator has
//! installed in the workspace's schema and opened to its role.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use postern_common::{Call, Failure, Reply};

use crate::execute::Work;
use crate::family::{Planned, Postgres};
use crate::parse::{Shape, Verb};
use crate::{rows, sql};

/// Calls a function: `{"data": …}`, a list where it gives rows.
pub(crate) async fn call(app: Arc<Postgres>, mut call: Call) -> Result<Reply, Failure> {
    let session = app.session(&call)?;
    let (ask, shape) = (rows::ask(&call, Verb::Call)?, rows::shape(&call)?);
    let body = call.body().await?;
    let (name, sent, app_) = (
        call.param("function").to_owned(),
        body.clone(),
        Arc::clone(&app),
    );
    let most = app.db.bounds.max_answer;
    app.mutate(&call, session, &body, move |catalog| {
        let plan = app_.planner(catalog).call(&name, &ask, &sent)?;
        let function = &plan.source.function;
        let (set, void) = (function.returns_set, function.returns_void);
        Ok(Planned {
            work: Work::Rows(Box::new(sql::call(&plan, most)?), None),
            table: plan.rows.as_ref().map(|rows| Arc::clone(&rows.table)),
            removes: false,
            answer: Box::new(move |done| {
                let text = |row: &tokio_postgres::Row| -> Result<String, Failure> {
                    let text: Option<String> = row.try_get(0).map_err(Failure::internal)?;
                    Ok(text.unwrap_or_else(|| "null".to_owned()))
                };
                let values = done.rows.rows.iter().map(text);
                let values = values.collect::<Result<Vec<_>, _>>()?;
                if shape == Shape::Single {
                    return match values.as_slice() {
                        [value] => Ok(rows::single(StatusCode::OK, value)),
                        others => Err(rows::not_one(format_args!("{} rows", others.len()))),
                    };
                }
                let data = if set {
                    format!("[{}]", values.join(","))
                } else if void {
                    "null".to_owned()
                } else {
                    values
                        .into_iter()
                        .next()
                        .unwrap_or_else(|| "null".to_owned())
                };
                let json = HeaderValue::from_static("application/json");
                Ok(Reply::bytes(
                    StatusCode::OK,
                    json,
                    format!("{{\"data\":{data}}}"),
                ))
            }),
        })
    })
    .await
}
