//! The gateway's socket: bound under a temporary name, moved into place, never removed.
//!
//! On a reload the gateway starts a new runner on the path of the old one while that
//! is ending. A runner that unlinked "its" socket on the way out would take its
//! successor's away; so the next one replaces the file, and nobody removes it.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use socket2::{Domain, SockAddr, Socket, Type};

use super::privileges;
use crate::config::SocketConfig;

/// Binds `path` and takes connections into the backlog from here on.
pub(crate) fn bind(path: &Path, config: &SocketConfig) -> anyhow::Result<UnixListener> {
    if let Ok(there) = path.symlink_metadata() {
        let is_socket = there.file_type().is_socket();
        anyhow::ensure!(is_socket, "{} exists and is no socket", path.display());
    }
    let temporary = temporary(path);
    // Left by a process of our number that was killed between bind and rename.
    let _ = std::fs::remove_file(&temporary);
    let listener = listen(&temporary, config);
    let moved = listener.and_then(|listener| {
        std::fs::rename(&temporary, path).context("cannot move the socket into place")?;
        Ok(listener)
    });
    if moved.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    moved.with_context(|| format!("cannot listen on {}", path.display()))
}

fn listen(path: &Path, config: &SocketConfig) -> anyhow::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path).context("the path is too long for a socket")?)?;
    let user = config
        .user
        .as_deref()
        .map(privileges::user)
        .transpose()
        .context("socket.user")?;
    let group = config
        .group
        .as_deref()
        .map(privileges::group)
        .transpose()
        .context("socket.group")?;
    if user.is_some() || group.is_some() {
        chown(path, user.map(|user| user.id), group)
            .context("socket.user, socket.group: cannot be set")?;
    }
    let mode = std::fs::Permissions::from_mode(config.mode()?);
    std::fs::set_permissions(path, mode).context("socket.mode: cannot be set")?;
    socket.listen(config.backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Beside the socket, so that it can be renamed; by process, so that two do not meet.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}
