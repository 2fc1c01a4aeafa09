//! One request and its answer, through APISIX's phases: find the route, rewrite,
//! access, before_proxy, proxy. Sources: `apisix/init.lua`,
//! `apisix/core/response.lua`, lua-nginx's `ngx.print` and `ngx.exit`, nginx's
//! `ngx_http_special_response.c`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::routes::{PassHost, Table};
use crate::gateway::Worker;
use crate::http::answer::{Answer, Asked, LuaError};
use crate::http::body::BodyError;
use crate::http::client::{Reader, Writer};
use crate::http::special;
use crate::request::Request;
use crate::upstream;

/// `postpone_output`: so much is gathered before any of it is sent.
const POSTPONE_OUTPUT: usize = 1460;

/// Statuses that end a request without an answer, whatever was to be sent:
/// a time-out, nginx's own «close», a client that left.
const ENDING: [u16; 3] = [408, 444, 499];

/// Why a request does not go on to the next phase.
#[derive(Debug)]
pub enum End {
    /// `core.response.exit(status, body)`.
    Exit(u16, Option<Vec<u8>>),
    /// Lua threw: a 500.
    Lua(LuaError),
    /// The answer is out.
    Sent,
    /// The connection cannot be used any more: cut it.
    Cut,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Cut
    }
}

impl From<LuaError> for End {
    fn from(error: LuaError) -> Self {
        Self::Lua(error)
    }
}

impl From<BodyError> for End {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Gone => Self::Cut,
            BodyError::Status(status) => Self::Exit(status, None),
        }
    }
}

/// A request, its answer, and the connection they use.
#[derive(Debug)]
pub struct Exchange<'c> {
    /// The gateway's state.
    pub worker: &'c Worker,
    /// From the client.
    pub reader: &'c mut Reader,
    /// To the client.
    pub writer: &'c mut Writer,
    /// The request.
    pub request: Request,
    /// The answer.
    pub answer: Answer,
    /// The `Origin` that `cors` remembered.
    pub origin: Option<Vec<u8>>,
    table: Option<Arc<Table>>,
}

impl<'c> Exchange<'c> {
    /// A request that has just been read.
    pub fn new(
        worker: &'c Worker,
        reader: &'c mut Reader,
        writer: &'c mut Writer,
        request: Request,
    ) -> Self {
        Self {
            answer: Answer::new(request.head.keep_alive),
            worker,
            reader,
            writer,
            request,
            origin: None,
            table: None,
        }
    }

    /// Serves the request. False if the connection ends with it.
    pub async fn serve(mut self) -> bool {
        let end = match self.phases().await {
            Ok(()) => End::Sent,
            Err(End::Lua(error)) => {
                tracing::error!(path = %lossy(&self.request.uri), "{error}");
                self.end(500, None).await
            }
            Err(End::Exit(status, body)) => self.end(status, body).await,
            Err(end) => end,
        };
        matches!(end, End::Sent)
            && self.answer.keep_alive
            && self.request.body.discard(self.reader).await
    }

    /// Answers a request that nginx refuses before APISIX sees it.
    pub async fn refuse(mut self, status: u16) {
        self.answer.keep_alive = false;
        let _already_gone = self.special(status).await;
    }

    async fn end(&mut self, status: u16, body: Option<Vec<u8>>) -> End {
        match self.exit(status, body).await {
            Ok(()) => End::Sent,
            Err(end) => end,
        }
    }

    async fn phases(&mut self) -> Result<(), End> {
        let table = self.worker.table();
        self.table = Some(Arc::clone(&table));
        let request = &mut self.request;
        let method = request.head.method.clone();
        let host = request.head.host.as_deref();
        let route = table
            .router
            .find(host, &request.uri, &method)
            .map(Arc::clone);
        request.route.clone_from(&route);
        for globals in &table.globals {
            globals.rewrite(self).await?;
        }
        let Some(route) = route else {
            for globals in &table.globals {
                globals.access(self).await?;
            }
            let body = b"{\"error_msg\":\"404 Route Not Found\"}\n";
            return Err(End::Exit(404, Some(body.to_vec())));
        };
        route.chain.rewrite(self).await?;
        for globals in &table.globals {
            globals.access(self).await?;
        }
        route.chain.access(self).await?;
        let Some(upstream) = &route.upstream else {
            return Err(End::Exit(503, None));
        };
        let turn = upstream.turn.fetch_add(1, Ordering::Relaxed);
        let Some(node) = upstream.nodes.get(turn % upstream.nodes.len().max(1)) else {
            return Err(End::Exit(503, None));
        };
        match &upstream.pass_host {
            PassHost::Pass => {}
            PassHost::Node => self.request.upstream_host = Some(node.clone().into_bytes()),
            PassHost::Rewrite(host) => self.request.upstream_host = Some(host.clone().into_bytes()),
        }
        self.request.node = Some(node.clone());
        for globals in &table.globals {
            globals.before_proxy(self).await?;
        }
        route.chain.before_proxy(self).await?;
        upstream::proxy(self, upstream).await
    }

    /// Runs the header filters and writes the head of an answer.
    pub async fn send_head(&mut self) -> Result<(), End> {
        if let Some(table) = self.table.clone() {
            for globals in &table.globals {
                globals.header_filter(self);
            }
        }
        if let Some(route) = self.request.route.clone() {
            route.chain.header_filter(self);
        }
        self.write_head().await
    }

    async fn write_head(&mut self) -> Result<(), End> {
        let head = &self.request.head;
        let asked = Asked {
            head_only: self.request.is_head(),
            minor: head.minor,
            headers: &head.headers,
            path: &head.target.path,
            server: self.worker.config.server,
        };
        Ok(self.answer.send_head(self.writer, asked).await?)
    }

    /// `ngx.print`: the head first, if it is not out yet.
    pub async fn print(&mut self, body: &[u8]) -> Result<(), End> {
        if !self.answer.is_sent() {
            match self.answer.condition(&self.request.head.headers) {
                Some(304) => {
                    self.answer.status = Some(304);
                    self.answer.own_type(None);
                    self.answer.length(None);
                }
                Some(status) => {
                    // nginx forgets all headers for this one.
                    self.answer = Answer::new(self.answer.keep_alive);
                    self.special(status).await?;
                    return Err(End::Sent);
                }
                None => {}
            }
            self.send_head().await?;
        }
        Ok(self.answer.send_body(self.writer, body).await?)
    }

    /// Ends a printed answer.
    pub async fn finish(&mut self) -> Result<(), End> {
        Ok(self.answer.send_end(self.writer).await?)
    }

    /// `core.response.exit(status, body)`.
    async fn exit(&mut self, status: u16, body: Option<Vec<u8>>) -> Result<(), End> {
        if ENDING.contains(&status) {
            // Of a long body some is out already, and to HEAD the whole answer.
            let at_once = |body: &Vec<u8>| {
                body.len() >= POSTPONE_OUTPUT || (self.request.is_head() && !body.is_empty())
            };
            if let Some(body) = body.filter(at_once) {
                self.answer.status = Some(status);
                self.print(&body).await?;
            }
            return Err(End::Cut);
        }
        if body.is_none() && (status >= 300 || status == 204) {
            return self.special(status).await;
        }
        if status < 200 {
            return self.hang(body.unwrap_or_default()).await;
        }
        // lua-nginx takes three digits; anything else leaves the status alone.
        if (100..=999).contains(&status) {
            self.answer.status = Some(status);
        }
        self.print(&body.unwrap_or_default()).await?;
        self.finish().await
    }

    /// An exit below 200 ends neither the body nor the request. What is written
    /// stays in nginx's buffer while it is short, so the client waits in vain.
    async fn hang(&mut self, body: Vec<u8>) -> Result<(), End> {
        if body.len() >= POSTPONE_OUTPUT {
            self.print(&body).await?;
        }
        let patience = self.worker.times.scaled(60.0);
        let _gave_up = tokio::time::timeout(patience, self.reader.gone()).await;
        Err(End::Cut)
    }

    /// A page of nginx's own, or the error page configured in its place.
    async fn special(&mut self, status: u16) -> Result<(), End> {
        if special::closes(status) {
            self.answer.keep_alive = false;
        }
        let request = &self.request;
        let pages = &self.worker.config.pages;
        if let Some(page) = pages.page(status, &|name| request.page_variable(name)) {
            // Another location answers now: its Lua filters are none.
            self.answer.status = Some(page.status);
            let kind = page.content_type.as_deref().unwrap_or("text/plain");
            self.answer.own_type(Some(kind.as_bytes()));
            for (name, value) in &page.headers {
                self.answer.fields.add(name.as_bytes(), value.as_bytes());
            }
            self.answer.length(Some(page.body.len() as u64));
            self.write_head().await?;
            return Ok(self
                .answer
                .send_body(self.writer, page.body.as_bytes())
                .await?);
        }
        self.answer.status = Some(special::sent_as(status));
        let page = special::page(status);
        self.answer
            .own_type(page.as_ref().map(|_| &b"text/html"[..]));
        let page = page.unwrap_or_default();
        self.answer.length(Some(page.len() as u64));
        self.answer.clear_validators();
        self.send_head().await?;
        Ok(self.answer.send_body(self.writer, &page).await?)
    }
}

/// Bytes for a log line.
#[must_use]
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
