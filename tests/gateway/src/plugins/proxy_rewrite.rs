//! `proxy-rewrite` (`apisix/plugins/proxy-rewrite.lua`): `uri`, `regex_uri`,
//! `host`, `method` and `headers`.

use anyhow::{Context as _, Result, ensure};
use regex_lite::{Captures, Regex};
use serde::Deserialize;
use serde_yaml_ng::Value;
use std::collections::BTreeMap;

use crate::config::snippet::expand;
use crate::exchange::{End, Exchange};
use crate::http::uri::{Escape, escape};

/// The plugin's configuration.
#[derive(Debug)]
pub struct ProxyRewrite {
    uri: Option<String>,
    regex_uri: Vec<(Regex, String)>,
    host: Option<String>,
    method: Option<String>,
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
    remove: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conf {
    uri: Option<String>,
    #[serde(default)]
    regex_uri: Vec<String>,
    host: Option<String>,
    method: Option<String>,
    headers: Option<HeadersConf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HeadersConf {
    Operations(Operations),
    Set(BTreeMap<String, Scalar>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operations {
    #[serde(default)]
    set: BTreeMap<String, Scalar>,
    #[serde(default)]
    add: BTreeMap<String, Scalar>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(serde_yaml_ng::Number),
}

fn pairs(map: BTreeMap<String, Scalar>) -> Vec<(String, String)> {
    let text = |scalar| match scalar {
        Scalar::Text(text) => text,
        Scalar::Number(number) => number.to_string(),
    };
    map.into_iter()
        .map(|(name, value)| (name, text(value)))
        .collect()
}

impl ProxyRewrite {
    /// Reads a configuration.
    pub fn build(conf: Value) -> Result<Self> {
        let conf: Conf = serde_yaml_ng::from_value(conf)?;
        let even = conf.regex_uri.len().is_multiple_of(2);
        ensure!(even, "The length of regex_uri should be an even number");
        let mut regex_uri = Vec::new();
        for pair in conf.regex_uri.chunks_exact(2) {
            if let [pattern, template] = pair {
                let regex = Regex::new(pattern).with_context(|| format!("regex_uri {pattern}"))?;
                regex_uri.push((regex, template.clone()));
            }
        }
        let (set, add, remove) = match conf.headers {
            None => Default::default(),
            Some(HeadersConf::Set(set)) => (pairs(set), Vec::new(), Vec::new()),
            Some(HeadersConf::Operations(Operations { set, add, remove })) => {
                (pairs(set), pairs(add), remove)
            }
        };
        Ok(Self {
            uri: conf.uri,
            regex_uri,
            host: conf.host,
            method: conf.method,
            set,
            add,
            remove,
        })
    }

    /// The rewrite phase.
    pub fn rewrite(&self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        let request = &mut exchange.request;
        if let Some(host) = &self.host {
            request.upstream_host = Some(host.clone().into_bytes());
        }
        let mut captured: Vec<String> = Vec::new();
        let mut uri = request.uri.clone();
        let mut may_hold_query = false;
        if let Some(template) = &self.uri {
            may_hold_query = true;
            uri = unlatin1(&expand(template, &|name| {
                let value = exchange_value(request, name)?;
                Some(latin1(&value).replace('?', "%3F"))
            }));
        } else if !self.regex_uri.is_empty() {
            may_hold_query = !uri.contains(&b'?');
            let text = latin1(&uri);
            let hit = self.regex_uri.iter().find_map(|(regex, template)| {
                regex.captures(&text).map(|captures| (captures, template))
            });
            if let Some((captures, template)) = hit {
                captured = groups(&captures);
                uri = unlatin1(&substitute(&text, &captures, template));
            }
        }
        let query_at = uri
            .iter()
            .position(|byte| *byte == b'?')
            .filter(|_| may_hold_query);
        let (path, query) = uri.split_at(query_at.unwrap_or(uri.len()));
        let mut rewritten = escape(path, Escape::Path);
        rewritten.extend(escape_controls(query));
        request.head.target.path.clone_from(&rewritten);
        request.head.target.raw_is_valid = false;
        let args = &request.head.target.args;
        if !args.is_empty() {
            rewritten.push(if query_at.is_some() { b'&' } else { b'?' });
            rewritten.extend_from_slice(args);
        }
        request.upstream_uri = rewritten;
        self.headers(exchange, &captured)
    }

    fn headers(&self, exchange: &mut Exchange<'_>, captured: &[String]) -> Result<(), End> {
        let request = &mut exchange.request;
        let resolve = |request: &crate::request::Request, value: &str| -> Vec<u8> {
            let text = expand(value, &|name| match name.parse::<usize>() {
                Ok(index) => captured.get(index).cloned(),
                Err(_) => exchange_value(request, name).map(|value| latin1(&value)),
            });
            unlatin1(&text)
        };
        for (name, value) in &self.add {
            let value = resolve(request, value);
            request.add_header(name.as_bytes(), &value);
        }
        for (name, value) in &self.set {
            let value = resolve(request, value);
            request
                .set_header(name.as_bytes(), Some(&value))
                .map_err(End::Lua)?;
        }
        for name in &self.remove {
            request
                .set_header(name.as_bytes(), None)
                .map_err(End::Lua)?;
        }
        if let Some(method) = &self.method {
            request.head.method = method.clone().into_bytes();
        }
        Ok(())
    }
}

/// A variable inside a template.
fn exchange_value(request: &crate::request::Request, name: &str) -> Option<Vec<u8>> {
    match name {
        "uri" => Some(request.uri.clone()),
        "request_uri" => Some(request.request_uri.clone()),
        "request_method" => Some(request.head.method.clone()),
        "route_id" => Some(request.route.as_ref()?.id.clone().into_bytes()),
        _ => request.page_variable(name).map(String::into_bytes),
    }
}

fn groups(captures: &Captures<'_>) -> Vec<String> {
    let text =
        |group: Option<regex_lite::Match<'_>>| group.map_or("", |found| found.as_str()).to_owned();
    captures.iter().map(text).collect()
}

/// `ngx.re.sub`: the match becomes the template with `$1` filled in.
fn substitute(text: &str, captures: &Captures<'_>, template: &str) -> String {
    let Some(whole) = captures.get(0) else {
        return text.to_owned();
    };
    let mut out = text.get(..whole.start()).unwrap_or_default().to_owned();
    let mut chars = template.chars().peekable();
    while let Some(next) = chars.next() {
        if next != '$' {
            out.push(next);
            continue;
        }
        let braced = chars.next_if_eq(&'{').is_some();
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        if braced {
            chars.next_if_eq(&'}');
        }
        match digits.parse().ok().and_then(|index| captures.get(index)) {
            Some(group) => out.push_str(group.as_str()),
            None if digits.is_empty() => {
                chars.next_if_eq(&'$');
                out.push('$');
            }
            None => {}
        }
    }
    out + text.get(whole.end()..).unwrap_or_default()
}

fn escape_controls(query: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in query {
        if *byte < 0x20 || *byte == 0x7f {
            out.extend(format!("%{byte:02X}").into_bytes());
        } else {
            out.push(*byte);
        }
    }
    out
}

/// Every byte as the character of that number, so that a regular expression
/// sees bytes that are no UTF-8.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn unlatin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_match_is_replaced_as_ngx_re_sub_does() {
        let regex = Regex::new("^/r/([^/]*)(.*)").unwrap();
        let text = "/r/a/b";
        let captures = regex.captures(text).unwrap();
        assert_eq!(substitute(text, &captures, "/x/$1y$2/${1}$$"), "/x/ay/b/a$");
    }
}
