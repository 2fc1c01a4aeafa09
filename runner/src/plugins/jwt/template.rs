//! Issuers by template: `…/realms/tenant-{slug}`.
//!
//! A slug is at most one label of lower-case letters, digits and hyphens, so whatever
//! stands in a token can neither leave the path nor reach another host.

/// What stands for a tenant's slug.
pub(super) const SLUG: &str = "{slug}";

/// A longer slug is nobody's.
const MAX_SLUG: usize = 63;

/// A text with one slug in it.
#[derive(Clone, Debug)]
pub(super) struct Template {
    before: String,
    after: String,
}

impl Template {
    /// An address with [`SLUG`] once, in its path.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(SLUG)?;
        let (_, path) = before.split_once("://")?.1.split_once('/')?;
        let plain = |text: &str| !text.contains(['{', '}', '?', '#', '\\']);
        (plain(path) && plain(after)).then(|| Self {
            before: before.into(),
            after: after.into(),
        })
    }

    /// The slug in a text of this form.
    pub(super) fn slug<'t>(&self, text: &'t str) -> Option<&'t str> {
        let slug = text
            .strip_prefix(self.before.as_str())?
            .strip_suffix(self.after.as_str())?;
        is_slug(slug).then_some(slug)
    }

    /// The text with this slug.
    pub(super) fn with(&self, slug: &str) -> String {
        [&self.before, slug, &self.after].concat()
    }
}

/// Whether a rule allows a slug: by its whole, or by its beginning.
pub(super) fn allows(rule: &str, slug: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(beginning) => slug.starts_with(beginning),
        None => rule == slug,
    }
}

/// Whether a rule can allow anything.
pub(super) fn is_rule(rule: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(beginning) => beginning.is_empty() || is_part(beginning),
        None => is_slug(rule),
    }
}

fn is_slug(text: &str) -> bool {
    is_part(text) && !text.ends_with('-')
}

fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_SLUG).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(allowed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_found_and_nothing_else() {
        let template = Template::parse("https://kc.example/realms/tenant-{slug}/x").unwrap();
        let iss = |slug: &str| format!("https://kc.example/realms/tenant-{slug}/x");
        assert_eq!(template.slug(&iss("acme-1")), Some("acme-1"));
        assert_eq!(template.with("acme-1"), iss("acme-1"));
        let long = "a".repeat(64);
        for wrong in [
            "", "-a", "a-", "A", "a.b", "a/b", "..", "a%2fb", "a b", "a{", "\u{e9}", &long,
        ] {
            assert_eq!(template.slug(&iss(wrong)), None, "{wrong:?}");
        }
        for other in [
            "https://kc.example/realms/tenant-",
            "https://kc.example.evil/realms/tenant-acme/x",
            "http://kc.example/realms/tenant-acme/x",
            "https://kc.example/realms/tenant-acme/x/",
            "https://kc.example/realms/master",
        ] {
            assert_eq!(template.slug(other), None, "{other}");
        }
    }

    #[test]
    fn only_paths_hold_a_slug() {
        for wrong in [
            "https://{slug}.example/realms/x",
            "https://{slug}/realms/x",
            "https://kc.example:{slug}/x",
            "https://kc.example/?realm={slug}",
            "https://kc.example/#{slug}",
            "https://kc.example/{slug}/{slug}",
            "https://kc.example/{realm}/{slug}",
            "https://kc.example/none",
            "kc.example/{slug}",
        ] {
            assert!(Template::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn rules_allow_by_the_whole_or_the_beginning() {
        for (rule, slug, allowed) in [
            ("acme", "acme", true),
            ("acme", "acme-2", false),
            ("eu-*", "eu-1", true),
            ("eu-*", "eu", false),
            ("*", "anything", true),
        ] {
            assert!(is_rule(rule));
            assert_eq!(allows(rule, slug), allowed, "{rule} {slug}");
        }
        for wrong in ["", "A*", "a/*", "*a", "a*b", "**", "-*", "a-"] {
            assert!(!is_rule(wrong), "{wrong}");
        }
    }
}
