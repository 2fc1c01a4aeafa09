//! What the user gets to see and to use: the env file, and curl lines that work
//! as pasted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use postern_harness::api::API_VERSION;

/// Everything a first request needs.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) url: String,
    pub(super) platform_token: String,
    pub(super) tenant_token: String,
    pub(super) tenant_id: String,
    pub(super) workspace_id: String,
    /// Whether documents are served.
    pub(super) documents: bool,
}

impl Greeting {
    /// Writes `NAME=value` lines that a shell can source, for nobody else to
    /// read: whole or not at all, so that whoever waits for the file can use it.
    pub(super) fn write_env(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("new");
        let text = format!(
            "URL={}\nPLATFORM_TOKEN={}\nTENANT_TOKEN={}\nTENANT_ID={}\nWORKSPACE_ID={}\n",
            self.url, self.platform_token, self.tenant_token, self.tenant_id, self.workspace_id
        );
        let _ = std::fs::remove_file(&new);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&new, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The text for the terminal.
    pub(super) fn text(&self, env: &Path) -> String {
        let Self {
            url,
            platform_token,
            tenant_token,
            tenant_id,
            workspace_id,
            documents,
        } = self;
        let mut text = String::new();
        let common = format!("-H 'X-API-Version: {API_VERSION}'");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "
Postern is up, for development.

URL            {url}
PLATFORM_TOKEN {platform_token}
TENANT_TOKEN   {tenant_token}
TENANT_ID      {tenant_id}
WORKSPACE_ID   {workspace_id}

All of it stands in {env} too. Paste these:

# a first request: the workspaces of the demo's tenant
curl -sS '{url}/v1/workspaces' {common} -H 'X-Correlation-Id: first-request' -H 'Authorization: Bearer {tenant_token}'

# a tenant of your own; the same line again is answered from the record, not executed twice
curl -sS -i '{url}/v1/tenants' {common} -H 'X-Correlation-Id: second-request' -H 'Idempotency-Key: my-first-tenant' -H 'Content-Type: application/json' -H 'Authorization: Bearer {platform_token}' -d '{{\"slug\":\"my-tenant\",\"displayName\":\"My tenant\",\"plan\":\"starter\",\"adminEmail\":\"me@example.com\"}}'

# a first refusal: a tenant's token does not make tenants
curl -sS '{url}/v1/tenants' {common} -H 'X-Correlation-Id: third-request' -H 'Idempotency-Key: not-mine' -H 'Content-Type: application/json' -H 'Authorization: Bearer {tenant_token}' -d '{{\"slug\":\"not-mine\",\"displayName\":\"Not mine\",\"plan\":\"starter\",\"adminEmail\":\"me@example.com\"}}'
",
            env = env.display(),
        );
        if *documents {
            let _ = write!(
                text,
                "
# a document of the demo's workspace
curl -sS '{url}/v1/mongo/{workspace_id}/collections/things/documents' {common} -H 'X-Correlation-Id: fourth-request' -H 'Idempotency-Key: first-document' -H 'Content-Type: application/json' -H 'Authorization: Bearer {tenant_token}' -d '{{\"name\":\"Ada\"}}'
"
            );
        }
        text.push_str(
            "
Ctrl-C stops everything; the data stays for the next run (--reset drops it).
",
        );
        text
    }
}
