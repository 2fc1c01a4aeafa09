//! Who the runner is: looked up by name or number, and become once the socket is bound.

use anyhow::Context as _;
use rustix::process::{Gid, Uid};

/// A user with the group that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

/// Finds a user by name or number.
pub(crate) fn user(name: &str) -> anyhow::Result<User> {
    let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    find_user(&passwd, name).with_context(|| format!("no user is called {name:?}"))
}

/// Finds a group by name or number.
pub(crate) fn group(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").context("/etc/group")?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let named = fields.next()? == name;
        named.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.with_context(|| format!("no group is called {name:?}"))
}

/// `name:password:uid:gid:…` a line. A number needs no line.
fn find_user(passwd: &str, name: &str) -> Option<User> {
    let number: Option<u32> = name.parse().ok();
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let listed = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (listed == name || Some(id) == number).then_some(User { id, group })
    });
    listed.or_else(|| number.map(|id| User { id, group: id }))
}

/// Whether this process could become another user.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Who this process is.
pub(crate) fn current() -> User {
    User {
        id: rustix::process::geteuid().as_raw(),
        group: rustix::process::getegid().as_raw(),
    }
}

/// Becomes a user for good. Only the calling thread changes, and what it starts
/// later: to be called while there is no other.
pub(crate) fn become_user(user: User) -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.id), Gid::from_raw(user.group));
    rustix::thread::set_thread_groups(&[gid]).context("worker.group: cannot be taken on")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .context("worker.group: cannot be taken on")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("worker.user: cannot be taken on")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:n:/:/bin/false\nbroken\n";
        let nobody = Some(User {
            id: 65534,
            group: 65533,
        });
        assert_eq!(find_user(passwd, "nobody"), nobody);
        assert_eq!(find_user(passwd, "65534"), nobody);
        assert_eq!(find_user(passwd, "77"), Some(User { id: 77, group: 77 }));
        assert_eq!(find_user(passwd, "somebody"), None);
    }
}
