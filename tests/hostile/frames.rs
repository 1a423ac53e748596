//! Frames that break the protocol in themselves.

use bytes::Bytes;
use likewise::ids::Replica;
use likewise::limits::{BLOCK_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, REPLICAS_MAX};
use likewise::wire::frames::{write_entries, write_lineage};
use likewise::wire::replication::{self as wire, CloseReason, frame::Body};
use likewise::wire::v1::GetStatusResponse;

use super::intruder::{Intruder, acknowledge, bytes, events, hello, likes, replica, vector};
use super::scene::Scene;
use crate::process::node::PATIENCE;

/// Bytes of a message that say nothing, over and over: the frame's Hello's frontier's replicas, each empty.
fn bomb(path: &[u8]) -> Bytes {
    let (element, outer) = path.split_last().expect("a field");
    let mut bytes = [element << 3 | 2, 0].repeat(PEER_MESSAGE_BYTES_MAX / 2 - 64);
    for field in outer.iter().rev() {
        let mut message = vec![field << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut message);
        message.extend_from_slice(&bytes);
        bytes = message;
    }
    bytes.into()
}

/// What a peer may send instead of a good frame, after its Hello.
fn bad_frames(maker: &Replica) -> Vec<(&'static str, Vec<Bytes>, &'static str)> {
    let good = events(1, &likes(maker, 1, &["ann"]));
    let two = || events(2, &likes(maker, 1, &["ann"]));
    let many: Vec<(Replica, u64)> = (0..=REPLICAS_MAX as u128)
        .map(|epoch| (replica("ap", epoch), 1))
        .collect();
    let lineage: Vec<_> = (0..10)
        .map(|epoch| (replica("ap", epoch), many[100..30_000].to_vec()))
        .collect();
    let endless = bytes(Body::Resume(wire::Resume {
        frontier: Some(vector(&[])),
        lineage: write_lineage(&lineage),
    }));
    let nothing_of = vec![(replica("ap", 5), 1)];
    let no_number = wire::VersionVector {
        seqs: vec![0],
        ..write_entries(&nothing_of)
    };
    let twice = [nothing_of.clone(), nothing_of].concat();
    let resume = |frontier| {
        bytes(Body::Resume(wire::Resume {
            frontier: Some(frontier),
            lineage: vec![],
        }))
    };
    let block = |block: Bytes| vec![events(1, &block)];
    let honest = likes(maker, 1, &["ann", "bob"]);
    let long = honest
        .iter()
        .map(|byte| if *byte == 3 { 0xff } else { *byte });
    vec![
        (
            "garbage",
            vec![Bytes::from_static(&[0xff; 64])],
            "not decoded",
        ),
        (
            "a truncated message",
            vec![good.slice(..good.len() - 3)],
            "ends early",
        ),
        ("an empty frame", vec![Bytes::new()], "unknown kind"),
        (
            "an unknown kind of frame",
            vec![Bytes::from_static(&[0x0a, 3, 0x9a, 6, 0])],
            "unknown kind",
        ),
        (
            "a second Hello",
            vec![bytes(Body::Hello(hello(maker)))],
            "second Hello",
        ),
        ("frames out of order", vec![two()], "frame 2 after 0"),
        ("frame 0", vec![events(0, &honest)], "frame 0 after 0"),
        ("an empty block", block(Bytes::new()), "is empty"),
        (
            "a block of garbage",
            block(Bytes::from_static(&[7; 99])),
            "a block was refused",
        ),
        (
            "a truncated block",
            block(honest.slice(..honest.len() - 1)),
            "a block was refused",
        ),
        (
            "lengths beyond the block",
            block(long.collect()),
            "a block was refused",
        ),
        (
            "an over-long block",
            block(vec![1; BLOCK_BYTES_MAX + 1].into()),
            "the limit is",
        ),
        (
            "acknowledged and never sent",
            vec![acknowledge(99, &[])],
            "frame 99 was acknowledged",
        ),
        ("a number 0", vec![resume(no_number)], "is 0"),
        ("a replica twice", vec![resume(vector(&twice))], "twice"),
        (
            "too many replicas",
            vec![resume(vector(&many))],
            "the limit is",
        ),
        ("endless lineage", vec![endless], "entries of lineage"),
        (
            "a bomb of replicas",
            vec![bomb(&[1, 4, 1, 1])],
            "not decoded",
        ),
        ("a bomb of lineage", vec![bomb(&[1, 4, 2])], "not decoded"),
        ("a bomb of ranges", vec![bomb(&[1, 7, 3])], "not decoded"),
        (
            "a bomb of what was heard",
            vec![bomb(&[1, 3, 5])],
            "not decoded",
        ),
        (
            "a message beyond the limit",
            vec![vec![0; PEER_MESSAGE_BYTES_MAX + 1].into()],
            "too large",
        ),
    ]
}

#[tokio::test]
async fn bad_frames_end_their_session_and_change_nothing() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let before = scene.state().await;
    let memory = scene.eu().memory_peak_kb();
    let cases = bad_frames(&replica("ap", 9));
    let refused = cases.len() as u64;
    for (what, frames, words) in cases {
        let session = Intruder::greet(address, &replica("ap", 9)).await;
        for frame in frames {
            session.send(frame).await;
        }
        scene
            .refuses(what, session, CloseReason::Protocol, words)
            .await;
        assert_eq!(scene.state().await, before, "{what}");
    }
    scene.counted("frames_refused", refused).await;
    let grown = scene.eu().memory_peak_kb() - memory;
    println!("the peak of memory grew by {grown} KB from {memory} KB");
    assert!(grown < 300 << 10, "{grown} KB");
    scene.others_go_on().await;
}

#[tokio::test]
async fn strangers_are_refused_by_their_first_frame() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let before = scene.state().await;
    let ap = replica("ap", 9);
    let first = |hello| bytes(Body::Hello(hello));
    let other = wire::Hello {
        cluster: "other".to_owned(),
        ..hello(&ap)
    };
    let newer = wire::Hello {
        protocol_min: 98,
        protocol_max: 99,
        ..hello(&ap)
    };
    let short = wire::Hello {
        replica: Some(wire::Replica {
            region: "ap".to_owned(),
            epoch: vec![1; 15].into(),
        }),
        ..hello(&ap)
    };
    let cases = [
        (
            "another cluster",
            first(other),
            CloseReason::WrongCluster,
            "of cluster test",
        ),
        (
            "another protocol",
            first(newer),
            CloseReason::Version,
            "versions 98 to 99",
        ),
        (
            "itself",
            first(hello(&scene.own())),
            CloseReason::Self_,
            "this very replica",
        ),
        (
            "a broken name",
            first(short),
            CloseReason::Protocol,
            "16 bytes",
        ),
        (
            "no Hello",
            acknowledge(0, &[]),
            CloseReason::Protocol,
            "no Hello",
        ),
    ];
    for (what, frame, reason, words) in cases {
        let session = Intruder::silent(address).await;
        session.send(frame).await;
        scene.refuses(what, session, reason, words).await;
        assert_eq!(scene.state().await, before, "{what}");
    }
    scene.counted("peers_refused", 1).await;
    scene.counted("frames_refused", 2).await;
    let refused = Intruder::compressing(address).await.err().expect("refused");
    assert_eq!(refused.code(), tonic::Code::Unimplemented, "{refused}");
    scene.others_go_on().await;
}

/// A Hello may name as many replicas as a table has. None of them ever was; new ones that are must still be heard.
#[tokio::test]
async fn a_hello_full_of_invented_replicas_keeps_nobody_out() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let before = scene.state().await;
    let invented: Vec<_> = (0..REPLICAS_MAX as u128)
        .map(|epoch| (replica("ap", epoch), u64::MAX))
        .collect();
    let chain: Vec<_> = invented
        .windows(2)
        .map(|pair| (pair[0].0.clone(), vec![pair[1].clone()]))
        .collect();
    let greeting = wire::Hello {
        frontier: Some(vector(&invented)),
        lineage: write_lineage(&chain),
        ..hello(&replica("ap", 9))
    };
    let session = Intruder::greet_with(address, greeting).await;
    session.send(acknowledge(0, &invented[..1])).await;
    let _alive = session.keep_alive();
    let is_taken = |status: &GetStatusResponse| {
        let mut links = status.links.iter();
        links.any(|link| link.region == "ap" && link.connected)
    };
    scene
        .eu()
        .status_where("the session", PATIENCE, is_taken)
        .await;
    scene.settle().await;
    assert_eq!(scene.state().await, before);
    // A fresh replica greets, and writes.
    scene.world.take("us").stop().await;
    scene.world.start_node("us").await;
    scene.others_go_on().await;
    drop(session);
}
