//! The variables a runner can ask for: `ctx.var` in APISIX, nginx's own below
//! it. Sources: `apisix/core/ctx.lua`, `apisix/cli/ngx_tpl.lua`, nginx's
//! `ngx_http_variables.c`.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use crate::request::Request;

/// The nginx in APISIX 3.18.0.
const NGINX: &str = "1.29.2";

/// Variables that `ngx_tpl.lua` sets, with the value they have before a plugin
/// changes them.
const SET: [(&str, &str); 26] = [
    ("upstream_scheme", "http"),
    ("upstream_upgrade", ""),
    ("upstream_connection", ""),
    ("upstream_mirror_host", ""),
    ("upstream_mirror_uri", ""),
    ("upstream_mirror_grpc_path", ""),
    ("upstream_cache_zone", "off"),
    ("upstream_cache_key", ""),
    ("upstream_cache_bypass", ""),
    ("upstream_no_cache", ""),
    ("ctx_ref", ""),
    ("rate_limiting_info", ""),
    ("llm_content_risk_level", ""),
    ("apisix_upstream_response_time", ""),
    ("request_type", "traditional_http"),
    ("request_llm_model", ""),
    ("llm_model", ""),
    ("llm_time_to_first_token", "0"),
    ("llm_prompt_tokens", "0"),
    ("llm_completion_tokens", "0"),
    ("llm_total_tokens", "0"),
    ("llm_stream", "false"),
    ("opentelemetry_context_traceparent", ""),
    ("opentelemetry_trace_id", ""),
    ("opentelemetry_span_id", ""),
    ("original_x_forwarded_for", ""),
];

impl Request {
    /// A variable's value; none where there is no such variable.
    pub fn var(&mut self, name: &str) -> Option<Vec<u8>> {
        if let Some(cookie) = name.strip_prefix("cookie_") {
            return self.cookie(cookie);
        }
        if let Some(arg) = name.strip_prefix("arg_") {
            let values = self.args().get(arg.as_bytes())?;
            // An argument without `=` is Lua's `true`.
            return values
                .first()
                .map(|value| value.clone().unwrap_or(b"true".to_vec()));
        }
        if let Some(header) = name.strip_prefix("http_") {
            return self.header_variable(header);
        }
        let text = |text: &str| Some(text.as_bytes().to_vec());
        match name {
            "uri" => Some(self.uri.clone()),
            "request_uri" => Some(self.request_uri.clone()),
            "real_request_uri" => Some(self.head.target.raw.clone()),
            "upstream_uri" => Some(self.upstream_uri.clone()),
            "upstream_host" => self.upstream_host.clone(),
            "route_id" => self.route.as_ref().and_then(|route| text(&route.id)),
            "route_name" => self.route.as_ref()?.name.as_deref().and_then(text),
            "service_id" => self.route.as_ref()?.service_id.as_deref().and_then(text),
            "method" | "request_method" => Some(self.head.method.clone()),
            "request" | "request_line" => Some(self.head.line.clone()),
            "resp_body" | "http2" | "https" => text(""),
            "request_id" | "apisix_request_id" => text(&self.id),
            _ => self.nginx_variable(name),
        }
    }

    /// A variable as nginx's own configuration reads it, for error pages.
    #[must_use]
    pub fn page_variable(&self, name: &str) -> Option<String> {
        let value = match name.strip_prefix("http_") {
            Some(header) => self.header_variable(header),
            None => match name {
                "request_id" => Some(self.id.clone().into_bytes()),
                "request_uri" => Some(self.head.target.raw.clone()),
                _ => self.nginx_variable(name),
            },
        };
        value.map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// `$http_x_name`: all copies as one. Also `X-Name` where that is asked for.
    fn header_variable(&self, name: &str) -> Option<Vec<u8>> {
        let wanted = name.to_ascii_lowercase().replace('-', "_");
        let separator: &[u8] = if wanted == "cookie" { b"; " } else { b", " };
        let values: Vec<&[u8]> = self
            .head
            .headers
            .0
            .iter()
            .filter(|(name, _)| {
                let name = String::from_utf8_lossy(name);
                name.to_ascii_lowercase().replace('-', "_") == wanted
            })
            .map(|(_, value)| value.as_slice())
            .collect();
        (!values.is_empty()).then(|| values.join(separator))
    }

    fn cookie(&self, wanted: &str) -> Option<Vec<u8>> {
        let all = self.head.headers.joined("cookie", b"; ")?;
        all.split(|byte| *byte == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at(equals);
            (name == wanted.as_bytes()).then(|| value.get(1..).unwrap_or_default().to_vec())
        })
    }

    fn nginx_variable(&self, name: &str) -> Option<Vec<u8>> {
        let arrival = &self.arrival;
        let target = &self.head.target;
        let present = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
        let header = |name: &str| self.head.headers.get(name).map(<[u8]>::to_vec);
        let since = self
            .started
            .1
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let value = match name {
            "remote_addr" => self.client_ip.to_string(),
            "remote_port" => self
                .client_port
                .map(|port| port.to_string())
                .unwrap_or_default(),
            "realip_remote_addr" => arrival.peer.ip().to_string(),
            "realip_remote_port" => arrival.peer.port().to_string(),
            "server_addr" => arrival.local.ip().to_string(),
            "server_port" => arrival.local.port().to_string(),
            "server_name" => "_".to_owned(),
            "server_protocol" => format!("HTTP/1.{}", self.head.minor),
            "scheme" => "http".to_owned(),
            "connection" => arrival.connection.to_string(),
            "connection_requests" => arrival.connection_requests.to_string(),
            "hostname" => hostname(),
            "pid" => std::process::id().to_string(),
            "pipe" => ".".to_owned(),
            "bytes_sent" | "body_bytes_sent" | "limit_rate" | "status" => "0".to_owned(),
            "nginx_version" => NGINX.to_owned(),
            "request_body" => return self.body.in_memory().and_then(present),
            "balancer_ip" | "balancer_port" => {
                let (ip, port) = self.node.as_deref()?.rsplit_once(':')?;
                if name == "balancer_ip" { ip } else { port }.to_owned()
            }
            "request_completion" => String::new(),
            "msec" => format!("{}.{:03}", since.as_secs(), since.subsec_millis()),
            "time_iso8601" => jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%S+00:00")
                .to_string(),
            "time_local" => jiff::Timestamp::now()
                .strftime("%d/%b/%Y:%H:%M:%S +0000")
                .to_string(),
            "request_time" => format!("{:.3}", self.started.0.elapsed().as_secs_f64()),
            "request_length" => (self.head.len as u64 + self.body.read_so_far()).to_string(),
            "is_args" => if target.args.is_empty() { "" } else { "?" }.to_owned(),
            "args" | "query_string" => return present(&target.args),
            "document_uri" => return Some(target.path.clone()),
            "host" => return Some(self.head.host.clone().unwrap_or(b"_".to_vec())),
            "content_type" => return self.head.headers.joined("content-type", b", "),
            "content_length" => {
                let counted = self.body.length();
                let counted = counted.map(|length| length.to_string().into_bytes());
                return header("content-length").or(counted);
            }
            "proxy_add_x_forwarded_for" => return Some(self.forwarded_for()),
            "binary_remote_addr" => return Some(self.client_bytes()),
            other => {
                let original = self.originals.iter().find(|(known, _)| *known == other);
                if let Some((_, value)) = original {
                    return Some(value.clone());
                }
                let found = SET.iter().find(|(known, _)| *known == other)?;
                found.1.to_owned()
            }
        };
        Some(value.into_bytes())
    }

    /// `$proxy_add_x_forwarded_for`.
    #[must_use]
    pub fn forwarded_for(&self) -> Vec<u8> {
        let client = self.client_ip.to_string().into_bytes();
        match self.head.headers.joined("x-forwarded-for", b", ") {
            Some(chain) => [chain, client].join(&b", "[..]),
            None => client,
        }
    }

    /// `$binary_remote_addr`.
    #[must_use]
    pub fn client_bytes(&self) -> Vec<u8> {
        match self.client_ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_ascii_lowercase()
}
