//! The place of a session among the others, and which of two with one peer is kept.

use tokio_util::sync::CancellationToken;

use crate::ids::Replica;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Dialled,
    Accepted,
}

/// Sessions in the order in which they were let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Owner(pub(in crate::replication) u64);

/// A session's place among the others.
pub(in crate::replication) struct Place {
    pub peer: Replica,
    pub owner: Owner,
    /// Cancelled when another session with the same replica takes its place.
    pub displaced: CancellationToken,
}

/// Which of two sessions with one peer is kept.
///
/// Both sides must decide alike, or both sessions end, again and again. Of two that were dialled from both sides,
/// the one that the smaller replica dialled. Of two that one side dialled, the newer: either the older has ended
/// unseen, or the peer is dialled by two addresses, and then whoever dialled the older waits until the newer is over.
pub(super) fn takes_over(own_is_smaller: bool, earlier: Direction, later: Direction) -> bool {
    match (earlier, later) {
        (Direction::Accepted, Direction::Accepted) | (Direction::Dialled, Direction::Dialled) => {
            true
        }
        (_, Direction::Dialled) => own_is_smaller,
        (_, Direction::Accepted) => !own_is_smaller,
    }
}
