//! Reading a schema: one statement, one JSON document.

use serde::Deserialize;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{Catalog, Function, Table};
use crate::errors::Fault;

const SCHEMA: &str = include_str!("schema.sql");
/// Schema and fingerprint of each schema in `$1`, which is one name or an array's inside.
pub(crate) const FINGERPRINTS: &str = include_str!("fingerprints.sql");

/// Reads a schema. One that is not there gives an empty catalog without fingerprint.
///
/// # Errors
/// The database does not answer, or answers what is none.
pub(crate) async fn load(client: &Client, schema: &str, role: &str) -> Result<Catalog, Fault> {
    #[derive(Deserialize)]
    struct Document {
        fingerprint: String,
        tenant: Option<String>,
        tables: Vec<Table>,
        functions: Vec<Function>,
    }
    let statement = SCHEMA.replace("FINGERPRINTS", FINGERPRINTS);
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&schema, Type::TEXT), (&role, Type::TEXT)];
    let row = client.query_typed_one(&statement, &parameters).await?;
    let document: Document = serde_json::from_str(row.try_get(0)?).map_err(Fault::internal)?;
    Ok(Catalog::new(
        schema.to_owned(),
        document.fingerprint,
        document.tenant,
        document.tables,
        document.functions,
    ))
}
