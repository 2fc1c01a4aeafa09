//! `POST …/aggregate`: a read in several stages.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use postern_common::{Call, Failure, Reply};

use crate::arguments::form;
use crate::body;
use crate::family::Mongo;
use crate::read;
use crate::wall::{At, Budget, Pipeline};

/// `{"pipeline":[…]}`
pub(crate) async fn aggregate(app: Arc<Mongo>, mut call: Call) -> Result<Reply, Failure> {
    let place = app.place(&call)?;
    let collection = place.collection(&call)?;
    let mut query = call.query()?;
    let form = form(&mut query);
    query.finish()?;
    let (_, fields) = body::object(&mut call).await?;
    if let Some(other) = fields.keys().find(|name| *name != "pipeline") {
        return Err(Failure::invalid_field(
            other,
            "is not known here; known is pipeline",
        ));
    }
    let at = At::root("pipeline");
    let stages = match fields.get("pipeline") {
        Some(bson::Bson::Array(stages)) => stages,
        _ => return Err(at.refused("must be an array of stages").into()),
    };
    let pipeline = Pipeline::read(stages, &mut Budget::default(), &at)?;
    let limit = usize::try_from(app.bounds.max_results).unwrap_or(usize::MAX);
    let stages = pipeline.to_bson(&place.wall);
    let written = read::write(&collection, stages, limit, form, &app.bounds).await?;
    if written.more {
        let message = format!("gives more than {limit} documents: add a $limit, or group them");
        return Err(at.refused(message).into());
    }
    if written.count == 0 {
        place.need(collection.name()).await?;
    }
    let mut body = Vec::with_capacity(written.json.len() + 16);
    body.extend_from_slice(b"{\"data\":[");
    body.extend_from_slice(&written.json);
    body.extend_from_slice(b"]}");
    Ok(Reply::bytes(
        StatusCode::OK,
        HeaderValue::from_static("application/json"),
        body,
    ))
}
