//! The data cluster besides workspaces: what it needs once, and word of changes.
//!
//! [`prepare`] makes, as a role that may, the login role of the data pool, the schema of
//! its records, and an event trigger that tells of every definition; without the right to
//! make an event trigger, schemas are looked at instead.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client};

use crate::address::{Address, Driven};
use crate::catalog::{Catalogs, FINGERPRINTS};
use crate::errors::Fault;
use crate::execute::Database;

const PREPARE: &str = include_str!("cluster.sql");
/// Told of a schema in which something was defined.
const CHANNEL: &str = "postern_catalog";
/// How long it takes until a lost listener is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// A server that is silent for longer is asked anew, on another connection.
const LOOKING: Duration = Duration::from_secs(10);

/// Makes what the cluster needs for this login role. Can be repeated. The role's password
/// is set where one is given.
///
/// # Errors
/// The cluster does not answer, or `admin` may not make roles and schemas.
pub async fn prepare(
    admin: &Address,
    login: &str,
    password: Option<&[u8]>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (client, connection) = admin.connect().await?;
    let driving = tokio::spawn(connection);
    let password = password.map(String::from_utf8_lossy);
    let literal = |text: &str| format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    let sql = PREPARE.replace("$login", &literal(login)).replace(
        "$password",
        &password.map_or_else(|| "null".into(), |text| literal(&text)),
    );
    let prepared = client.batch_execute(&sql).await;
    drop(client);
    driving.abort();
    // The statement holds the password: PostgreSQL's text only.
    prepared.map_err(|error| match error.as_db_error() {
        Some(said) => said.message().to_owned().into(),
        None => error.to_string().into(),
    })
}

/// Follows changes of schemas.
pub(crate) struct Follow<'a> {
    pub(crate) db: &'a Database,
    pub(crate) catalogs: &'a Catalogs,
    pub(crate) every: Duration,
}

impl Follow<'_> {
    /// Never ends.
    pub(crate) async fn run(&self, direct: Option<Address>) {
        let listening = async {
            let Some(address) = direct else {
                return std::future::pending().await;
            };
            loop {
                if let Err(error) = self.listen(&address).await {
                    tracing::warn!(%error, "changes of schemas are looked for, not told");
                }
                self.catalogs.told.store(false, Ordering::SeqCst);
                tokio::time::sleep(PAUSE).await;
            }
        };
        let looking = async {
            loop {
                tokio::time::sleep(self.every).await;
                if self.catalogs.told.load(Ordering::SeqCst) {
                    continue;
                }
                match tokio::time::timeout(LOOKING, self.look()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "schemas could not be looked at"),
                    Err(_) => tracing::warn!("schemas could not be looked at: no answer came"),
                }
            }
        };
        futures::join!(listening, looking);
    }

    /// Until the connection ends.
    async fn listen(&self, address: &Address) -> Result<(), Fault> {
        let (client, connection) = address.connect().await?;
        let mut messages = std::pin::pin!(messages(connection));
        let started = async {
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
            let told = "SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'postern_catalog' \
                        AND evtenabled IN ('O', 'A'))";
            client
                .query_typed_one(told, &[])
                .await?
                .try_get::<_, bool>(0)
        };
        let mut started = std::pin::pin!(started);
        let mut begun = false;
        loop {
            tokio::select! {
                told = &mut started, if !begun => {
                    begun = true;
                    let told = told?;
                    // What changed before anybody listened is not known.
                    self.catalogs.all_changed();
                    self.catalogs.told.store(told, Ordering::SeqCst);
                }
                message = messages.next() => match message {
                    Some(Ok(AsyncMessage::Notification(note))) => self.catalogs.changed(note.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(Fault::Away("the listener's connection ended".into())),
                },
            }
        }
    }

    /// Compares the fingerprints of the schemas in use.
    async fn look(&self) -> Result<(), Fault> {
        let known = self.catalogs.in_use();
        if known.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = known.iter().map(|(schema, _)| schema.as_str()).collect();
        let lease = self.db.lease_for_upkeep().await?;
        let now = fingerprints(lease.client(), &names).await?;
        lease.settle();
        for (schema, fingerprint) in &known {
            let same = now
                .iter()
                .any(|(name, now)| name == schema && now == fingerprint);
            let gone = fingerprint.is_empty() && !now.iter().any(|(name, _)| name == schema);
            if !same && !gone {
                self.catalogs.changed(schema);
            }
        }
        Ok(())
    }
}

async fn fingerprints(client: &Client, names: &[&str]) -> Result<Vec<(String, String)>, Fault> {
    let statement = FINGERPRINTS.replace("array[$1]::text[]", "$1::text[]");
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&names, Type::TEXT_ARRAY)];
    let rows = client.query_typed(&statement, &values).await?;
    let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(pair).collect()
}

/// What the server says on a connection, which this drives.
fn messages(
    mut connection: Driven,
) -> impl futures::Stream<Item = Result<AsyncMessage, tokio_postgres::Error>> {
    futures::stream::poll_fn(move |context| connection.poll_message(context))
}
