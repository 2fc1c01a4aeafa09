//! HTTP/1.1 as bytes, for what no client library sends: a request that breaks
//! off, or a body whose length nobody told.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const LIMIT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 4 << 20;

/// A connection to the server of a base URL, from a loopback address of its own.
///
/// # Errors
/// Nobody listens there.
pub async fn connect(base: &str) -> Result<TcpStream> {
    let rest = base.strip_prefix("http://").context("not an http URL")?;
    let authority = rest.split('/').next().unwrap_or(rest);
    let Ok(address) = authority.parse() else {
        return TcpStream::connect(authority)
            .await
            .with_context(|| format!("cannot connect to {authority}"));
    };
    let socket = TcpSocket::new_v4()?;
    if authority.starts_with("127.") {
        let [a, b] = postern_harness::token::unique()
            .as_bytes()
            .first_chunk::<2>()
            .copied()
            .unwrap_or([7, 7]);
        socket.bind(std::net::SocketAddr::from(([127, 200, a, b], 0)))?;
    }
    socket
        .connect(address)
        .await
        .with_context(|| format!("cannot connect to {authority}"))
}

/// Sends bytes.
///
/// # Errors
/// The connection is gone.
pub async fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads the answer to the end of the connection: its status and its text.
///
/// # Errors
/// No answer in 30 s, or one that is not HTTP.
pub async fn answer(stream: &mut TcpStream) -> Result<(u16, String)> {
    let mut bytes = Vec::new();
    let reading = async {
        let mut buffer = [0; 16 << 10];
        loop {
            let n = match stream.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                // What came before a reset is the answer all the same.
                Err(_) if !bytes.is_empty() => return Ok(()),
                Err(error) => bail!("the connection broke: {error}"),
            };
            bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
            ensure!(bytes.len() < MAX_ANSWER, "the answer has no end");
        }
    };
    tokio::time::timeout(LIMIT, reading)
        .await
        .context("no whole answer in time")??;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("not an answer: {text:?}"))?;
    Ok((status, text))
}
