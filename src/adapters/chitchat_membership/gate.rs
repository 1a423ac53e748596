//! What of a datagram reaches chitchat: nodes of allowed regions, within bounds that hold over all datagrams.
//!
//! chitchat remembers every node that it ever hears of for a while, and its task ends when its summary of
//! them no longer fits in a datagram. So the gate keeps the same list and lets no further one in when it is
//! full.

use std::collections::{BTreeMap, BTreeSet};

use super::datagram::{Datagram, Delta, NodeName};
use super::roster::KEYS;
use crate::ids::{Region, Replica};
use crate::limits::{
    GOSSIP_DIGEST_BYTES, GOSSIP_NODES_MAX, GOSSIP_NODES_OF_REGION_MAX, GOSSIP_NODES_RESERVED,
    GOSSIP_REGIONS_MAX, GOSSIP_UNPACKED_BYTES_MAX, GOSSIP_VALUE_BYTES_MAX,
};

/// Bytes of the longest key, and of what stands beside key and text of a value in news of a node.
const VALUE_BESIDE_BYTES: usize = 11 + 1 + 2 + 2 + 8 + 1;
// Whoever heard as much as the gate lets in may say it in one message, which others must be able to read. A
// node is named there much as in a digest.
const _: () = assert!(
    GOSSIP_NODES_MAX
        * (GOSSIP_DIGEST_BYTES + KEYS.len() * (VALUE_BESIDE_BYTES + GOSSIP_VALUE_BYTES_MAX))
        <= GOSSIP_UNPACKED_BYTES_MAX
);

/// See the module.
pub struct Gate {
    /// None where every region may join.
    allowed: Option<BTreeSet<Region>>,
    own: NodeName,
    /// The nodes that chitchat knows or is about to, this one included.
    known: BTreeSet<NodeName>,
    /// Those of them that were let in since the last look: chitchat may not have read of them yet.
    fresh: BTreeSet<NodeName>,
}

impl Gate {
    pub fn new(own: NodeName, allowed: Option<BTreeSet<Region>>) -> Self {
        Self {
            allowed,
            known: BTreeSet::from([own.clone()]),
            fresh: BTreeSet::new(),
            own,
        }
    }

    /// What chitchat knows by now: what it has forgotten makes room.
    pub fn refresh(&mut self, known: BTreeSet<NodeName>) {
        self.known = known;
        self.known.insert(self.own.clone());
        self.known.append(&mut self.fresh);
    }

    /// Leaves out what must not reach chitchat, and returns how many nodes were refused. `speaks` says whether
    /// a node speaks to this one itself.
    pub fn admit(&mut self, datagram: &mut Datagram, speaks: impl Fn(&Replica) -> bool) -> usize {
        let Self {
            allowed,
            own,
            known,
            fresh,
        } = self;
        let allows = |region: &Region| match &*allowed {
            Some(allowed) => allowed.contains(region) || *region == own.replica.region,
            None => true,
        };
        let mut lets_in = |node: &NodeName| {
            if known.contains(node) {
                return true;
            }
            let is_let_in = allows(&node.replica.region) && has_room(known, node, &speaks);
            if is_let_in {
                known.insert(node.clone());
                fresh.insert(node.clone());
            }
            is_let_in
        };
        let out = datagram.retain(|digest| lets_in(&digest.node), |_| true);
        // Nobody knows more of this node than it does itself, but chitchat would believe them. News of a node
        // that it does not know is what it passes over too: honest peers send such when they have just
        // learned of one, so that is counted nowhere.
        datagram.retain(
            |_| true,
            |delta| {
                keep_known_keys(delta);
                delta.node != *own && known.contains(&delta.node)
            },
        );
        out
    }
}

/// Whether chitchat may learn of one more node.
fn has_room(
    known: &BTreeSet<NodeName>,
    node: &NodeName,
    speaks: impl Fn(&Replica) -> bool,
) -> bool {
    if speaks(&node.replica) {
        return known.len() < GOSSIP_NODES_MAX;
    }
    if known.len() >= GOSSIP_NODES_MAX - GOSSIP_NODES_RESERVED {
        return false;
    }
    let mut by_region: BTreeMap<&Region, usize> = BTreeMap::new();
    for known in known {
        *by_region.entry(&known.replica.region).or_default() += 1;
    }
    match by_region.get(&node.replica.region) {
        Some(count) => *count < GOSSIP_NODES_OF_REGION_MAX,
        None => by_region.len() < GOSSIP_REGIONS_MAX,
    }
}

/// A node has a fixed set of keys: with others its state would grow without end. Those of newer versions
/// are passed over.
fn keep_known_keys(delta: &mut Delta) {
    delta
        .values
        .retain(|value| KEYS.contains(&value.key.as_str()));
}

#[cfg(test)]
mod tests {
    use super::super::datagram::Digest;
    use super::super::datagram::Value;
    use super::*;
    use crate::ids::Epoch;

    fn node(region: &str, epoch: u128) -> NodeName {
        NodeName {
            replica: Replica {
                region: Region::new(region).expect("valid"),
                epoch: Epoch(epoch),
            },
            generation: 0,
        }
    }

    fn digest(node: NodeName) -> Digest {
        Digest {
            node,
            heartbeat: 1,
            collected: 0,
            version: 1,
        }
    }

    fn syn(nodes: impl IntoIterator<Item = NodeName>) -> Datagram {
        Datagram::Syn {
            cluster: "test".to_owned(),
            digests: nodes.into_iter().map(digest).collect(),
        }
    }

    fn names(datagram: &Datagram) -> Vec<String> {
        let Datagram::Syn { digests, .. } = datagram else {
            panic!("a syn");
        };
        let all = digests.iter();
        all.map(|digest| digest.node.replica.region.to_string())
            .collect()
    }

    #[test]
    fn a_flood_of_invented_nodes_leaves_room_for_those_who_speak() {
        let mut gate = Gate::new(node("us", 1), None);
        let mut refused = 0;
        for number in 0..10_000u128 {
            let region = format!("r{}", number % 100);
            refused += gate.admit(&mut syn([node(&region, number)]), |_| false);
        }
        assert!(refused > 9_000);
        assert!(gate.known.len() <= GOSSIP_NODES_MAX - GOSSIP_NODES_RESERVED);
        let mut honest = syn([node("eu", 1)]);
        assert_eq!(gate.admit(&mut honest, |_| true), 0);
        assert_eq!(names(&honest), ["eu"]);
    }

    #[test]
    fn one_region_does_not_crowd_out_the_others() {
        let mut gate = Gate::new(node("us", 1), None);
        for number in 0..1_000 {
            gate.admit(&mut syn([node("ap", number)]), |_| false);
        }
        assert_eq!(gate.known.len(), 1 + GOSSIP_NODES_OF_REGION_MAX);
        assert_eq!(gate.admit(&mut syn([node("eu", 1)]), |_| false), 0);
        gate.refresh(BTreeSet::new());
        assert_eq!(
            gate.known.len(),
            2 + GOSSIP_NODES_OF_REGION_MAX,
            "on their way"
        );
        gate.refresh(BTreeSet::new());
        assert_eq!(gate.admit(&mut syn([node("ap", 9_999)]), |_| false), 0);
    }

    #[test]
    fn only_allowed_regions_are_heard_of() {
        let allowed = BTreeSet::from([Region::new("eu").expect("valid")]);
        let mut gate = Gate::new(node("us", 1), Some(allowed));
        let mut mixed = syn([node("ap", 1), node("eu", 1), node("us", 2)]);
        assert_eq!(gate.admit(&mut mixed, |_| true), 1);
        assert_eq!(names(&mixed), ["eu", "us"]);
    }

    #[test]
    fn nobody_tells_a_node_of_itself_nor_of_unknown_keys() {
        let value = |key: &str, version| Value {
            key: key.to_owned(),
            text: String::new(),
            version,
            status: 0,
        };
        let delta = |node| Delta {
            node,
            collected: 0,
            after: 0,
            values: vec![value(KEYS[0], 1), value("other", 2)],
            version: 2,
        };
        let own = node("us", 1);
        let mut gate = Gate::new(own.clone(), None);
        let mut datagram = Datagram::SynAck {
            digests: vec![digest(node("eu", 1)), digest(own.clone())],
            deltas: vec![
                delta(own.clone()),
                delta(node("eu", 1)),
                delta(node("ap", 1)),
            ],
        };
        assert_eq!(gate.admit(&mut datagram, |_| false), 0);
        let Datagram::SynAck { digests, deltas } = datagram else {
            panic!("a syn-ack");
        };
        assert_eq!(digests.len(), 2, "how far others know this node matters");
        assert_eq!(deltas.len(), 1);
        assert_eq!(deltas[0].node, node("eu", 1));
        assert_eq!((deltas[0].values.len(), deltas[0].version), (1, 2));
    }
}
