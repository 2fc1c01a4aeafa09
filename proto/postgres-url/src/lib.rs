//! A PostgreSQL by its URL: what the URL says of TLS, and whom that trusts. The one place
//! where this is decided, whoever connects and by whichever driver.
//!
//! ```text
//! URL → sslmode and sslrootcert are taken out → where is the server? → Tls: mode and authorities
//!     → rows: tokio-postgres, by its own handshake
//!     → control plane and claims: sqlx, by `options`
//! ```

mod complaint;
mod options;
mod tls;

pub use complaint::complaint;
pub use options::{UrlError, options};
pub use tls::{Asked, Mode, Place, Tls, TlsError};
