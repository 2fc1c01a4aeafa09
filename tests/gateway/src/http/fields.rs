//! A request's header list, as nginx holds it and as Lua changes it. Source:
//! lua-nginx's `ngx_http_lua_headers_in.c`.

use super::uri::{Escape, escape};

/// Headers in the order they came, with their names as spelled.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fields(pub Vec<(Vec<u8>, Vec<u8>)>);

/// Headers that nginx keeps a pointer to. Setting one changes the first copy and
/// leaves the others alone; any other header loses its further copies.
const POINTED_AT: [&str; 17] = [
    "host",
    "connection",
    "if-modified-since",
    "if-unmodified-since",
    "if-match",
    "if-none-match",
    "user-agent",
    "referer",
    "content-length",
    "content-type",
    "range",
    "if-range",
    "expect",
    "accept-encoding",
    "via",
    "keep-alive",
    "x-real-ip",
];

impl Fields {
    /// The first value of a name, whatever its case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut matching = self
            .0
            .iter()
            .filter(|(known, _)| same(known, name.as_bytes()));
        matching.next().map(|(_, value)| value.as_slice())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let matching = self
            .0
            .iter()
            .filter(move |(known, _)| same(known, name.as_bytes()));
        matching.map(|(_, value)| value.as_slice())
    }

    /// All values of a name as one, joined as nginx's variables join them.
    #[must_use]
    pub fn joined(&self, name: &str, separator: &[u8]) -> Option<Vec<u8>> {
        let values: Vec<&[u8]> = self.all(name).collect();
        (!values.is_empty()).then(|| values.join(separator))
    }

    /// Sets a header, or deletes it where there is no value or an empty one.
    pub fn set(&mut self, name: &[u8], value: Option<&[u8]>) {
        let name = escape(name, Escape::HeaderName);
        let value = value.map(|value| escape(value, Escape::HeaderValue));
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            self.0.retain(|(known, _)| !same(known, &name));
            return;
        };
        let Some(first) = self.0.iter().position(|(known, _)| same(known, &name)) else {
            self.0.push((name, value));
            return;
        };
        if let Some((_, old)) = self.0.get_mut(first) {
            *old = value;
        }
        if !POINTED_AT
            .iter()
            .any(|pointed| same(&name, pointed.as_bytes()))
        {
            let mut index = 0;
            self.0.retain(|(known, _)| {
                index += 1;
                index == first + 1 || !same(known, &name)
            });
        }
    }

    /// Adds a header beside those there are.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let value = escape(value, Escape::HeaderValue);
        self.0.push((escape(name, Escape::HeaderName), value));
    }
}

/// Whether two names are one, whatever their case.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.eq_ignore_ascii_case(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let own = |text: &str| text.as_bytes().to_vec();
        Fields(
            lines
                .iter()
                .map(|(name, value)| (own(name), own(value)))
                .collect(),
        )
    }

    #[test]
    fn setting_keeps_one_copy_in_its_place() {
        let mut headers = fields(&[("X-A", "1"), ("X-Multi", "c1"), ("x-multi", "c2")]);
        headers.set(b"x-Multi", Some(b"r"));
        headers.set(b"X_New", Some(b"a\nb"));
        assert_eq!(
            headers,
            fields(&[("X-A", "1"), ("X-Multi", "r"), ("X_New", "a%0Ab")])
        );
    }

    #[test]
    fn null_and_empty_delete_every_copy() {
        let mut headers = fields(&[("X-A", "1"), ("x-a", "2"), ("X_A", "3"), ("B", "4")]);
        headers.set(b"X-A", None);
        headers.set(b"b", Some(b""));
        assert_eq!(headers, fields(&[("X_A", "3")]));
    }
}
