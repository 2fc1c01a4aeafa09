//! HTTP/1.1 messages taken apart for comparison, without judging them.

/// A message: its first line, its headers, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HttpMessage {
    /// Answers in front of the one that counts, such as `100 Continue`, as they came.
    pub(crate) interim: Vec<u8>,
    pub(crate) first_line: Vec<u8>,
    /// Names in lower case.
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// As it came over the wire.
    pub(crate) raw_body: Vec<u8>,
}

impl HttpMessage {
    /// Splits bytes into head and body. None without the end of a head.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end_of_head = |rest: &[u8]| {
            let end = rest.windows(4).position(|part| part == b"\r\n\r\n");
            end.map(|end| end + 4)
        };
        let mut start = 0;
        let mut end = end_of_head(bytes)?;
        while bytes[start..].starts_with(b"HTTP/1.1 1")
            && !bytes[start..].starts_with(b"HTTP/1.1 101")
        {
            start = end;
            end += end_of_head(&bytes[start..])?;
        }
        let mut lines = bytes[start..end - 4].split(|byte| *byte == b'\n');
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
            interim: bytes[..start].to_vec(),
            first_line,
            headers: headers.collect(),
            raw_body: bytes[end..].to_vec(),
        })
    }

    /// Requests that came one after the other. Bytes behind the last that are
    /// none belong to its body.
    pub(crate) fn requests(bytes: &[u8]) -> Vec<Self> {
        let is_request = |rest: &[u8]| {
            let line = rest.split(|byte| *byte == b'\r').next();
            line.is_some_and(|line| line.windows(7).any(|part| part == b" HTTP/1"))
        };
        Self::split(bytes, is_request, false)
    }

    /// Answers that came one after the other.
    pub(crate) fn answers(bytes: &[u8], to_head: bool) -> Vec<Self> {
        Self::split(bytes, |rest| rest.starts_with(b"HTTP/1."), to_head)
    }

    fn split(bytes: &[u8], begins: impl Fn(&[u8]) -> bool, bodiless: bool) -> Vec<Self> {
        let mut all = Vec::new();
        let mut rest = bytes.to_vec();
        while let Some(mut message) = Self::parse(&rest) {
            let len = if bodiless {
                Some(0)
            } else {
                message.body_len()
            };
            rest = match len.filter(|len| begins(&message.raw_body[*len..])) {
                Some(len) => message.raw_body.split_off(len),
                None => Vec::new(),
            };
            all.push(message);
        }
        if !rest.is_empty() {
            all.push(Self {
                raw_body: rest,
                ..Self::default()
            });
        }
        all
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// Whether it says that the connection ends with it.
    pub(crate) fn closes(&self) -> bool {
        let connection = self.get(b"connection");
        connection.is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
    }

    fn length(&self) -> Option<usize> {
        let digits = self.get(b"content-length")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn is_chunked(&self) -> bool {
        self.get(b"transfer-encoding") == Some(b"chunked")
    }

    /// How many of the bytes its framing takes. None while more are to come.
    fn body_len(&self) -> Option<usize> {
        if self.is_chunked() {
            return dechunk(&self.raw_body).map(|(_, len)| len);
        }
        Some(self.length().unwrap_or(0)).filter(|len| *len <= self.raw_body.len())
    }

    /// The body without chunks around it. None while more is to come, or where
    /// something follows the last chunk.
    pub(crate) fn body(&self) -> Option<Vec<u8>> {
        if self.is_chunked() {
            let (body, len) = dechunk(&self.raw_body)?;
            return (len == self.raw_body.len()).then_some(body);
        }
        self.body_len().map(|_| self.raw_body.clone())
    }

    /// How many bytes there are beyond what the head says; negative where some are
    /// missing, none where it says nothing.
    pub(crate) fn excess(&self) -> i64 {
        let count = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        match self.length() {
            Some(length) if !self.is_chunked() => count(self.raw_body.len()) - count(length),
            _ => 0,
        }
    }
}

/// What chunks hold, and how many bytes they take. None while more are to come.
fn dechunk(chunks: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut rest = chunks;
    loop {
        let line_end = rest.windows(2).position(|part| part == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
        let data = rest.get(line_end + 2..)?;
        if size == 0 {
            let rest = data.strip_prefix(b"\r\n")?;
            return Some((body, chunks.len() - rest.len()));
        }
        body.extend_from_slice(data.get(..size)?);
        rest = data.get(size + 2..)?;
    }
}
