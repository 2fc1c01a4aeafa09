//! URIs as nginx reads and writes them: normalised and decoded on the way in,
//! escaped on the way out. Sources: nginx's `ngx_http_parse_complex_uri`,
//! `ngx_escape_uri`, lua-nginx's `ngx_http_lua_args.c`.

/// A request target that nginx refuses with a 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a request target")]
pub struct BadTarget;

/// What nginx keeps of a request target.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Target {
    /// The bytes as they came, without scheme and authority (`r->unparsed_uri`).
    pub raw: Vec<u8>,
    /// The path, decoded, dots resolved, slashes merged (`$uri`).
    pub path: Vec<u8>,
    /// What stands after `?`, up to a fragment (`$args`).
    pub args: Vec<u8>,
    /// Whether the path held a `%` (`r->quoted_uri`).
    pub quoted: bool,
    /// Whether the raw bytes may go upstream (`r->valid_unparsed_uri`).
    pub raw_is_valid: bool,
    /// The host of an absolute-form target.
    pub host: Option<Vec<u8>>,
}

impl Target {
    /// Reads the second word of a request line.
    pub fn parse(word: &[u8]) -> Result<Self, BadTarget> {
        if word.iter().any(|byte| *byte <= 0x20 || *byte == 0x7f) {
            return Err(BadTarget);
        }
        if word.first() == Some(&b'/') {
            return Self::origin(word.to_vec(), true);
        }
        let (host, rest) = absolute_form(word)?;
        let mut target = match rest.first() {
            None => Self::origin(b"/".to_vec(), true)?,
            Some(b'/') => Self::origin(rest.to_vec(), true)?,
            Some(_) => Self::origin([b"/", rest].concat(), false)?,
        };
        target.host = Some(host.to_vec());
        Ok(target)
    }

    fn origin(raw: Vec<u8>, raw_is_valid: bool) -> Result<Self, BadTarget> {
        let (path, args_at) = normalise(&raw)?;
        let args = args_at.and_then(|at| raw.get(at..)).unwrap_or_default();
        let args = args.split(|byte| *byte == b'#').next().unwrap_or_default();
        let path_end = args_at.map_or(raw.len(), |at| at - 1);
        let quoted = raw.get(..path_end).is_some_and(|path| path.contains(&b'%'));
        Ok(Self {
            args: args.to_vec(),
            path,
            quoted,
            raw_is_valid,
            host: None,
            raw,
        })
    }
}

/// `http://host:port/path` → host and what follows the authority.
fn absolute_form(word: &[u8]) -> Result<(&[u8], &[u8]), BadTarget> {
    let colon = word
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(BadTarget)?;
    let (scheme, rest) = word.split_at(colon);
    let scheme_ok = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let rest = rest
        .strip_prefix(b"://")
        .filter(|_| scheme_ok)
        .ok_or(BadTarget)?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = match authority.iter().rposition(|byte| *byte == b':') {
        Some(at) if !authority.ends_with(b"]") => authority.get(..at).unwrap_or_default(),
        _ => authority,
    };
    let host_ok = host
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-[]:_~!$&'()*+,;=".contains(byte));
    if host_ok {
        Ok((host, rest))
    } else {
        Err(BadTarget)
    }
}

/// Where the walk over a path stands.
#[derive(Clone, Copy)]
enum At {
    Usual,
    Slash,
    Dot,
    DotDot,
}

/// The normalised path, and where the arguments begin.
fn normalise(raw: &[u8]) -> Result<(Vec<u8>, Option<usize>), BadTarget> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = At::Usual;
    let mut next = 0;
    let mut args_at = None;
    while let Some(&byte) = raw.get(next) {
        next += 1;
        let (byte, quoted) = if byte == b'%' {
            let decoded = hex_pair(raw.get(next..next + 2)).ok_or(BadTarget)?;
            next += 2;
            if decoded == 0 {
                return Err(BadTarget);
            }
            (decoded, true)
        } else {
            (byte, false)
        };
        // A quoted `%`, `#` or `?` is an ordinary byte; any other quoted byte,
        // slash and dot included, counts as if it had come plain.
        if quoted && matches!(byte, b'%' | b'#' | b'?') {
            out.push(byte);
            at = At::Usual;
            continue;
        }
        if matches!(byte, b'?' | b'#') {
            if byte == b'?' {
                args_at = Some(next);
            }
            break;
        }
        at = match (at, byte) {
            (At::Usual, b'/') => {
                out.push(byte);
                At::Slash
            }
            (At::Slash, b'/') => At::Slash,
            (At::Slash, b'.') => {
                out.push(byte);
                At::Dot
            }
            (At::Dot, b'/') => {
                out.pop();
                At::Slash
            }
            (At::Dot, b'.') => {
                out.push(byte);
                At::DotDot
            }
            (At::DotDot, b'/') => {
                drop_segment(&mut out)?;
                At::Slash
            }
            _ => {
                out.push(byte);
                At::Usual
            }
        };
    }
    match at {
        At::Dot => {
            out.pop();
        }
        At::DotDot => drop_segment(&mut out)?,
        At::Usual | At::Slash => {}
    }
    Ok((out, args_at))
}

/// `/a/b/..` → `/a/`; one above the root is refused.
fn drop_segment(out: &mut Vec<u8>) -> Result<(), BadTarget> {
    let parent = out.len().checked_sub(4).ok_or(BadTarget)?;
    let slash = out
        .get(..=parent)
        .and_then(|kept| kept.iter().rposition(|byte| *byte == b'/'))
        .ok_or(BadTarget)?;
    out.truncate(slash + 1);
    Ok(())
}

fn hex_pair(pair: Option<&[u8]>) -> Option<u8> {
    let [high, low] = pair? else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// Which bytes an escape leaves alone.
#[derive(Clone, Copy, Debug)]
pub enum Escape {
    /// A path (`NGX_ESCAPE_URI`).
    Path,
    /// An argument's name or value (lua-nginx's `uri_component`).
    Component,
    /// A query that is already one: control characters and spaces only.
    Args,
    /// A header's name.
    HeaderName,
    /// A header's value.
    HeaderValue,
}

impl Escape {
    fn keeps(self, byte: u8) -> bool {
        match self {
            Self::Path => (0x21..0x7f).contains(&byte) && !b"\"#%<>?\\^`{|}".contains(&byte),
            Self::Component => byte.is_ascii_alphanumeric() || b"-._~!'()*".contains(&byte),
            Self::Args => byte > 0x20 && byte != 0x7f,
            Self::HeaderName => {
                (0x21..0x7f).contains(&byte) && !b"\"(),/:;<=>?@[]\\{}".contains(&byte)
            }
            Self::HeaderValue => (byte >= 0x20 && byte != 0x7f) || byte == b'\t',
        }
    }
}

/// Percent-encodes the bytes that do not belong.
#[must_use]
pub fn escape(bytes: &[u8], kind: Escape) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if kind.keeps(*byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// An argument's value as Lua holds it: none for one without `=`.
pub type ArgValue = Option<Vec<u8>>;

/// The arguments of a query, by name in order of first sight, as the Lua table
/// `ngx.req.get_uri_args(0)` holds them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Args(pub Vec<(Vec<u8>, Vec<ArgValue>)>);

impl Args {
    /// Reads a query. A pair with an empty name is left out.
    #[must_use]
    pub fn parse(query: &[u8]) -> Self {
        let mut args = Self::default();
        for pair in query.split(|byte| *byte == b'&') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = unescape_plus(halves.next().unwrap_or_default());
            if !name.is_empty() {
                args.values_mut(&name)
                    .push(halves.next().map(unescape_plus));
            }
        }
        args
    }

    fn values_mut(&mut self, name: &[u8]) -> &mut Vec<ArgValue> {
        let at = self.0.iter().position(|(known, _)| known == name);
        let at = at.unwrap_or_else(|| {
            self.0.push((name.to_vec(), Vec::new()));
            self.0.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.0[at].1
    }

    /// All values of a name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[ArgValue]> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, values)| values.as_slice())
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &[u8]) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Puts one value in place of all.
    pub fn set(&mut self, name: &[u8], value: Vec<u8>) {
        *self.values_mut(name) = vec![Some(value)];
    }

    /// Adds a value beside those there are.
    pub fn add(&mut self, name: &[u8], value: Vec<u8>) {
        self.values_mut(name).push(Some(value));
    }

    /// The query these arguments make (`ngx.encode_args`).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in self
            .0
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
        {
            if !out.is_empty() {
                out.push(b'&');
            }
            out.extend(escape(name, Escape::Component));
            if let Some(value) = value {
                out.push(b'=');
                out.extend(escape(value, Escape::Component));
            }
        }
        out
    }
}

/// `+` is a space, `%XX` a byte, and a `%` that begins nothing stays.
fn unescape_plus(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut next = 0;
    while let Some(&byte) = bytes.get(next) {
        next += 1;
        match (byte, hex_pair(bytes.get(next..next + 2))) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                next += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn path(raw: &str) -> String {
        let target = Target::parse(raw.as_bytes()).unwrap();
        target.path.iter().map(|byte| char::from(*byte)).collect()
    }

    #[test]
    fn paths_are_normalised_as_nginx_does() {
        for (raw, judged) in [
            ("/m/public/..%2fadmin/secret", "/m/admin/secret"),
            ("//a///b", "/a/b"),
            ("/m/a%20b/c%3Fd", "/m/a b/c?d"),
            ("/m/100%25", "/m/100%"),
            ("/m/%2e%2e/x", "/x"),
            ("/m/./x/.", "/m/x/"),
            ("/m/x/..", "/m/"),
            ("/m/..x/...", "/m/..x/..."),
            ("/m/a#b", "/m/a"),
            ("/m/a%23b", "/m/a#b"),
            ("/m/a%2Fb", "/m/a/b"),
            ("/m/%252e%252e/x", "/m/%2e%2e/x"),
            ("http://api.example.com/m/abs?x=1", "/m/abs"),
            ("http://api.example.com:80", "/"),
            ("http://api.example.com?x=1", "/"),
        ] {
            assert_eq!(path(raw), judged, "{raw}");
        }
    }

    #[test]
    fn what_nginx_refuses_is_refused() {
        for raw in [
            "/..",
            "/m/../../x",
            "/%zz",
            "/%4",
            "/%00",
            "*",
            "x",
            "/a\x7f",
            "1://h/",
        ] {
            assert_eq!(Target::parse(raw.as_bytes()), Err(BadTarget), "{raw}");
        }
    }

    #[test]
    fn arguments_are_read_as_a_lua_table() {
        let args = Args::parse(b"a=1+2&flag&=x&&empty=&a=%2B&bad=%zz%4");
        let value = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(args.get(b"a"), Some(&[value("1 2"), value("+")][..]));
        assert_eq!(args.get(b"flag"), Some(&[None][..]));
        assert_eq!(args.get(b"empty"), Some(&[value("")][..]));
        assert_eq!(args.get(b"bad"), Some(&[value("%zz%4")][..]));
        assert_eq!(args.get(b""), None);
        assert_eq!(args.encode(), b"a=1%202&a=%2B&flag&empty=&bad=%25zz%254");
    }

    #[test]
    fn a_query_ends_at_the_fragment() {
        let target = Target::parse(b"/m/x?a=1#b?c").unwrap();
        assert_eq!(target.args, b"a=1");
        assert_eq!(target.raw, b"/m/x?a=1#b?c");
    }

    #[test]
    fn escapes() {
        assert_eq!(
            escape(b"/new/%2e/a b\xe9", Escape::Path),
            b"/new/%252e/a%20b%E9"
        );
        assert_eq!(escape(b"v w&x", Escape::Component), b"v%20w%26x");
        assert_eq!(
            escape(b"a\r\nX-Evil: 1", Escape::HeaderValue),
            b"a%0D%0AX-Evil: 1"
        );
    }
}
