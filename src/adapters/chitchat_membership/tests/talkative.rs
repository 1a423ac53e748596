//! A peer that tells of as many nodes as it may, each with as much to say as it may: what the node says of
//! them afterwards must be what its other peers read.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::adapters::chitchat_membership::roster::KEYS;
use crate::limits::{GOSSIP_NODES_OF_REGION_MAX, GOSSIP_NODES_RESERVED, GOSSIP_VALUE_BYTES_MAX};

/// What is told of the nodes.
struct Story {
    /// Its texts hardly pack.
    random: bool,
}

impl Story {
    /// In messages that are short enough each.
    fn messages(&self) -> Vec<Datagram> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut text = || -> String {
            let letter = |_| match self.random {
                true => char::from(rng.random_range(b'!'..=b'~')),
                false => 'x',
            };
            (0..GOSSIP_VALUE_BYTES_MAX).map(letter).collect()
        };
        // The node itself is one of those that have room.
        let nodes: Vec<NodeName> = (1..GOSSIP_NODES_MAX - GOSSIP_NODES_RESERVED)
            .map(|number| NodeName {
                replica: replica(
                    &format!("r{:023}", number / GOSSIP_NODES_OF_REGION_MAX),
                    number as u128,
                ),
                generation: 0,
            })
            .collect();
        let mut messages = Vec::new();
        for some in nodes.chunks(16) {
            let digests = some.iter().map(|node| Digest {
                node: node.clone(),
                heartbeat: 1,
                collected: 0,
                version: 0,
            });
            let deltas = some.iter().map(|node| {
                let values = KEYS.iter().zip(1..).map(|(key, version)| Value {
                    key: (*key).to_owned(),
                    text: text(),
                    version,
                    status: 0,
                });
                Delta {
                    node: node.clone(),
                    collected: 0,
                    after: 0,
                    values: values.collect(),
                    version: KEYS.len() as u64,
                }
            });
            messages.push(Datagram::SynAck {
                digests: digests.collect(),
                deltas: deltas.collect(),
            });
        }
        messages
    }

    /// Tells a node all this, and then asks it for everything.
    async fn is_passed_on(&self) {
        let us = Node::task("us", 3);
        let way = us.membership.correspond(&replica("eu", 1)).expect("room");
        let messages = self.messages();
        let mut answers_left = messages.len() + 1;
        for message in messages {
            way.deliver(message.write().into());
        }
        let cluster = "test".to_owned();
        let digests = Vec::new();
        way.deliver(Datagram::Syn { cluster, digests }.write().into());
        while answers_left > 0 {
            let said = way.next().await.expect("it speaks");
            match Datagram::read(&said) {
                Ok(Datagram::SynAck { .. } | Datagram::Ack { .. }) => answers_left -= 1,
                Ok(_) => {}
                Err(error) => panic!("of {} bytes: {error}", said.len()),
            }
        }
        assert_eq!(us.counts.gossip_refused.get(), 0);
        assert_eq!(us.counts.gossip_restarts.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_said_at_length_is_passed_on_so_that_it_is_read() {
    Story { random: false }.is_passed_on().await;
}

#[tokio::test(start_paused = true)]
async fn what_others_said_at_length_and_hardly_packs_is_passed_on_so_that_it_is_read() {
    Story { random: true }.is_passed_on().await;
}
