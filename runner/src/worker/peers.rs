//! Who may call: the process at the other end, as the kernel knows it.

use anyhow::Context as _;
use tokio::net::UnixStream;

use crate::config::SocketConfig;
use crate::supervisor::privileges;

/// Users and groups that may call; without any, whoever the socket's file lets in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Peers {
    /// The lists of the configuration, by number.
    pub(crate) fn of(config: &SocketConfig) -> anyhow::Result<Self> {
        let user = |name: &String| privileges::user(name).map(|user| user.id);
        let group = |name: &String| privileges::group(name);
        Ok(Self {
            users: numbers(&config.allow_users, user).context("socket.allowUsers")?,
            groups: numbers(&config.allow_groups, group).context("socket.allowGroups")?,
        })
    }

    /// Whether to serve this connection. The kernel notes user and group when a process
    /// connects (`SO_PEERCRED`), so a connection keeps them whoever holds it later.
    pub(crate) fn admit(&self, stream: &UnixStream) -> Result<(), Stranger> {
        if self.users.is_empty() && self.groups.is_empty() {
            return Ok(());
        }
        let peer = stream.peer_cred().map_err(|_| Stranger::Unknown)?;
        let (user, group) = (peer.uid(), peer.gid());
        if self.users.contains(&user) || self.groups.contains(&group) {
            return Ok(());
        }
        Err(Stranger::Known { user, group })
    }
}

/// Somebody who may not call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stranger {
    #[error("user {user} with group {group} may not call; socket.allowUsers, socket.allowGroups")]
    Known { user: u32, group: u32 },
    #[error("the kernel does not tell who calls")]
    Unknown,
}

fn numbers(
    names: &[String],
    number: impl Fn(&String) -> anyhow::Result<u32>,
) -> anyhow::Result<Vec<u32>> {
    names.iter().map(number).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn peers(users: &[&str], groups: &[&str]) -> anyhow::Result<Peers> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Peers::of(&SocketConfig {
            allow_users: names(users),
            allow_groups: names(groups),
            ..SocketConfig::default()
        })
    }

    #[tokio::test]
    async fn by_user_or_by_group() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = ours.peer_cred().unwrap();
        let (user, group) = (own.uid().to_string(), own.gid().to_string());
        for (users, groups, admitted) in [
            (&[][..], &[][..], true),
            (&[user.as_str()][..], &[][..], true),
            (&[][..], &[group.as_str()][..], true),
            (&["4000000000"][..], &[group.as_str()][..], true),
            (&["4000000000"][..], &[][..], false),
            (&[][..], &["4000000000"][..], false),
        ] {
            let admit = peers(users, groups).unwrap().admit(&ours);
            assert_eq!(admit.is_ok(), admitted, "{users:?} {groups:?}");
        }
    }

    #[test]
    fn names_that_are_nobodys() {
        assert_eq!(peers(&["root"], &["0"]).unwrap().users, [0]);
        let error = format!("{:#}", peers(&["no-such-user"], &[]).unwrap_err());
        assert!(error.contains("socket.allowUsers"), "{error}");
        let error = format!("{:#}", peers(&[], &["no-such-group"]).unwrap_err());
        assert!(error.contains("socket.allowGroups"), "{error}");
    }
}
