//! `cors` (`apisix/plugins/cors.lua`): answers every OPTIONS itself, and puts
//! its headers on whatever answer goes out.
//!
//! It remembers the request's `Origin` in its rewrite phase. An answer made
//! before that, by a runner at its own priority, is therefore judged as one
//! without an origin.

use anyhow::{Context as _, Result, ensure};
use regex_lite::Regex;
use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::exchange::{End, Exchange};

/// The plugin's configuration.
#[derive(Debug)]
pub struct Cors {
    conf: Conf,
    patterns: Option<Vec<Regex>>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Conf {
    allow_origins: String,
    allow_methods: String,
    allow_headers: String,
    expose_headers: Option<String>,
    max_age: i64,
    allow_credential: bool,
    allow_origins_by_regex: Option<Vec<String>>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            allow_origins: "*".into(),
            allow_methods: "*".into(),
            allow_headers: "*".into(),
            expose_headers: None,
            max_age: 5,
            allow_credential: false,
            allow_origins_by_regex: None,
        }
    }
}

const ALL_METHODS: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";

impl Cors {
    /// Reads a configuration.
    pub fn build(conf: Value) -> Result<Self> {
        let conf: Conf = serde_yaml_ng::from_value(conf)?;
        let any = [
            &conf.allow_origins,
            &conf.allow_methods,
            &conf.allow_headers,
        ]
        .into_iter()
        .chain(&conf.expose_headers)
        .any(|value| value == "*");
        ensure!(
            !(conf.allow_credential && any),
            "you can not set '*' for other option when 'allow_credential' is true"
        );
        let patterns = conf.allow_origins_by_regex.as_ref().map(|patterns| {
            let compile = |pattern: &String| {
                Regex::new(pattern).with_context(|| format!("allow_origins_by_regex: {pattern}"))
            };
            patterns.iter().map(compile).collect::<Result<Vec<_>>>()
        });
        Ok(Self {
            patterns: patterns.transpose()?,
            conf,
        })
    }

    /// The rewrite phase.
    pub fn rewrite(&self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        exchange.origin = exchange.request.seen_header("origin");
        if exchange.request.head.method == b"OPTIONS" {
            return Err(End::Exit(200, None));
        }
        Ok(())
    }

    /// The header-filter phase.
    pub fn header_filter(&self, exchange: &mut Exchange<'_>) {
        let origin = exchange.origin.clone();
        let asked = exchange
            .request
            .seen_header("access-control-request-headers");
        let conf = &self.conf;
        let answer = &mut exchange.answer;
        let mut set = |name: &str, value: Option<&[u8]>| {
            // Setting a plain header cannot fail.
            let _always_ok = answer.set(name.as_bytes(), value);
        };
        if let Some(allowed) = self.allowed(origin.as_deref()) {
            set("Access-Control-Allow-Origin", Some(&allowed));
            let methods = match conf.allow_methods.as_str() {
                "**" => ALL_METHODS,
                methods => methods,
            };
            set("Access-Control-Allow-Methods", Some(methods.as_bytes()));
            set(
                "Access-Control-Max-Age",
                Some(conf.max_age.to_string().as_bytes()),
            );
            if let Some(exposed) = conf.expose_headers.as_ref().filter(|text| !text.is_empty()) {
                set("Access-Control-Expose-Headers", Some(exposed.as_bytes()));
            }
            let headers = match conf.allow_headers.as_str() {
                "**" => asked.as_deref(),
                headers => Some(headers.as_bytes()),
            };
            set("Access-Control-Allow-Headers", headers);
            if conf.allow_credential {
                set("Access-Control-Allow-Credentials", Some(b"true"));
            }
        }
        if conf.allow_origins != "*" {
            let _always_ok = answer.add(b"Vary", Some(b"Origin"));
        }
    }

    /// What `Access-Control-Allow-Origin` says, if anything.
    fn allowed(&self, origin: Option<&[u8]>) -> Option<Vec<u8>> {
        if let Some(patterns) = &self.patterns {
            let text = std::str::from_utf8(origin?).ok()?;
            let matched = patterns.iter().any(|pattern| pattern.is_match(text));
            return matched.then(|| text.as_bytes().to_vec());
        }
        let listed = self.conf.allow_origins.as_bytes();
        match (listed, origin) {
            (b"*", _) => Some(b"*".to_vec()),
            (b"**", origin) => Some(origin.unwrap_or(b"*").to_vec()),
            (_, None) => None,
            (_, Some(origin)) => {
                let mut all = listed.split(|byte| *byte == b',');
                all.any(|one| one == origin).then(|| origin.to_vec())
            }
        }
    }
}
