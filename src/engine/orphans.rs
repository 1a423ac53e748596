//! Orphan removals, and which of them this node's own clients asked for: only those are bounded.

use std::collections::HashSet;

use crate::crdt::dot::Dot;
use crate::crdt::frontier::Frontier;
use crate::crdt::orphan_removals::{OrphanRemoval, OrphanRemovals};

#[derive(Default)]
pub struct Orphans {
    known: OrphanRemovals,
    /// Removals by like id of dots that this node did not hold.
    by_clients: HashSet<Dot>,
}

impl Orphans {
    pub fn known(&self) -> &OrphanRemovals {
        &self.known
    }

    pub fn known_mut(&mut self) -> &mut OrphanRemovals {
        &mut self.known
    }

    /// Whether there is no removal that an event could resolve. Each event of a peer asks, and hardly ever is there one.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.by_clients.is_empty()
    }

    /// Whether clients may add `more`. Dots of replicas that have ended no longer count: their events
    /// may never come, and then nobody could resolve them.
    pub fn has_room(&mut self, more: usize, max: usize, frontier: &Frontier) -> bool {
        if self.by_clients.len() + more > max {
            self.by_clients
                .retain(|dot| !frontier.has_successor(dot.replica));
        }
        self.by_clients.len() + more <= max
    }

    pub fn note_client_made(&mut self, dot: Dot) {
        self.by_clients.insert(dot);
    }

    pub fn client_made(&self) -> &HashSet<Dot> {
        &self.by_clients
    }

    pub fn resolve(&mut self, dot: Dot) -> Option<OrphanRemoval> {
        if self.is_empty() {
            return None;
        }
        self.by_clients.remove(&dot);
        self.known.resolve(dot)
    }

    pub fn resolve_covered(&mut self, frontier: &Frontier) -> Vec<(Dot, OrphanRemoval)> {
        self.by_clients.retain(|dot| !frontier.covers(*dot));
        self.known.resolve_covered(frontier)
    }
}
