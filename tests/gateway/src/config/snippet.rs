//! The part of nginx's own configuration that APISIX lets `config.yaml` carry in
//! snippets, as far as error pages need it: `map`, `error_page`, and `location`s
//! that `return` a text. Anything else in a snippet is left out with a notice.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};
use regex_lite::Regex;

/// Error pages and what their texts are made of.
#[derive(Debug, Default)]
pub struct Pages {
    by_status: HashMap<u16, Redirect>,
    locations: HashMap<String, Location>,
    maps: HashMap<String, Map>,
}

/// `error_page 503 =502 /uri;`
#[derive(Debug, Clone)]
struct Redirect {
    to: String,
    status: Option<u16>,
}

/// A `location` that returns a text.
#[derive(Debug, Default)]
struct Location {
    default_type: Option<String>,
    text: Option<String>,
    headers: Vec<(String, String)>,
}

/// `map $source $name { … }`
#[derive(Debug)]
struct Map {
    source: String,
    exact: HashMap<String, String>,
    patterns: Vec<(Regex, String)>,
    default: String,
}

/// An error page ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The status that goes out.
    pub status: u16,
    /// Its type, if the location names one.
    pub content_type: Option<String>,
    /// Headers added with `always`.
    pub headers: Vec<(String, String)>,
    /// The text.
    pub body: String,
}

impl Pages {
    /// Reads the snippets of a `config.yaml`: that of `http` and that of `server`.
    pub fn parse(http: &str, server: &str) -> Result<Self> {
        let mut pages = Self::default();
        for (name, text) in [("http", http), ("http_server", server)] {
            let directives = directives(text)
                .with_context(|| format!("nginx_config.{name}_configuration_snippet"))?;
            for directive in directives {
                pages.take(directive)?;
            }
        }
        for (status, page) in &pages.by_status {
            let known = pages.locations.contains_key(&page.to);
            ensure!(
                known,
                "error_page {status} names {}, which no location is",
                page.to
            );
        }
        Ok(pages)
    }

    fn take(&mut self, Directive { words, block }: Directive) -> Result<()> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (words.as_slice(), block) {
            (["error_page", codes @ .., to], None) => self.error_page(codes, to),
            (["map", source, name], Some(block)) => {
                let source = source.trim_start_matches('$').to_owned();
                let name = name.trim_start_matches('$').to_owned();
                self.maps.insert(name, map(source, block)?);
                Ok(())
            }
            (["location", .., path], Some(block)) => {
                self.locations.insert((*path).to_owned(), location(block)?);
                Ok(())
            }
            // Answers are never held back here.
            (["proxy_buffering", "off"], None) => Ok(()),
            ([name, ..], _) => {
                tracing::warn!("nginx's `{name}` in a snippet is not imitated");
                Ok(())
            }
            ([], _) => Ok(()),
        }
    }

    fn error_page(&mut self, codes: &[&str], to: &str) -> Result<()> {
        let mut status = None;
        let mut wanted = Vec::new();
        for code in codes {
            match code.strip_prefix('=') {
                Some(other) => status = Some(other.parse().context("error_page")?),
                None => wanted.push(code.parse().context("error_page")?),
            }
        }
        for code in wanted {
            let to = to.to_owned();
            self.by_status.insert(code, Redirect { to, status });
        }
        Ok(())
    }

    /// The page for a status that nginx would answer itself. `variable` reads
    /// nginx's variables.
    #[must_use]
    pub fn page(&self, status: u16, variable: &dyn Fn(&str) -> Option<String>) -> Option<Page> {
        let redirect = self.by_status.get(&status)?;
        let location = self.locations.get(&redirect.to)?;
        let fill = |text: &str| self.fill(text, variable, 0);
        Some(Page {
            status: redirect.status.unwrap_or(status),
            content_type: location.default_type.clone(),
            headers: location
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), fill(value)))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            body: fill(location.text.as_deref().unwrap_or_default()),
        })
    }

    /// Puts values in place of variables. A map may name another one; `depth`
    /// ends a ring of them.
    fn fill(&self, text: &str, variable: &dyn Fn(&str) -> Option<String>, depth: u8) -> String {
        expand(text, &|name| match self.maps.get(name) {
            Some(map) if depth < 8 => {
                let source = self.fill(&format!("${}", map.source), variable, depth + 1);
                let found = map.exact.get(&source.to_lowercase()).or_else(|| {
                    let hit = map
                        .patterns
                        .iter()
                        .find(|(regex, _)| regex.is_match(&source));
                    hit.map(|(_, value)| value)
                });
                Some(self.fill(found.unwrap_or(&map.default), variable, depth + 1))
            }
            _ => variable(name),
        })
    }
}

/// Replaces `$name` and `${name}`; what is unknown is empty.
#[must_use]
pub fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let (name, tail) = braced.unwrap_or_else(|| {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            after.split_at(end.unwrap_or(after.len()))
        });
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(&value(name).unwrap_or_default());
        }
        rest = tail;
    }
    out + rest
}

fn map(source: String, block: Vec<Directive>) -> Result<Map> {
    let mut map = Map {
        source,
        exact: HashMap::new(),
        patterns: Vec::new(),
        default: String::new(),
    };
    for Directive { words, .. } in block {
        let [key, value] = words.as_slice() else {
            bail!("a map's line has two words, not {words:?}");
        };
        if key == "default" {
            map.default.clone_from(value);
        } else if let Some(pattern) = key.strip_prefix('~') {
            let (pattern, flags) = match pattern.strip_prefix('*') {
                Some(pattern) => (pattern, "(?i)"),
                None => (pattern, ""),
            };
            let regex = Regex::new(&format!("{flags}{pattern}"))
                .with_context(|| format!("map: {pattern}"))?;
            map.patterns.push((regex, value.clone()));
        } else {
            map.exact.insert(key.to_lowercase(), value.clone());
        }
    }
    Ok(map)
}

fn location(block: Vec<Directive>) -> Result<Location> {
    let mut location = Location::default();
    for Directive { words, .. } in block {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["default_type", name] => location.default_type = Some((*name).to_owned()),
            ["return", _, text] => location.text = Some((*text).to_owned()),
            ["add_header", name, value, "always"] => {
                location
                    .headers
                    .push(((*name).to_owned(), (*value).to_owned()));
            }
            ["internal"] | ["add_header", ..] | ["access_log", ..] => {}
            other => bail!(
                "nginx's `{}` in a location is not imitated",
                other.join(" ")
            ),
        }
    }
    Ok(location)
}

/// Words up to a `;`, or up to a block.
#[derive(Debug)]
struct Directive {
    words: Vec<String>,
    block: Option<Vec<Directive>>,
}

fn directives(text: &str) -> Result<Vec<Directive>> {
    let mut open: Vec<(Vec<String>, Vec<Directive>)> = Vec::new();
    let mut done = Vec::new();
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(next) = chars.next() {
        match next {
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            ';' => {
                let words = std::mem::take(&mut words);
                done.push(Directive { words, block: None });
            }
            '{' => open.push((std::mem::take(&mut words), std::mem::take(&mut done))),
            '}' => {
                let (words, outer) = open.pop().context("a `}` too many")?;
                let block = Some(std::mem::replace(&mut done, outer));
                done.push(Directive { words, block });
            }
            quote @ ('"' | '\'') => {
                let mut word = String::new();
                loop {
                    match chars.next().context("a quote is not closed")? {
                        '\\' => match chars.next().context("a quote is not closed")? {
                            escaped @ ('"' | '\'' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        end if end == quote => break,
                        other => word.push(other),
                    }
                }
                words.push(word);
            }
            space if space.is_whitespace() => {}
            first => {
                let mut word = String::from(first);
                let mut braced = false;
                while let Some(c) = chars.next_if(|c| {
                    braced || !(c.is_whitespace() || ";{}".contains(*c)) || (*c == '{')
                }) {
                    if c == '{' && !word.ends_with('$') {
                        bail!("a space is missing before `{{` after `{word}`");
                    }
                    braced = c == '{' || braced && c != '}';
                    word.push(c);
                }
                words.push(word);
            }
        }
    }
    ensure!(open.is_empty(), "a block is not closed");
    ensure!(
        words.is_empty(),
        "a `;` is missing after `{}`",
        words.join(" ")
    );
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const HTTP: &str = r#"
        map $http_x_correlation_id $cid { # well-formed, or none
            default "";
            "~^[A-Za-z0-9._:-]{8,128}$" $http_x_correlation_id;
        }"#;
    const SERVER: &str = r#"
        error_page 502 504 /.error/502;
        location = /.error/502 {
            internal;
            default_type application/json;
            add_header X-Correlation-Id $cid always;
            return 502 '{"error":{"correlationId":"${cid}"}}';
        }"#;

    #[test]
    fn an_error_page_is_filled_in() {
        let pages = Pages::parse(HTTP, SERVER).unwrap();
        let named = |name: &str| (name == "http_x_correlation_id").then(|| "abcd-1234".to_owned());
        let page = pages.page(504, &named).unwrap();
        assert_eq!(page.body, r#"{"error":{"correlationId":"abcd-1234"}}"#);
        assert_eq!(page.status, 504);
        assert_eq!(page.content_type.as_deref(), Some("application/json"));
        assert_eq!(page.headers.len(), 1);
        let short = pages.page(502, &|_| Some("short".into())).unwrap();
        assert_eq!(short.body, r#"{"error":{"correlationId":""}}"#);
        assert_eq!(short.headers, []);
        assert_eq!(pages.page(500, &named), None);
    }

    #[test]
    fn broken_snippets_are_told() {
        for text in ["a", "a {", "}", "a 'b;", "error_page 500 /x;"] {
            assert!(Pages::parse("", text).is_err(), "{text}");
        }
    }
}
