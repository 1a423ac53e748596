//! The running sessions by the peer's replica: one each, although both sides may dial.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ids::Replica;
use crate::replication::links::Owner;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Dialled,
    Accepted,
}

struct Entry {
    owner: Owner,
    direction: Direction,
    displaced: CancellationToken,
}

#[derive(Default)]
struct Sessions {
    by_replica: BTreeMap<Replica, Entry>,
    last_owner: u64,
}

pub(super) struct Registry {
    /// Guards the table alone.
    sessions: Mutex<Sessions>,
    changed: watch::Sender<()>,
}

/// A session that was let in.
pub(super) struct Registration {
    pub owner: Owner,
    /// Cancelled when another session with the same replica takes its place.
    pub displaced: CancellationToken,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Registry {
    /// Lets the session in, in place of an earlier one if need be; none if the earlier one is kept.
    ///
    /// Of two that were dialled from both sides, the one that the smaller replica dialled is kept: both
    /// sides decide alike. Of two that the peer dialled, the newer: it knows that the older has ended.
    /// Of two that this node dialled (by two addresses), the older.
    pub fn register(
        &self,
        own: &Replica,
        peer: &Replica,
        direction: Direction,
    ) -> Option<Registration> {
        let mut sessions = self.sessions.lock();
        if let Some(earlier) = sessions.by_replica.get(peer) {
            let kept = match (earlier.direction, direction) {
                (Direction::Accepted, Direction::Accepted) => direction,
                (Direction::Dialled, Direction::Dialled) => return None,
                _ if own < peer => Direction::Dialled,
                _ => Direction::Accepted,
            };
            if kept != direction {
                return None;
            }
            earlier.displaced.cancel();
        }
        sessions.last_owner += 1;
        let owner = Owner(sessions.last_owner);
        let displaced = CancellationToken::new();
        let entry = Entry {
            owner,
            direction,
            displaced: displaced.clone(),
        };
        sessions.by_replica.insert(peer.clone(), entry);
        Some(Registration { owner, displaced })
    }

    /// The session has ended. Returns whether it had its place until then.
    pub fn unregister(&self, owner: Owner, peer: &Replica) -> bool {
        let mut sessions = self.sessions.lock();
        let entry = sessions.by_replica.get(peer);
        let is_kept = entry.is_some_and(|entry| entry.owner == owner);
        if is_kept {
            sessions.by_replica.remove(peer);
        }
        drop(sessions);
        self.changed.send_replace(());
        is_kept
    }

    /// Returns when there is no session with the replica.
    pub async fn gone(&self, peer: &Replica) {
        let mut changed = self.changed.subscribe();
        let is_gone = |_: &()| !self.sessions.lock().by_replica.contains_key(peer);
        changed
            .wait_for(is_gone)
            .await
            .expect("the registry outlives its users");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region};

    fn replica(region: &str) -> Replica {
        Replica {
            region: Region::new(region).expect("valid"),
            epoch: Epoch(1),
        }
    }

    #[tokio::test]
    async fn both_sides_keep_the_session_that_the_smaller_dialled() {
        let (ap, us) = (replica("ap"), replica("us"));
        for first in [Direction::Dialled, Direction::Accepted] {
            let second = match first {
                Direction::Dialled => Direction::Accepted,
                Direction::Accepted => Direction::Dialled,
            };
            for (own, peer, kept) in [
                (&ap, &us, Direction::Dialled),
                (&us, &ap, Direction::Accepted),
            ] {
                let registry = Registry::default();
                let earlier = registry.register(own, peer, first).expect("the only one");
                let later = registry.register(own, peer, second);
                assert_eq!(later.is_some(), kept == second);
                assert_eq!(earlier.displaced.is_cancelled(), kept == second);
                let earlier_kept = registry.unregister(earlier.owner, peer);
                assert_eq!(earlier_kept, later.is_none());
                if let Some(later) = later {
                    assert!(registry.unregister(later.owner, peer));
                }
                registry.gone(peer).await;
            }
        }
    }

    #[test]
    fn a_peer_that_dials_again_replaces_its_dead_session() {
        let registry = Registry::default();
        let (own, peer) = (replica("eu"), replica("us"));
        let dead = registry.register(&own, &peer, Direction::Accepted);
        assert!(
            registry
                .register(&own, &peer, Direction::Accepted)
                .is_some()
        );
        assert!(dead.expect("the only one").displaced.is_cancelled());
    }
}
