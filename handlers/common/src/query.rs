//! Reading the arguments of a query, so that a refusal lists every bad one.

use postern_contract::Detail;
use postern_contract::idempotency::query_pairs;

use crate::Failure;

/// The decoded arguments, and what is wrong with them so far.
#[derive(Debug)]
pub struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    details: Vec<Detail>,
}

impl Query {
    /// Reads the raw query.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` when a name or value is not UTF-8.
    pub fn parse(raw: Option<&str>) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for (name, value) in query_pairs(raw.unwrap_or_default()) {
            match (String::from_utf8(name), String::from_utf8(value)) {
                (Ok(name), Ok(value)) => pairs.push((name, value)),
                (name, _) => {
                    let name = name.unwrap_or_else(|error| {
                        String::from_utf8_lossy(error.as_bytes()).into_owned()
                    });
                    return Err(Failure::invalid_field(&name, "must be UTF-8"));
                }
            }
        }
        Ok(Self {
            pairs,
            known: Vec::new(),
            details: Vec::new(),
        })
    }

    /// Every argument, decoded, in its order: for whoever has a grammar of its own.
    #[must_use]
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    /// An argument, read by `read`; repeated ones are refused.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(name);
        let mut values = self
            .pairs
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.as_str());
        let value = values.next()?;
        let read = if values.next().is_some() {
            Err("must be given once".to_owned())
        } else {
            read(value)
        };
        read.map_err(|reason| self.details.push(Detail::new(name, reason)))
            .ok()
    }

    /// Every argument whose name begins so, in order, each read by `read` with the rest
    /// of its name.
    pub fn prefixed<T>(
        &mut self,
        prefix: &str,
        mut read: impl FnMut(&str, &str) -> Result<T, Detail>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        let details = &mut self.details;
        self.pairs
            .retain(|(name, value)| match name.strip_prefix(prefix) {
                None => true,
                Some(rest) => {
                    match read(rest, value) {
                        Ok(value) => values.push(value),
                        Err(detail) => details.push(detail),
                    }
                    false
                }
            });
        values
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` with every complaint, unknown arguments included.
    pub fn finish(mut self) -> Result<(), Failure> {
        let known = if self.known.is_empty() {
            "none".to_owned()
        } else {
            self.known.join(", ")
        };
        for (name, _) in self
            .pairs
            .iter()
            .filter(|(name, _)| !self.known.contains(&name.as_str()))
            .take(50)
        {
            let shown: String = name.chars().take(64).collect();
            self.details.push(Detail::new(
                shown,
                format!("is not known here; known are {known}"),
            ));
        }
        if self.details.is_empty() {
            Ok(())
        } else {
            Err(Failure::invalid(self.details))
        }
    }
}

/// An instant in RFC 3339.
///
/// # Errors
/// The rule, when the value breaks it.
pub fn instant(value: &str) -> Result<jiff::Timestamp, String> {
    value
        .parse()
        .map_err(|_| "must be an instant of RFC 3339, such as 2024-01-15T10:00:00Z".to_owned())
}

/// A text of 1 to `max` characters without control characters.
pub fn text(max: usize) -> impl Fn(&str) -> Result<String, String> {
    move |value| {
        let good =
            (1..=max).contains(&value.chars().count()) && !value.chars().any(char::is_control);
        if good {
            Ok(value.to_owned())
        } else {
            Err(format!(
                "must have 1 to {max} characters, none a control character"
            ))
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn every_bad_argument_is_listed() {
        let mut query = Query::parse(Some("from=today&actor=a&actor=b&other=1")).unwrap();
        query.optional("from", instant);
        query.optional("actor", text(10));
        let failure = query.finish().unwrap_err();
        let named: Vec<_> = failure
            .verdict()
            .details
            .iter()
            .map(|detail| detail.field.clone())
            .collect();
        assert_eq!(named, ["from", "actor", "other"]);
    }

    #[test]
    fn good_arguments_are_read() {
        let mut query = Query::parse(Some("from=2024-01-15T10:00:00Z&actor=a%20b")).unwrap();
        assert!(query.optional("from", instant).is_some());
        assert_eq!(query.optional("actor", text(10)).unwrap(), "a b");
        assert_eq!(query.optional("to", instant), None);
        query.finish().unwrap();
        assert!(Query::parse(Some("a=%ff")).is_err());
    }
}
