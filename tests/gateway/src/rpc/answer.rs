//! What APISIX does with a runner's answer to a request, step by step in the
//! order in which `init.lua` does it.

use postern_wire::message::{Action, Entry, Rewrite, Stop};

use crate::exchange::{End, Exchange};
use crate::http::answer::{Answer, LuaError};
use crate::http::uri::{Escape, escape};
use crate::plugins::ext_plugin::Verdict;

/// Headers of the response that a rewrite cannot set.
pub const EXCLUDED: [&[u8]; 10] = [
    b"connection",
    b"content-length",
    b"transfer-encoding",
    b"location",
    b"server",
    b"www-authenticate",
    b"content-encoding",
    b"content-type",
    b"content-location",
    b"content-language",
];

/// Applies an answer. A verdict ends the request, none lets it go on.
pub async fn apply(exchange: &mut Exchange<'_>, action: Option<Action>) -> Result<Verdict, End> {
    match action {
        Some(Action::Stop(stop)) => Ok(apply_stop(exchange, stop)?),
        Some(Action::Rewrite(rewrite)) => apply_rewrite(exchange, rewrite).await,
        Some(Action::Unknown(_)) | None => Ok(None),
    }
}

fn apply_stop(exchange: &mut Exchange<'_>, stop: Stop) -> Result<Verdict, LuaError> {
    response_headers(&mut exchange.answer, &stop.headers, &[])?;
    let status = if stop.status == 0 { 200 } else { stop.status };
    Ok(Some((status, stop.body.filter(|body| !body.is_empty()))))
}

/// Sets the first of a name and adds the others.
pub fn response_headers(
    answer: &mut Answer,
    headers: &[Entry],
    excluded: &[&[u8]],
) -> Result<(), LuaError> {
    let mut set: Vec<Vec<u8>> = Vec::new();
    for Entry { name, value } in headers {
        let name = there(name.as_deref())?.to_ascii_lowercase();
        if excluded.contains(&name.as_slice()) {
            continue;
        }
        if set.contains(&name) {
            answer.add(&name, value.as_deref())?;
        } else {
            answer.set(&name, value.as_deref())?;
            set.push(name);
        }
    }
    Ok(())
}

/// An empty name is one; none is Lua's nil, of which it makes neither a header nor
/// an argument.
fn there(name: Option<&[u8]>) -> Result<&[u8], LuaError> {
    name.ok_or_else(|| LuaError::new("a name is nil"))
}

async fn apply_rewrite(exchange: &mut Exchange<'_>, rewrite: Rewrite) -> Result<Verdict, End> {
    let path = rewrite.path.map(|path| escape(&path, Escape::Path));
    for Entry { name, value } in &rewrite.headers {
        let name = there(name.as_deref())?;
        exchange.request.set_header(name, value.as_deref())?;
        if name.eq_ignore_ascii_case(b"host") {
            exchange.request.upstream_host.clone_from(value);
        }
    }
    if let Some(body) = rewrite.body.filter(|body| !body.is_empty()) {
        let request = &mut exchange.request;
        request.body.whole(exchange.reader, exchange.writer).await?;
        let length = body.len().to_string();
        request.set_header(b"Content-Length", Some(length.as_bytes()))?;
        request.body.replace(body);
    }
    response_headers(&mut exchange.answer, &rewrite.resp_headers, &EXCLUDED)?;
    if !rewrite.args.is_empty() {
        let args = exchange.request.args();
        let mut changed: Vec<&[u8]> = Vec::new();
        for Entry { name, value } in &rewrite.args {
            let name = there(name.as_deref())?;
            match value {
                None => args.remove(name),
                Some(value) if changed.contains(&name) => {
                    args.add(name, value.clone());
                }
                Some(value) => {
                    args.set(name, value.clone());
                    changed.push(name);
                }
            }
        }
        let query = args.encode();
        exchange.request.set_args(query);
    }
    if let Some(path) = path {
        exchange.request.upstream_uri = exchange.request.with_args(&path);
    }
    Ok(None)
}
