//! A connection from accept to its end: one frame after the other.

use std::pin::pin;

use postern_wire::frame::Frame;
use postern_wire::write::Writer;
use postern_wire::{ErrorCode, FrameType};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::calls::{After, Service};
use super::link::{Link, LinkError, Next};

/// Serves a connection until it ends or, at a frame's boundary, is called back.
/// Gives the socket in the latter case: nothing has been read from it that was not
/// answered, so another process can serve it on.
pub(crate) async fn serve(
    service: &Service,
    stream: UnixStream,
    recall: &CancellationToken,
) -> Option<UnixStream> {
    let mut link = Link::new(stream, service.limits.frame());
    let mut writer = Writer::new();
    let mut recalled = pin!(recall.cancelled());
    loop {
        let frame = match link.next(recalled.as_mut()).await {
            Ok(Next::Frame(frame)) => frame,
            Ok(Next::Closed) => return None,
            Ok(Next::Recalled) => return Some(link.into_stream()),
            Err(error) => {
                failed(service, &mut link, &mut writer, &error).await;
                return None;
            }
        };
        match answer(service, &mut link, &mut writer, &frame).await {
            // A question that nobody waits for any more is still to be answered.
            Ok(After::Continue) if !link.is_out_of_step() => {}
            Ok(_) => return None,
            Err(error) => {
                failed(service, &mut link, &mut writer, &error).await;
                return None;
            }
        }
    }
}

async fn answer(
    service: &Service,
    link: &mut Link,
    writer: &mut Writer,
    frame: &Frame,
) -> Result<After, LinkError> {
    let (answer, after) = match frame.frame_type {
        FrameType::HttpReqCall => service.http_req_call(link, writer, &frame.body).await?,
        FrameType::PrepareConf => service.prepare_conf(writer, &frame.body).await?,
        FrameType::HttpRespCall => service.http_resp_call(link, writer, &frame.body).await?,
        FrameType::Error | FrameType::ExtraInfo => {
            let kind = frame.frame_type;
            service
                .events
                .malformed(&format_args!("a frame of type {kind} out of turn"));
            (writer.error(ErrorCode::BadRequest)?, After::Close)
        }
    };
    link.send(answer).await?;
    Ok(after)
}

/// Says why a connection ends, to the peer too where it may still listen.
async fn failed(service: &Service, link: &mut Link, writer: &mut Writer, error: &LinkError) {
    match error {
        LinkError::Io(error) => tracing::debug!(%error, "a connection broke"),
        LinkError::Frame(_) | LinkError::Cut | LinkError::Slow => {
            service.events.malformed(error);
            // The peer may be gone; there is nobody else to tell.
            if let Ok(frame) = writer.error(ErrorCode::BadRequest) {
                let _ = link.send(frame).await;
            }
        }
        LinkError::TooLarge(error) => tracing::error!(%error, "an answer could not be sent"),
    }
}
