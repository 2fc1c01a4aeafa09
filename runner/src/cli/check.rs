//! `check`: every `conf` of an apisix.yaml, as the runner would prepare it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_yaml_ng::{Mapping, Value};

use crate::registry::Registry;

/// Where plugins are named in an apisix.yaml.
const KINDS: [&str; 6] = [
    "routes",
    "services",
    "global_rules",
    "plugin_configs",
    "consumers",
    "consumer_groups",
];
/// The plugins of APISIX that call a runner.
const CALLERS: [&str; 3] = [
    "ext-plugin-pre-req",
    "ext-plugin-post-req",
    "ext-plugin-post-resp",
];

/// Prints every problem; 1 if there is one.
pub(super) fn run(registry: &Registry, file: &Path) -> anyhow::Result<ExitCode> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let yaml: Value =
        serde_yaml_ng::from_str(&text).with_context(|| format!("{} is no YAML", file.display()))?;
    let yaml = yaml
        .as_mapping()
        .with_context(|| format!("{}: a mapping with `routes` is due", file.display()))?;
    let report = check(registry, yaml);
    for problem in &report.problems {
        println!("{}: {problem}", file.display());
    }
    if report.problems.is_empty() {
        println!(
            "{}: {} confs with {} plugins, all can be served",
            file.display(),
            report.confs,
            report.plugins
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}: {} problems", file.display(), report.problems.len());
    Ok(ExitCode::FAILURE)
}

/// What was found.
#[derive(Debug, Default)]
struct Report {
    problems: Vec<String>,
    confs: usize,
    plugins: usize,
}

fn check(registry: &Registry, yaml: &Mapping) -> Report {
    let mut report = Report::default();
    if !yaml.contains_key("routes") {
        let known: Vec<_> = yaml.keys().filter_map(Value::as_str).collect();
        let there = known.join(", ");
        let problem = format!("routes: missing; the file has {there}");
        report.problems.push(problem);
    }
    for kind in KINDS {
        let Some(list) = yaml.get(kind) else { continue };
        let Some(list) = list.as_sequence() else {
            report.problems.push(format!("{kind}: a list is due"));
            continue;
        };
        for (position, item) in list.iter().enumerate() {
            let item_name = name(kind, position, item);
            for caller in CALLERS {
                if let Some(plugin) = item.get("plugins").and_then(|plugins| plugins.get(caller)) {
                    report.plugin(registry, &format!("{item_name}.plugins.{caller}"), plugin);
                }
            }
        }
    }
    report
}

/// `routes[id=tenants]`, or by position where there is no id.
fn name(kind: &str, position: usize, item: &Value) -> String {
    match item.get("id") {
        Some(Value::String(id)) => format!("{kind}[id={id}]"),
        Some(Value::Number(id)) => format!("{kind}[id={id}]"),
        _ => format!("{kind}[{position}]"),
    }
}

impl Report {
    fn plugin(&mut self, registry: &Registry, at: &str, plugin: &Value) {
        // APISIX knows no other switch: a `disable` beside `conf` disables nothing.
        let meta = plugin.get("_meta");
        let disabled = meta.and_then(|meta| meta.get("disable"));
        if disabled.and_then(Value::as_bool) == Some(true) {
            return;
        }
        if plugin
            .get("allow_degradation")
            .is_some_and(|value| value.as_bool() != Some(false))
        {
            self.problems.push(format!(
                "{at}.allow_degradation: must be false: with it requests pass unchecked while the runner is away"
            ));
        }
        let Some(conf) = plugin.get("conf") else {
            self.problems
                .push(format!("{at}.conf: missing: nothing would be checked"));
            return;
        };
        let Some(conf) = conf.as_sequence().filter(|conf| !conf.is_empty()) else {
            self.problems
                .push(format!("{at}.conf: a list with an entry at least is due"));
            return;
        };
        self.confs += 1;
        let mut entries = Vec::new();
        for (position, entry) in conf.iter().enumerate() {
            let text = |field: &str| entry.get(field).and_then(Value::as_str);
            match (text("name"), text("value")) {
                (Some(name), Some(value)) => entries.push((position, name, value)),
                (None, _) => self
                    .problems
                    .push(format!("{at}.conf[{position}].name: a text is due")),
                (_, None) => self.problems.push(format!(
                    "{at}.conf[{position}].value: a text is due that holds JSON, such as '{{}}'"
                )),
            }
        }
        self.plugins += entries.len();
        let sealed = |(_, name, value): &(usize, &str, &str)| {
            let mode = serde_yaml_ng::from_str::<Value>(value).ok();
            let mode = mode.as_ref().and_then(|value| value.get("mode"));
            *name == "context" && mode.and_then(Value::as_str) != Some("headers")
        };
        let authorized = entries.iter().position(|(_, name, _)| *name == "authorize");
        let before = entries.get(..authorized.unwrap_or(entries.len()));
        let before = before.unwrap_or_default();
        if before.iter().any(sealed) {
            self.problems.push(format!(
                "{at}.conf: context without authorize before it: handlers trust what is sealed, and nobody has looked at scopes and roles"
            ));
        }
        if authorized.is_some() && before.iter().any(|(_, name, _)| *name == "idempotency") {
            self.problems.push(format!(
                "{at}.conf: idempotency before authorize: who may not do it any more would still be told what came of it"
            ));
        }
        for (position, name, value) in entries {
            for error in registry.chain([(name, value)]).err().unwrap_or_default() {
                self.problems
                    .push(format!("{at}.conf[{position}] ({name}): {}", error.cause));
            }
        }
    }
}
