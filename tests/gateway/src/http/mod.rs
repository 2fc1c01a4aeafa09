//! HTTP/1.1 as nginx speaks it, byte for byte: heads are parsed and written
//! here, because what APISIX does (an answer longer than its `Content-Length`, a
//! header without a name) no HTTP library would do.

pub mod answer;
pub mod body;
pub mod client;
pub mod fields;
pub mod head;
pub mod special;
pub mod uri;
