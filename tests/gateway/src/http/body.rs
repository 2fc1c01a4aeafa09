//! A request's body: taken off the connection piece by piece, or as a whole into
//! memory and, beyond 16 KiB, a temporary file, as nginx spools it.

use std::io::{self, SeekFrom};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::client::{Reader, Writer};
use super::head::Framing;

/// `client_body_buffer_size`: beyond it a spooled body goes to a file.
const IN_MEMORY: u64 = 16 * 1024;
/// The longest body spooled where the configuration sets no limit: larger than
/// any body limit of the API. Beyond it, 413.
const MOST: u64 = 6 << 30;
/// The longest line of a chunked body: a size with its extensions, a trailer.
const CHUNK_LINE: usize = 4 * 1024;
/// Bytes of an unread body that are read and dropped to keep a connection alive:
/// the answer has promised that it goes on. nginx knows no bound but time.
const DISCARD: u64 = 64 << 20;

/// Why a body cannot be had.
#[derive(Debug)]
pub enum BodyError {
    /// The client left or kept silent: there is nobody to answer.
    Gone,
    /// nginx answers this status.
    Status(u16),
}

/// A request's body and how much of it has been read.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    /// nginx's `content_length_n`: announced, set by Lua, or counted.
    length: Option<u64>,
    /// nginx has begun to read it, or seen that there is nothing to read.
    asked: bool,
    /// Bytes of the body, or of the chunk, still to come.
    left: u64,
    chunk: Chunk,
    done: bool,
    expects_continue: bool,
    limit: u64,
    read: u64,
    wait: Duration,
    spool: Option<Spool>,
}

/// What a chunked body expects next.
#[derive(Clone, Copy, Debug)]
enum Chunk {
    Size,
    Data,
    End,
    Trailer,
}

/// A body read as a whole.
#[derive(Debug)]
pub enum Spool {
    /// A small one.
    Memory(Vec<u8>),
    /// A long one: its file and length.
    File(tokio::fs::File, u64),
}

impl Body {
    /// A body that has not been looked at. `limit` 0 sets none.
    #[must_use]
    pub fn new(framing: Framing, expects_continue: bool, limit: u64, wait: Duration) -> Self {
        let length = match framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked => None,
        };
        Self {
            framing,
            length,
            asked: false,
            left: length.unwrap_or(0),
            chunk: Chunk::Size,
            done: matches!(framing, Framing::None | Framing::Length(0)),
            expects_continue,
            limit: if limit == 0 { MOST } else { limit },
            read: 0,
            wait,
            spool: None,
        }
    }

    /// Lua has set `Content-Length`, or deleted it. A body that nobody has asked for
    /// yet is read by it, however long it is, unless it comes in chunks. Later
    /// only the upstream is told.
    pub fn announce(&mut self, length: Option<u64>) {
        self.length = length;
        if !self.asked && self.framing != Framing::Chunked {
            self.framing = length.map_or(Framing::None, Framing::Length);
            self.left = length.unwrap_or(0);
            self.done = self.left == 0;
        }
    }

    /// Lua has set `Expect`, or deleted it; too late once somebody has asked.
    pub fn expect(&mut self, to_continue: bool) {
        self.expects_continue = to_continue && !self.asked;
    }

    /// Sets the longest body that is taken; 0 sets none.
    pub fn limit(&mut self, limit: u64) {
        self.limit = if limit == 0 { MOST } else { limit };
    }

    /// Refuses a body whose announced length is over the limit.
    pub fn check_length(&self) -> Result<(), BodyError> {
        match self.framing {
            Framing::Length(length) if length > self.limit => Err(BodyError::Status(413)),
            _ => Ok(()),
        }
    }

    /// How the body reaches the gateway.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The whole body, if it has been read and is short.
    #[must_use]
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.spool {
            Some(Spool::Memory(body)) => Some(body),
            _ => None,
        }
    }

    /// Bytes of body read so far.
    #[must_use]
    pub fn read_so_far(&self) -> u64 {
        self.read
    }

    /// Tells a client that waits for it to go ahead.
    pub async fn begin(&mut self, writer: &mut Writer) -> Result<(), BodyError> {
        self.asked = true;
        if std::mem::take(&mut self.expects_continue) {
            let line = writer.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            line.map_err(|_| BodyError::Gone)?;
        }
        Ok(())
    }

    /// The next piece, decoded; none at the end. To be called after [`Body::begin`].
    pub async fn next(&mut self, reader: &mut Reader) -> Result<Option<Bytes>, BodyError> {
        while !self.done {
            if self.framing == Framing::Chunked && !matches!(self.chunk, Chunk::Data) {
                self.chunk_line(reader).await?;
                continue;
            }
            if reader.held.is_empty() {
                self.fill(reader).await?;
            }
            let len = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(reader.held.len());
            let piece = reader.held.split_to(len).freeze();
            self.left -= len as u64;
            self.read += len as u64;
            if self.left == 0 {
                self.chunk = Chunk::End;
                self.done = self.framing != Framing::Chunked;
            }
            if self.read > self.limit {
                return Err(BodyError::Status(413));
            }
            return Ok(Some(piece));
        }
        Ok(None)
    }

    async fn fill(&self, reader: &mut Reader) -> Result<(), BodyError> {
        reader.fill(self.wait).await.map_err(|_| BodyError::Gone)
    }

    /// One line of a chunked body's framing.
    async fn chunk_line(&mut self, reader: &mut Reader) -> Result<(), BodyError> {
        let bad = BodyError::Status(400);
        let end = loop {
            if let Some(at) = reader.held.iter().position(|byte| *byte == b'\n') {
                break at;
            }
            if reader.held.len() > CHUNK_LINE {
                return Err(bad);
            }
            self.fill(reader).await?;
        };
        let mut line: BytesMut = reader.held.split_to(end);
        reader.held.advance(1);
        if line.last() != Some(&b'\r') {
            return Err(bad);
        }
        line.truncate(end - 1);
        self.chunk = match self.chunk {
            Chunk::End if line.is_empty() => Chunk::Size,
            Chunk::End => return Err(bad),
            Chunk::Trailer => {
                self.done = line.is_empty();
                Chunk::Trailer
            }
            Chunk::Size | Chunk::Data => {
                let digits = line
                    .as_ref()
                    .split(|byte| matches!(byte, b';' | b' ' | b'\t'))
                    .next();
                let digits = digits.and_then(|digits: &[u8]| std::str::from_utf8(digits).ok());
                let size = digits
                    .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                    .filter(|size| *size < 1 << 59)
                    .ok_or(bad)?;
                self.left = size;
                if size == 0 {
                    Chunk::Trailer
                } else {
                    Chunk::Data
                }
            }
        };
        Ok(())
    }

    /// The whole body; none where the request has none. It is read off the
    /// connection once, and kept.
    pub async fn whole(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> Result<Option<&mut Spool>, BodyError> {
        self.begin(writer).await?;
        if self.spool.is_none() && self.framing != Framing::None {
            let mut spool = Spool::Memory(Vec::new());
            while let Some(piece) = self.next(reader).await? {
                spool
                    .push(&piece)
                    .await
                    .map_err(|_| BodyError::Status(500))?;
            }
            spool.rewind().await.map_err(|_| BodyError::Status(500))?;
            if self.framing == Framing::Chunked {
                self.length = Some(spool.len());
            }
            self.spool = Some(spool);
        }
        Ok(self.spool.as_mut())
    }

    /// Its length, as far as nginx knows or believes.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether it goes on chunk by chunk, as it comes.
    #[must_use]
    pub fn streams_chunks(&self) -> bool {
        self.framing == Framing::Chunked && self.spool.is_none()
    }

    /// A body of which nothing is left.
    #[must_use]
    pub fn empty(framing: Framing) -> Self {
        let mut body = Self::new(framing, false, 0, Duration::ZERO);
        body.done = true;
        body
    }

    /// Puts another body in its place.
    pub fn replace(&mut self, body: Vec<u8>) {
        self.length = Some(body.len() as u64);
        self.framing = Framing::Length(body.len() as u64);
        self.spool = Some(Spool::Memory(body));
    }

    /// Reads and drops what is left. False if the connection cannot go on.
    pub async fn discard(&mut self, reader: &mut Reader) -> bool {
        // A client that still waits for `100 Continue` sends nothing.
        if self.expects_continue && !self.done {
            return false;
        }
        let most = self.read + DISCARD;
        // What is dropped is held to no other bound.
        self.limit = u64::MAX;
        while !self.done && self.read < most {
            if self.next(reader).await.is_err() {
                return false;
            }
        }
        self.done
    }
}

/// A request's body on its way to the upstream, behind the head. It goes on in
/// steps, so that the answer can be read in between.
#[derive(Debug)]
pub struct Upload<'b> {
    pending: BytesMut,
    body: &'b mut Body,
    chunked: bool,
    ended: bool,
}

/// Why a body does not go on.
#[derive(Debug)]
pub enum UploadError {
    /// The client's fault.
    Client(BodyError),
    /// The temporary file cannot be read.
    Spool,
}

impl<'b> Upload<'b> {
    /// An upload that begins with `head`.
    #[must_use]
    pub fn new(head: BytesMut, body: &'b mut Body, chunked: bool) -> Self {
        Self {
            pending: head,
            body,
            chunked,
            ended: false,
        }
    }

    /// Whether all of it is out.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// Sends or fetches a piece. May be given up and begun again. An upstream
    /// that takes no more ends the upload: it may have answered already.
    pub async fn step(&mut self, from: &mut Reader, to: &mut Writer) -> Result<(), UploadError> {
        if !self.pending.is_empty() {
            match to.send_some(&self.pending).await {
                Ok(sent) => self.pending.advance(sent),
                Err(_) => {
                    self.pending.clear();
                    self.ended = true;
                }
            }
            return Ok(());
        }
        let piece = match &mut self.body.spool {
            Some(spool) => spool.next().await.map_err(|_| UploadError::Spool)?,
            None => self.body.next(from).await.map_err(UploadError::Client)?,
        };
        match piece {
            Some(piece) if self.chunked => {
                let size = format!("{:x}\r\n", piece.len());
                self.pending.extend_from_slice(size.as_bytes());
                self.pending.extend_from_slice(&piece);
                self.pending.extend_from_slice(b"\r\n");
            }
            Some(piece) => self.pending.extend_from_slice(&piece),
            None => {
                self.ended = true;
                if self.chunked {
                    self.pending.extend_from_slice(b"0\r\n\r\n");
                }
            }
        }
        Ok(())
    }
}

impl Spool {
    async fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Self::Memory(held) = self {
            if held.len() as u64 + piece.len() as u64 <= IN_MEMORY {
                held.extend_from_slice(piece);
                return Ok(());
            }
            let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
            file.write_all(held).await?;
            *self = Self::File(file, held.len() as u64);
        }
        if let Self::File(file, len) = self {
            file.write_all(piece).await?;
            *len += piece.len() as u64;
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        match self {
            Self::Memory(held) => held.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// All of it in memory; none if it is longer than `most`.
    pub async fn read(&mut self, most: u64) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Memory(held) => Ok(Some(held.clone())),
            Self::File(_, len) if *len > most => Ok(None),
            Self::File(..) => {
                let mut all = Vec::new();
                self.rewind().await?;
                if let Self::File(file, _) = self {
                    file.read_to_end(&mut all).await?;
                }
                self.rewind().await?;
                Ok(Some(all))
            }
        }
    }

    /// The next piece of it; none once all of it has been given.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = match self {
            Self::Memory(held) => std::mem::take(held),
            Self::File(file, _) => {
                let mut piece = Vec::with_capacity(usize::try_from(IN_MEMORY).unwrap_or(0));
                file.read_buf(&mut piece).await?;
                piece
            }
        };
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    /// Back to its beginning.
    async fn rewind(&mut self) -> io::Result<()> {
        if let Self::File(file, _) = self {
            file.flush().await?;
            file.seek(SeekFrom::Start(0)).await?;
        }
        Ok(())
    }
}
