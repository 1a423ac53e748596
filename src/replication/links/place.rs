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
/// Of two that were dialled from both sides, the one that the smaller replica dialled: both sides decide
/// alike. Of two that the peer dialled, the newer: it knows that the older has ended. Of two that this
/// node dialled (by two addresses), the older.
pub(super) fn takes_over(own_is_smaller: bool, earlier: Direction, later: Direction) -> bool {
    match (earlier, later) {
        (Direction::Accepted, Direction::Accepted) => true,
        (Direction::Dialled, Direction::Dialled) => false,
        (_, Direction::Dialled) => own_is_smaller,
        (_, Direction::Accepted) => !own_is_smaller,
    }
}
