//! What is wrong with the section, before anything is fetched.

use anyhow::ensure;

use super::{FetchSettings, IssuerSettings, JwtSettings};
use crate::plugins::jwt::template::{SLUG, Template, is_rule};

/// No longer: a request waits while it holds a place, and a chain has an end.
const MAX_WAIT_MS: u64 = 5_000;

impl JwtSettings {
    pub(in crate::plugins::jwt) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.leeway_seconds <= 300,
            "plugins.jwt.leewaySeconds: must be at most 300"
        );
        ensure!(
            self.cached_tokens > 0,
            "plugins.jwt.cachedTokens: must be above 0"
        );
        ensure!(
            self.max_issuers > 0,
            "plugins.jwt.maxIssuers: must be above 0"
        );
        self.fetch.check()?;
        for (at, issuer) in self.issuers.iter().enumerate() {
            let field = format!("plugins.jwt.issuers[{at}]");
            let twice = self
                .issuers
                .iter()
                .skip(at + 1)
                .any(|other| other.issuer == issuer.issuer);
            ensure!(!twice, "{field}.issuer: {:?} stands twice", issuer.issuer);
            issuer.check(&field)?;
        }
        Ok(())
    }
}

impl FetchSettings {
    fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [
            ("refreshSeconds", self.refresh_seconds),
            ("minRefreshSeconds", self.min_refresh_seconds),
            ("keepSeconds", self.keep_seconds),
            ("unknownKeySeconds", self.unknown_key_seconds),
            ("unknownIssuerSeconds", self.unknown_issuer_seconds),
            ("newIssuersPerSecond", self.new_issuers_per_second),
            ("timeoutMs", self.timeout_ms),
        ] {
            ensure!(value > 0, "plugins.jwt.fetch.{name}: must be above 0");
        }
        ensure!(
            self.min_refresh_seconds <= self.refresh_seconds,
            "plugins.jwt.fetch.minRefreshSeconds: must be at most refreshSeconds"
        );
        ensure!(
            self.keep_seconds >= self.refresh_seconds,
            "plugins.jwt.fetch.keepSeconds: must be at least refreshSeconds"
        );
        // Instants are far from their end then.
        const YEAR: u64 = 366 * 24 * 3600;
        ensure!(
            self.keep_seconds <= YEAR && self.grace_seconds <= YEAR,
            "plugins.jwt.fetch.keepSeconds, graceSeconds: must be at most a year"
        );
        ensure!(
            self.wait_ms <= MAX_WAIT_MS,
            "plugins.jwt.fetch.waitMs: must be at most {MAX_WAIT_MS}"
        );
        Ok(())
    }
}

impl IssuerSettings {
    fn check(&self, field: &str) -> anyhow::Result<()> {
        for (name, empty) in [
            ("audiences", self.audiences.is_empty()),
            ("algorithms", self.algorithms.is_empty()),
            ("types", self.types.is_empty()),
            ("clients", self.clients.as_ref().is_some_and(Vec::is_empty)),
        ] {
            ensure!(!empty, "{field}.{name}: name at least one");
        }
        let is_template = self.issuer.contains(SLUG);
        if is_template {
            ensure!(
                !self.allow.is_empty(),
                "{field}.allow: say which slugs the template stands for, such as \"*\""
            );
            let wrong = self.allow.iter().find(|rule| !is_rule(rule));
            ensure!(
                wrong.is_none(),
                "{field}.allow: {:?} is neither a slug nor the beginning of one with *",
                wrong.map_or("", String::as_str)
            );
        } else {
            ensure!(
                self.allow.is_empty(),
                "{field}.allow: there is no {SLUG} in the issuer to allow"
            );
        }
        for (name, uri) in [
            (
                "issuer",
                Some(&self.issuer).filter(|_| is_template || self.jwks_uri.is_none()),
            ),
            ("jwksUri", self.jwks_uri.as_ref()),
            (
                "introspection.uri",
                self.introspection.as_ref().map(|to| &to.uri),
            ),
        ] {
            let Some(uri) = uri else { continue };
            ensure!(
                reqwest::Url::parse(uri)
                    .is_ok_and(|uri| matches!(uri.scheme(), "http" | "https") && uri.has_host()),
                "{field}.{name}: {uri:?} is no http or https address"
            );
            ensure!(
                uri.contains(SLUG) == is_template,
                "{field}.{name}: {SLUG} must stand in all addresses of an issuer or in none"
            );
            ensure!(
                !is_template || Template::parse(uri).is_some(),
                "{field}.{name}: {SLUG} must stand once, in the path"
            );
        }
        if let Some(introspection) = &self.introspection {
            ensure!(
                (1..=300).contains(&introspection.cache_seconds),
                "{field}.introspection.cacheSeconds: must be 1 to 300"
            );
            ensure!(
                (1..=MAX_WAIT_MS).contains(&introspection.timeout_ms),
                "{field}.introspection.timeoutMs: must be 1 to {MAX_WAIT_MS}"
            );
        }
        Ok(())
    }
}
