//! Configuration files of one run: the repository's own, with addresses and key
//! files of this run put in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{AUDIENCE, Addresses, Plan, keys, write_private};
use crate::process::binary;

/// What a gateway is started with.
#[derive(Debug)]
pub(super) struct Rendered {
    /// Where it may put what it needs besides.
    pub(super) folder: PathBuf,
    /// `config.yaml`
    pub(super) config: PathBuf,
    /// `apisix.yaml`
    pub(super) routes: PathBuf,
}

/// The socket on which the handlers serve the directory to runners.
fn directory(plan: &Plan) -> String {
    format!("unix:{}", plan.run.join("directory.sock").display())
}

/// Writes the handlers' file.
pub(super) fn handlers(plan: &Plan, addresses: &Addresses) -> Result<PathBuf> {
    let mut file = json!({
        "listen": addresses.handlers.address().to_string(),
        "admin": addresses.handlers_admin.address().to_string(),
        "directory": directory(plan),
        "database": {"url": addresses.database},
        "contextKeys": keys::opening(&plan.data),
        "outcomeKeys": keys::outcomes(&plan.data),
    });
    if let (Some(url), Some(file)) = (&plan.claims, file.as_object_mut()) {
        file.insert("claims".to_owned(), json!({"url": url}));
    }
    if let (true, Some(file)) = (plan.postgres, file.as_object_mut()) {
        let url = as_data_login(&addresses.database, &keys::data_login(&plan.data)?)?;
        file.insert("postgres".to_owned(), json!({"url": url}));
    }
    if let (Some(url), Some(file)) = (&addresses.mongo, file.as_object_mut()) {
        file.insert("mongo".to_owned(), json!({"url": url}));
    }
    if let (Some(folder), Some(file)) = (&plan.faults, file.as_object_mut()) {
        file.insert("faults".to_owned(), json!(folder));
    }
    merge(&mut file, &plan.handlers);
    write(&plan.run.join("postern-handlers.yaml"), &file)
}

/// The same database as the role that the handlers make for rows.
fn as_data_login(database: &str, password: &str) -> Result<String> {
    let (scheme, rest) = database.split_once("://").context("no database URL")?;
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    Ok(format!("{scheme}://postern_data:{password}@{place}"))
}

/// Writes the runner's file and the gateway's two.
pub(super) fn gateway(plan: &Plan, addresses: &Addresses) -> Result<Rendered> {
    let mut runner = json!({
        "admin": {"listen": addresses.runner_admin.address().to_string()},
        "plugins": {
            "jwt": {"issuers": [{
                "issuer": plan.issuer(),
                "audiences": [AUDIENCE],
                "jwksUri": format!("{}/protocol/openid-connect/certs", plan.issuer()),
            }]},
            "authorize": {"directory": directory(plan)},
            "idempotency": {
                "claims": {"url": plan.claims.as_ref().unwrap_or(&addresses.database)},
                "outcomeKeyFile": keys::outcomes(&plan.data),
            },
            "context": {"keyFile": keys::master(&plan.data)},
        },
    });
    merge(&mut runner, &plan.runner);
    let runner = write(&plan.run.join("postern-runner.yaml"), &runner)?;
    let mut config = read(&plan.configuration.join("config.yaml"))?;
    put(
        &mut config,
        "/ext-plugin/cmd",
        json!([binary("postern-runner")?, "--config", runner]),
    )?;
    let listen = json!([{"ip": "127.0.0.1", "port": plan.gateway_port}]);
    put(&mut config, "/apisix/node_listen", listen)?;
    // A real APISIX would listen for TLS on every address and for commands on a
    // fixed port, and log where nobody looks when it does not start.
    insert(&mut config, "/apisix", "ssl", json!({"enable": false}))?;
    insert(&mut config, "/apisix", "enable_control", json!(false))?;
    insert(
        &mut config,
        "/nginx_config",
        "error_log",
        json!("/dev/stderr"),
    )?;
    let mut routes = read(&plan.configuration.join("apisix.yaml"))?;
    let nodes = json!({ addresses.handlers.address().to_string(): 1 });
    put(&mut routes, "/upstreams/0/nodes", nodes)?;
    let folder = plan.run.join("conf");
    std::fs::create_dir_all(&folder)?;
    let (config_path, routes_path) = (folder.join("config.yaml"), folder.join("apisix.yaml"));
    // Readable for the gateway's workers, which run as another user: both hold
    // paths of secrets only. As JSON, because APISIX reads YAML 1.1, where a bare
    // `on` is true. It reads its routes only up to the mark.
    std::fs::write(&config_path, config.to_string())?;
    std::fs::write(&routes_path, format!("{routes}\n#END\n"))?;
    Ok(Rendered {
        folder: plan.run.clone(),
        config: config_path,
        routes: routes_path,
    })
}

/// Members of `more` into those of the same name, anything else in their place.
fn merge(file: &mut Value, more: &Value) {
    match (file.as_object_mut(), more) {
        (Some(file), Value::Object(more)) => {
            for (name, value) in more {
                merge(file.entry(name).or_insert(Value::Null), value);
            }
        }
        _ => *file = more.clone(),
    }
}

fn read(path: &Path) -> Result<Value> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("{} is not right", path.display()))
}

fn put(file: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let place = file
        .pointer_mut(pointer)
        .with_context(|| format!("nothing at {pointer} to replace"))?;
    *place = value;
    Ok(())
}

fn insert(file: &mut Value, pointer: &str, name: &str, value: Value) -> Result<()> {
    let place = file.pointer_mut(pointer).and_then(Value::as_object_mut);
    let place = place.with_context(|| format!("no object at {pointer}"))?;
    place.insert(name.to_owned(), value);
    Ok(())
}

fn write(path: &Path, file: &Value) -> Result<PathBuf> {
    write_private(path, &serde_yaml_ng::to_string(file)?)?;
    Ok(path.to_owned())
}
