//! HTTP/1.1 messages taken apart for comparison, without judging them.

/// A message: its first line, its headers, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HttpMessage {
    pub(crate) first_line: Vec<u8>,
    /// Names in lower case.
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// As it came over the wire.
    pub(crate) raw_body: Vec<u8>,
}

impl HttpMessage {
    /// Splits bytes into head and body. None without the end of a head.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
        let mut lines = bytes[..end].split(|byte| *byte == b'\n');
        let trim = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        let first_line = lines.next().map(trim)?;
        let headers = lines.map(|line| {
            let line = trim(line);
            let colon = line
                .iter()
                .position(|byte| *byte == b':')
                .unwrap_or(line.len());
            let value = line
                .get(colon + 1..)
                .unwrap_or_default()
                .trim_ascii()
                .to_vec();
            (line[..colon].to_ascii_lowercase(), value)
        });
        Some(Self {
            first_line,
            headers: headers.collect(),
            raw_body: bytes[end + 4..].to_vec(),
        })
    }

    /// Requests that came one after the other. One whose body is in chunks is
    /// taken for the last.
    pub(crate) fn all(bytes: &[u8]) -> Option<Vec<Self>> {
        let mut all = Vec::new();
        let mut rest = bytes.to_vec();
        while !rest.is_empty() {
            let mut request = Self::parse(&rest)?;
            rest = match (request.is_chunked(), request.length()) {
                (false, length) => {
                    let len = length.unwrap_or(0).min(request.raw_body.len());
                    request.raw_body.split_off(len)
                }
                (true, _) => Vec::new(),
            };
            all.push(request);
        }
        Some(all)
    }

    fn length(&self) -> Option<usize> {
        let digits = self.get(b"content-length")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }

    fn is_chunked(&self) -> bool {
        self.get(b"transfer-encoding") == Some(b"chunked")
    }

    /// The body without chunks around it. None while more is to come.
    pub(crate) fn body(&self) -> Option<Vec<u8>> {
        if self.is_chunked() {
            return dechunk(&self.raw_body);
        }
        (self.raw_body.len() >= self.length().unwrap_or(0)).then(|| self.raw_body.clone())
    }
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|part| part == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
        let data = rest.get(line_end + 2..)?;
        if size == 0 {
            return data.starts_with(b"\r\n").then_some(body);
        }
        body.extend_from_slice(data.get(..size)?);
        rest = data.get(size + 2..)?;
    }
}
