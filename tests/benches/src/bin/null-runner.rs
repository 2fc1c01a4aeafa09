//! The least a runner can do: our frame loop, the library's verifier over each
//! call, an answer that changes nothing. What the chain costs is measured against it.
//!
//! Started like the real one: the socket's path comes in `APISIX_LISTEN_ADDRESS`.

use anyhow::{Context as _, Result};
use postern_wire::FrameType;
use postern_wire::frame::Decoder;
use postern_wire::verify;

use postern_wire::write::Writer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

fn main() -> Result<()> {
    let address = std::env::var("APISIX_LISTEN_ADDRESS").context("APISIX_LISTEN_ADDRESS")?;
    let path = address
        .strip_prefix("unix:")
        .context("APISIX_LISTEN_ADDRESS: not unix:PATH")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(path).with_context(|| path.to_owned())?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async {
                if let Err(error) = serve(stream).await {
                    eprintln!("null-runner: {error:#}");
                }
            });
        }
    })
}

async fn serve(mut stream: UnixStream) -> Result<()> {
    let (mut decoder, mut writer) = (Decoder::new(), Writer::new());
    loop {
        while let Some(frame) = decoder.next_frame()? {
            let answer = match frame.frame_type {
                FrameType::HttpReqCall => {
                    let id = verify::http_req_call(&frame.body)?;
                    writer.no_action(id)?
                }
                _ => writer.conf_token(1)?,
            };
            stream.write_all(answer).await?;
        }
        if stream.read_buf(decoder.room()).await? == 0 {
            return Ok(());
        }
    }
}
