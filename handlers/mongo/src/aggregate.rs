//! `POST …/aggregate`: a read in several stages.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use postern_common::{Call, Failure, Reply};

use crate::arguments::form;
use crate::body;
use crate::family::Mongo;
use crate::read::{Asked, Cut, Reading};
use crate::retry;
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
    let asked = Asked {
        limit,
        form,
        bounds: app.bounds,
        argument: "pipeline",
    };
    // Collected, within the bound of an answer: what is beyond its bounds is refused.
    let (body, count, cut) = retry::read(|| async {
        let mut body = b"{\"data\":[".to_vec();
        let mut reading = Reading::start(&collection, stages.clone(), asked).await?;
        reading.write(usize::MAX, &mut body).await?;
        body.extend_from_slice(b"]}");
        Ok((body, reading.count, reading.cut))
    })
    .await?;
    let beyond = match cut {
        None if count == 0 => {
            place.need(collection.name()).await?;
            None
        }
        None => None,
        Some(Cut::Limit) => Some(format!("{limit} documents")),
        Some(Cut::Size) => Some(format!("{} bytes", app.bounds.max_bytes)),
    };
    if let Some(bound) = beyond {
        let message = format!("gives more than {bound}: add a $limit, or group them");
        return Err(at.refused(message).into());
    }
    Ok(Reply::bytes(
        StatusCode::OK,
        HeaderValue::from_static("application/json"),
        body,
    ))
}
