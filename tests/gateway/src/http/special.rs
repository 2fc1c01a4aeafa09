//! Status lines and the HTML pages that nginx answers itself. Sources: nginx's
//! `ngx_http_header_filter_module.c`, `ngx_http_special_response.c`.

/// A status line's code and reason. Where nginx knows none, the reason is empty.
#[must_use]
pub fn status_line(status: u16) -> String {
    let reason = match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    };
    format!("{status:03} {reason}")
}

/// The page for a status that nginx answers itself; none where it has no page.
#[must_use]
pub fn page(status: u16) -> Option<Vec<u8>> {
    let title = match status {
        302 => "302 Found".to_owned(),
        494 => "400 Request Header Or Cookie Too Large".to_owned(),
        301..=308 | 400..=429 | 500..=507 => status_line(status),
        _ => return None,
    };
    if title.ends_with(' ') || status == 304 {
        return None;
    }
    let page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n\
         <center><h1>{title}</h1></center>\r\n<hr><center>openresty</center>\r\n\
         </body>\r\n</html>\r\n"
    );
    Some(page.into_bytes())
}

/// The status that goes out for one of nginx's own codes.
#[must_use]
pub fn sent_as(status: u16) -> u16 {
    match status {
        494..=497 => 400,
        498 => 404,
        other => other,
    }
}

/// Whether nginx ends the connection after answering this itself.
#[must_use]
pub fn closes(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 494..=497 | 500 | 501)
}

/// The type nginx gives an answer without one, by the path's extension
/// (`mime.types`, the part an API meets).
#[must_use]
pub fn default_type(path: &[u8]) -> &'static [u8] {
    let segment = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let dot = segment.iter().rposition(|byte| *byte == b'.');
    let extension = dot
        .and_then(|dot| segment.get(dot + 1..))
        .unwrap_or_default();
    match extension.to_ascii_lowercase().as_slice() {
        b"html" | b"htm" | b"shtml" => b"text/html",
        b"css" => b"text/css",
        b"xml" => b"text/xml",
        b"js" => b"application/javascript",
        b"json" => b"application/json",
        b"gif" => b"image/gif",
        b"jpeg" | b"jpg" => b"image/jpeg",
        b"png" => b"image/png",
        b"webp" => b"image/webp",
        b"svg" | b"svgz" => b"image/svg+xml",
        b"ico" => b"image/x-icon",
        b"pdf" => b"application/pdf",
        b"zip" => b"application/zip",
        b"wasm" => b"application/wasm",
        b"woff" => b"font/woff",
        b"woff2" => b"font/woff2",
        b"mp3" => b"audio/mpeg",
        b"mp4" => b"video/mp4",
        b"bin" | b"exe" | b"dll" | b"deb" | b"dmg" | b"iso" | b"img" | b"msi" => {
            b"application/octet-stream"
        }
        _ => b"text/plain",
    }
}
