use super::*;
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use proptest::prelude::*;

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
        heartbeat: 7,
        collected: 0,
        version: 3,
    }
}

fn value(key: &str, version: u64) -> Value {
    Value {
        key: key.to_owned(),
        text: "text".to_owned(),
        version,
        status: 0,
    }
}

fn delta(values: Vec<Value>, version: u64) -> Delta {
    Delta {
        node: node("eu", 1),
        collected: 0,
        after: 0,
        values,
        version,
    }
}

fn names() -> impl Strategy<Value = NodeName> {
    ("[a-z0-9-]{1,24}", any::<u128>(), 0..=NUMBER_MAX).prop_map(|(region, epoch, generation)| {
        NodeName {
            generation,
            ..node(&region, epoch)
        }
    })
}

fn digests() -> impl Strategy<Value = Vec<Digest>> {
    let numbers = (0..=NUMBER_MAX, 0..=NUMBER_MAX, 0..=NUMBER_MAX);
    // chitchat writes them in the order of their names.
    let all = prop::collection::btree_map(names(), numbers, 0..20);
    all.prop_map(|all| {
        let mut digests: Vec<Digest> = all
            .into_iter()
            .map(|(node, (heartbeat, collected, version))| Digest {
                node,
                heartbeat,
                collected,
                version,
            })
            .collect();
        digests.sort_by_key(|digest| (digest.node.text(), digest.node.generation));
        digests
    })
}

fn deltas() -> impl Strategy<Value = Vec<Delta>> {
    type Steps = Vec<(u64, String, u8)>;
    let steps = prop::collection::vec((1..1_000u64, "[ -~]{0,512}", 0..=STATUS_MAX), 0..8);
    let one = (0..NUMBER_MAX / 2, 0..NUMBER_MAX / 2, steps, 0..9u64);
    let all = prop::collection::btree_map(names(), one, 0..12);
    all.prop_map(|all| {
        let delta =
            |(node, (collected, after, steps, beyond)): (NodeName, (u64, u64, Steps, u64))| {
                let mut delta = Delta {
                    node,
                    collected,
                    after,
                    values: Vec::new(),
                    version: 0,
                };
                for (number, (step, text, status)) in steps.into_iter().enumerate() {
                    delta.version += step;
                    delta.values.push(Value {
                        key: format!("key-{number}"),
                        text,
                        version: delta.version,
                        status,
                    });
                }
                delta.version += beyond;
                delta
            };
        all.into_iter().map(delta).collect()
    })
}

proptest! {
    #[test]
    fn what_chitchat_writes_of_nodes_is_read_and_written_alike(digests in digests()) {
        let datagram = Datagram::Syn { cluster: "test".to_owned(), digests };
        let written = datagram.write();
        let message = ChitchatMessage::deserialize(&mut written.as_slice()).expect("its form");
        let by_chitchat = message.serialize_to_vec();
        prop_assert_eq!(&by_chitchat, &written);
        prop_assert_eq!(Datagram::read(&by_chitchat), Ok(datagram));
    }

    #[test]
    fn what_was_read_is_written_so_that_chitchat_and_this_read_the_same(deltas in deltas()) {
        let datagram = Datagram::Ack { deltas };
        let written = datagram.write();
        prop_assert!(ChitchatMessage::deserialize(&mut written.as_slice()).is_ok());
        if written.len() <= GOSSIP_DATAGRAM_BYTES_MAX {
            prop_assert_eq!(Datagram::read(&written), Ok(datagram));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes: Vec<u8>, kind in 0..4u8) {
        drop(Datagram::read(&bytes));
        let mut marked = Datagram::BadCluster.write();
        *marked.last_mut().expect("not empty") = kind;
        marked.append(&mut bytes);
        drop(Datagram::read(&marked));
    }

    #[test]
    fn a_flipped_byte_never_reaches_chitchat_in_another_form(
        digests in digests(), deltas in deltas(), at: prop::sample::Index, bit in 0..8u8,
    ) {
        let mut bytes = Datagram::SynAck { digests, deltas }.write();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Datagram::read(&bytes) {
            prop_assert!(ChitchatMessage::deserialize(&mut read.write().as_slice()).is_ok());
        }
    }
}

fn refused(datagram: &Datagram, why: BadDatagram) {
    assert_eq!(Datagram::read(&datagram.write()), Err(why));
}

#[test]
fn a_maximum_below_the_keys_is_refused() {
    let news = vec![delta(vec![value("address", 5)], 3)];
    let killing = Datagram::SynAck {
        digests: vec![digest(node("eu", 1))],
        deltas: news,
    };
    let message = ChitchatMessage::deserialize(&mut killing.write().as_slice());
    assert!(message.is_ok(), "chitchat itself takes it");
    refused(&killing, BadDatagram::Order("versions"));
}

#[test]
fn another_cluster_is_told_apart() {
    let own = ClusterId::new("test").expect("valid");
    let syn = |cluster: &str| Datagram::Syn {
        cluster: cluster.to_owned(),
        digests: Vec::new(),
    };
    assert_eq!(syn("test").check_cluster(&own), Ok(()));
    assert_eq!(syn("other").check_cluster(&own), Err(BadDatagram::Cluster));
    let told = Datagram::BadCluster.check_cluster(&own);
    assert_eq!(told, Err(BadDatagram::Cluster));
}

#[test]
fn keys_and_versions_in_disorder_are_refused() {
    let ack = |values, version| Datagram::Ack {
        deltas: vec![delta(values, version)],
    };
    let order = |what| BadDatagram::Order(what);
    refused(
        &ack(vec![value("a", 2), value("b", 2)], 2),
        order("versions"),
    );
    refused(
        &ack(vec![value("a", 2), value("b", 1)], 2),
        order("versions"),
    );
    refused(&ack(vec![value("a", 1), value("a", 2)], 2), order("keys"));
    refused(&ack(vec![value("a", 0)], 0), order("versions"));
    let form = |what| BadDatagram::Form(what);
    refused(&ack(vec![value("é", 1)], 1), form("key"));
    refused(&ack(vec![value("", 1)], 1), form("key"));
    refused(&ack(Vec::new(), u64::MAX), form("version"));
    let mut strange = value("a", 1);
    strange.status = 3;
    refused(&ack(vec![strange], 1), form("status"));
    let mut long = value("a", 1);
    long.text = "x".repeat(GOSSIP_VALUE_BYTES_MAX + 1);
    let (what, max) = ("value", GOSSIP_VALUE_BYTES_MAX);
    refused(&ack(vec![long], 1), BadDatagram::TooMany { what, max });
    let many = (1..=17).map(|number| value(&format!("k{number}"), number));
    let (what, max) = ("values", GOSSIP_VALUES_MAX);
    refused(&ack(many.collect(), 17), BadDatagram::TooMany { what, max });
}

#[test]
fn names_and_addresses_that_no_node_has_are_refused() {
    let syn = |digests| Datagram::Syn {
        cluster: "test".to_owned(),
        digests,
    };
    let twice = vec![digest(node("eu", 1)), digest(node("eu", 1))];
    refused(&syn(twice), BadDatagram::Order("nodes"));
    let mut bytes = syn(vec![digest(node("eu", 1))]).write();
    // Mark, version, kind, number of nodes, name and its length, generation, kind of address.
    let address = 2 + 1 + 1 + 2 + 2 + 35 + 8 + 1;
    bytes[address + 3] ^= 1;
    assert_eq!(Datagram::read(&bytes), Err(BadDatagram::Form("address")));
    for text in [
        "eu",
        "eu/1",
        "EU/00000000000000000000000000000001",
        "/",
        "eu/+0000000000000000000000000000001",
    ] {
        assert_eq!(NodeName::parse(text, 0), None, "{text}");
    }
    let mut late = digest(node("eu", 1));
    late.heartbeat = u64::MAX;
    refused(&syn(vec![late]), BadDatagram::Form("heartbeat"));
}

#[test]
fn what_unpacks_to_too_much_is_refused_before_it_does() {
    let packed = zstd::bulk::compress(&vec![0; BLOCK_BYTES_MAX], 0).expect("packed");
    let mut bomb = Datagram::Ack { deltas: Vec::new() }.write();
    bomb.pop();
    while bomb.len() + packed.len() + 4 < GOSSIP_DATAGRAM_BYTES_MAX {
        bomb.push(BLOCK_PACKED);
        bomb.extend(u16::try_from(packed.len()).expect("short").to_le_bytes());
        bomb.extend(&packed);
    }
    bomb.push(BLOCKS_END);
    let (what, max) = ("bytes", GOSSIP_UNPACKED_BYTES_MAX);
    assert_eq!(
        Datagram::read(&bomb),
        Err(BadDatagram::TooMany { what, max })
    );
    let mut empty = Datagram::Ack { deltas: Vec::new() }.write();
    empty.pop();
    empty.extend([BLOCK_PLAIN, 0, 0].repeat(BLOCKS_MAX + 1));
    empty.push(BLOCKS_END);
    let (what, max) = ("blocks", BLOCKS_MAX);
    assert_eq!(
        Datagram::read(&empty),
        Err(BadDatagram::TooMany { what, max })
    );
    let (found, max) = (GOSSIP_DATAGRAM_BYTES_MAX + 1, GOSSIP_DATAGRAM_BYTES_MAX);
    assert_eq!(
        Datagram::read(&vec![0; found]),
        Err(BadDatagram::TooLong { found, max })
    );
}

#[test]
fn a_flood_in_one_datagram_is_refused() {
    let many = (0..=GOSSIP_NODES_MAX as u128).map(|epoch| digest(node("eu", epoch)));
    let flood = Datagram::Syn {
        cluster: "test".to_owned(),
        digests: many.collect(),
    };
    let (what, max) = ("nodes", GOSSIP_NODES_MAX);
    refused(&flood, BadDatagram::TooMany { what, max });
}
