//! Reading: a pipeline's documents, written as the server sends them.
//!
//! A reading holds one batch of the server's and what it is told to write, never the
//! whole list. Who asked may go away at any time: then the reading is dropped, and the
//! server is told to end what it does for it.

use bson::raw::RawDocumentBuf;
use bson::{Document, RawBson, doc};
use mongodb::options::AggregateOptions;
use mongodb::{Client, ClientSession, Collection, SessionCursor};
use postern_common::Failure;
use postern_contract::Code;

use crate::failure::{failure, failure_in};
use crate::family::Bounds;
use crate::render::{self, Form};
use crate::wall::TENANT;

/// Documents of one batch. The server ends a batch at 16 MiB in any case.
const BATCH: usize = 200;

/// A list under way.
pub(crate) struct Reading {
    cursor: SessionCursor<RawDocumentBuf>,
    session: Session,
    asked: Asked,
    last: Option<RawDocumentBuf>,
    bytes: usize,
    pub(crate) count: usize,
    /// Why it ended before the documents did.
    pub(crate) cut: Option<Cut>,
}

/// What a reading is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Documents at most. Whether there is one more is looked at.
    pub(crate) limit: usize,
    pub(crate) form: Form,
    pub(crate) bounds: Bounds,
    /// The argument that is told to be wrong when the server takes offence.
    pub(crate) argument: &'static str,
}

/// What was in the way of the next document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// There are as many as were asked for.
    Limit,
    /// The answer would be larger than it may be.
    Size,
}

impl Reading {
    /// Starts a pipeline.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn start(
        collection: &Collection<Document>,
        pipeline: Vec<Document>,
        asked: Asked,
    ) -> Result<Self, Failure> {
        // One more than the server finds, so that it need not be asked for the end.
        let batch = asked.limit.saturating_add(2).min(BATCH);
        let options = AggregateOptions::builder()
            .max_time(asked.bounds.max_time)
            .allow_disk_use(false)
            .batch_size(u32::try_from(batch).unwrap_or(u32::MAX))
            .build();
        let mut session = Session::start(collection.client()).await?;
        let cursor = collection
            .clone_with_type::<RawDocumentBuf>()
            .aggregate(pipeline)
            .with_options(options)
            .with_type::<RawDocumentBuf>()
            .session(session.open()?)
            .await
            .map_err(|error| failure_in(asked.argument, error))?;
        Ok(Self {
            cursor,
            session,
            asked,
            last: None,
            bytes: 0,
            count: 0,
            cut: None,
        })
    }

    /// Writes documents, with commas between, until there are `enough` bytes. Whether the
    /// list has ended.
    ///
    /// # Errors
    /// When one document is larger than an answer may be; the server's.
    pub(crate) async fn write(
        &mut self,
        enough: usize,
        json: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        while self.cut.is_none() && json.len() < enough {
            let Some(document) = self.cursor.next(self.session.open()?).await else {
                self.session.done();
                return Ok(true);
            };
            let document = document.map_err(|error| failure_in(self.asked.argument, error))?;
            self.take(document, json)?;
        }
        if self.cut.is_some() {
            self.session.done();
        }
        Ok(self.cut.is_some())
    }

    fn take(&mut self, document: RawDocumentBuf, json: &mut Vec<u8>) -> Result<(), Failure> {
        if self.count == self.asked.limit {
            self.cut = Some(Cut::Limit);
            return Ok(());
        }
        let before = json.len();
        if self.count > 0 {
            json.push(b',');
        }
        render::document(&document, self.asked.form, json)?;
        let bytes = self.bytes + json.len() - before;
        let most = self.asked.bounds.max_bytes;
        if bytes > most {
            json.truncate(before);
            if self.count == 0 {
                let message = format!(
                    "is above {most} bytes with its first document alone; a projection makes it smaller"
                );
                return Err(Failure::invalid_field(self.asked.argument, message));
            }
            self.cut = Some(Cut::Size);
            return Ok(());
        }
        self.bytes = bytes;
        self.count += 1;
        self.last = Some(document);
        Ok(())
    }

    /// What the last document carries in place of the tenant's field: its place in the order.
    ///
    /// # Errors
    /// When the server sent bytes that are no BSON.
    pub(crate) fn keys(&self) -> Result<Option<RawBson>, Failure> {
        let Some(last) = &self.last else {
            return Ok(None);
        };
        let keys = last.get(TENANT).map_err(Failure::internal)?;
        Ok(keys.map(|keys| keys.to_raw_bson()))
    }
}

/// A read's session. One that is dropped before its end takes what it does on the server
/// with it: dropping a future alone does not reach there.
pub(crate) struct Session {
    client: Client,
    session: Option<ClientSession>,
    done: bool,
}

impl Session {
    pub(crate) async fn start(client: &Client) -> Result<Self, Failure> {
        let session = client.start_session().await.map_err(failure)?;
        Ok(Self {
            client: client.clone(),
            session: Some(session),
            done: false,
        })
    }

    pub(crate) fn open(&mut self) -> Result<&mut ClientSession, Failure> {
        let session = self.session.as_mut();
        session.ok_or_else(|| Failure::internal("a session was used after its end"))
    }

    /// Nothing of it is under way any more.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(session) = self.session.take().filter(|_| !self.done) else {
            return;
        };
        let client = self.client.clone();
        // Outside a runtime there is nobody to tell it; the time limit ends the read.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let kill = doc! { "killSessions": [session.id().clone()] };
                if let Err(error) = client.database("admin").run_command(kill).await {
                    tracing::debug!(%error, "a read that nobody waits for was not ended");
                }
                // Only now: the next request may be given the same session.
                drop(session);
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
