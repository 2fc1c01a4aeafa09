//! Reads: a cursor's documents go into the body as they arrive, and a read whose client
//! has left is ended on the server.

use bson::raw::RawDocumentBuf;
use bson::{Document, RawBson, doc};
use mongodb::options::AggregateOptions;
use mongodb::{Client, Collection};
use postern_common::Failure;
use postern_contract::Code;

use crate::failure::failure;
use crate::family::Bounds;
use crate::render::{self, Form};
use crate::wall::TENANT;

/// An answer's documents, written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// `{…},{…}`, without the brackets around.
    pub(crate) json: Vec<u8>,
    pub(crate) count: usize,
    /// Whether there was one more than asked for.
    pub(crate) more: bool,
    /// What the last one carries in place of the tenant's field: its place in the order.
    pub(crate) keys: Option<RawBson>,
}

/// Runs a pipeline and writes what comes, `limit` documents at most. Whether there is one
/// more is looked at; memory holds one batch of the server's and the body.
///
/// # Errors
/// `BODY_TOO_LARGE`-like refusals when the answer is beyond its bound; the server's.
pub(crate) async fn write(
    collection: &Collection<Document>,
    pipeline: Vec<Document>,
    limit: usize,
    form: Form,
    bounds: &Bounds,
) -> Result<Written, Failure> {
    let reading = Reading::start(collection.client()).await?;
    let options = AggregateOptions::builder()
        .max_time(bounds.max_time)
        .allow_disk_use(false)
        .batch_size(u32::try_from(limit.saturating_add(1)).unwrap_or(u32::MAX))
        .build();
    let mut session = reading.session;
    let ending = reading.ending;
    let mut cursor = collection
        .clone_with_type::<RawDocumentBuf>()
        .aggregate(pipeline)
        .with_options(options)
        .with_type::<RawDocumentBuf>()
        .session(&mut session)
        .await
        .map_err(failure)?;
    let mut written = Written::default();
    while let Some(document) = cursor.next(&mut session).await {
        let document = document.map_err(failure)?;
        if written.count == limit {
            written.more = true;
            break;
        }
        if written.count > 0 {
            written.json.push(b',');
        }
        render::document(&document, form, &mut written.json)?;
        if written.json.len() > bounds.max_bytes {
            let message = format!(
                "the answer is above {} bytes: ask for fewer documents or fields",
                bounds.max_bytes
            );
            return Err(Failure::invalid_field("limit", message));
        }
        written.count += 1;
        written.keys = document
            .get(TENANT)
            .map_err(Failure::internal)?
            .map(|value| value.to_raw_bson());
    }
    ending.done();
    Ok(written)
}

/// A read's session, which ends on the server with this value.
struct Reading {
    session: mongodb::ClientSession,
    ending: Ending,
}

/// Tells the server to end a session's operations unless they are done: dropping a future
/// does not reach it.
struct Ending {
    client: Client,
    session: Option<Document>,
}

impl Reading {
    async fn start(client: &Client) -> Result<Self, Failure> {
        let session = client.start_session().await.map_err(failure)?;
        let ending = Ending {
            client: client.clone(),
            session: Some(session.id().clone()),
        };
        Ok(Self { session, ending })
    }
}

impl Ending {
    fn done(mut self) {
        self.session = None;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let client = self.client.clone();
        // Outside a runtime there is nobody to tell it; the time limit ends the read.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let kill = doc! { "killSessions": [session] };
                if let Err(error) = client.database("admin").run_command(kill).await {
                    tracing::debug!(%error, "a read that nobody waits for was not ended");
                }
            });
        }
    }
}

/// A document that is not there.
pub(crate) fn no_document(id: &str) -> Failure {
    let shown: String = id.chars().take(64).collect();
    Failure::new(
        Code::DocumentNotFound,
        format!("there is no document {shown}"),
    )
}
