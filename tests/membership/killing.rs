//! Datagrams that no node makes, and by which a peer could end the gossip of one that believes what it reads.

use likewise::adapters::chitchat_membership::datagram::{Datagram, Delta, Digest, NodeName, Value};
use likewise::ids::{Epoch, Region, Replica};
use likewise::limits::{GOSSIP_DATAGRAM_BYTES_MAX, GOSSIP_NODES_MAX};

/// Who sends them.
pub fn stranger() -> Replica {
    replica("zz", 1)
}

/// All of them; every one but the first of the flood is refused at least in part.
pub fn killing() -> Vec<Vec<u8>> {
    let mut truncated = below().write();
    truncated.truncate(truncated.len() / 2);
    let mut all = vec![
        below().write(),
        bomb(),
        b"no gossip at all".to_vec(),
        Vec::new(),
        truncated,
    ];
    all.extend(flood().iter().map(Datagram::write));
    all
}

fn replica(region: &str, epoch: u128) -> Replica {
    Replica {
        region: Region::new(region).expect("valid"),
        epoch: Epoch(epoch),
    }
}

fn digest(replica: Replica) -> Digest {
    Digest {
        node: NodeName {
            replica,
            generation: 0,
        },
        heartbeat: 9,
        collected: 0,
        version: 9,
    }
}

/// A delta whose maximum version is below that of its key.
pub fn below() -> Datagram {
    let digest = digest(stranger());
    let value = Value {
        key: "address".to_owned(),
        text: "127.0.0.1:1".to_owned(),
        version: 8,
        status: 0,
    };
    let delta = Delta {
        node: digest.node.clone(),
        collected: 0,
        after: 0,
        values: vec![value],
        version: 3,
    };
    Datagram::SynAck {
        digests: vec![digest],
        deltas: vec![delta],
    }
}

/// So many invented nodes that a summary of them fits in no datagram.
fn flood() -> Vec<Datagram> {
    let all: Vec<Digest> = (0..2_000u128)
        .map(|number| digest(replica(&format!("r{}", number % 50), number)))
        .collect();
    let some = all.chunks(GOSSIP_NODES_MAX).map(|some| Datagram::Syn {
        cluster: "test".to_owned(),
        digests: some.to_vec(),
    });
    some.collect()
}

/// A delta that unpacks to a hundred times what a datagram holds.
fn bomb() -> Vec<u8> {
    let packed = zstd::bulk::compress(&[0; 65_535], 0).expect("packed");
    let mut bomb = Datagram::Ack { deltas: Vec::new() }.write();
    bomb.pop();
    while bomb.len() + packed.len() + 4 < GOSSIP_DATAGRAM_BYTES_MAX {
        bomb.push(1);
        bomb.extend(u16::try_from(packed.len()).expect("short").to_le_bytes());
        bomb.extend(&packed);
    }
    bomb.push(0);
    bomb
}
