use super::*;
use crate::crdt::dot::{Dot, Dots};
use crate::crdt::fingerprint::PostHash;
use crate::crdt::pn_counter::CounterEntry;
use crate::ids::{CounterName, PostId, UserId};

fn table() -> ReplicaTable {
    let table = ReplicaTable::default();
    for region in ["eu", "us"] {
        table.intern_own(&Replica {
            region: Region::new(region).expect("valid"),
            epoch: Epoch(7),
        });
    }
    table
}

fn post(text: &str) -> PostId {
    PostId::new(text).expect("valid")
}

fn old_liker() -> (UserId, Dots) {
    let user = UserId::new("ann").expect("valid");
    let dots = Dots::from_slice(&[
        Dot {
            seq: 3,
            replica: ReplicaIndex(1),
        },
        Dot {
            seq: 4,
            replica: ReplicaIndex(0),
        },
    ]);
    (user, dots)
}

fn old_figures() -> StoredFigures {
    let entry = CounterEntry {
        replica: ReplicaIndex(1),
        increments: 9,
        decrements: 2,
    };
    StoredFigures {
        likes: vec![(ReplicaIndex(0), 5)],
        counters: vec![(CounterName::new("views").expect("valid"), vec![entry])],
        updated_at_ms: 8,
    }
}

#[test]
fn rows_survive_and_every_flipped_byte_is_found() {
    let table = table();
    let (user, dots) = old_liker();
    let row = encode_likers(&[old_liker()], &table.all()).expect("small");
    let likers = decode_likers(&row, &table).expect("as it was");
    assert_eq!(likers, vec![(user, dots)]);
    for at in 0..row.len() {
        let mut bad = row.to_vec();
        bad[at] ^= 0x10;
        assert!(decode_likers(&bad, &table).is_err(), "flipped byte {at}");
    }
}

#[test]
fn figures_survive() {
    let table = table();
    let figures = old_figures();
    let row = encode_figures(&figures, &table.all()).expect("small");
    assert_eq!(decode_figures(&row, &table).expect("as it was"), figures);
}

fn old_meta() -> MetaRow {
    let replica = |epoch| ReplicaRow {
        region: "eu".to_owned(),
        epoch: [epoch; 16],
    };
    MetaRow {
        frontier: vec![1, 2, 3],
        floor: vec![4],
        orphans: vec![OrphanRow {
            replica: replica(7),
            seq: 5,
            post: "p".to_owned(),
            user: "ann".to_owned(),
            by_client: true,
        }],
        requests: vec![RequestRow {
            id: "r".to_owned(),
            digest: 6,
            at_ms: 7,
            items: vec![None, Some(vec![8])],
            token: Some("t".to_owned()),
        }],
        replay_from: 9,
        shows: 10,
        finished_at_ms: 11,
        retired: vec![replica(12)],
        met: vec![replica(13)],
    }
}

/// Written by the first build that wrote format 3. They must read the same for ever.
#[test]
fn old_rows_still_read() {
    let table = table();
    let (user, dots) = old_liker();
    let row = include_bytes!("../../../tests/fixtures/likers-row-3.bin");
    let likers = decode_likers(row, &table).expect("format 3");
    assert_eq!(likers, vec![(user, dots)]);
    let row = include_bytes!("../../../tests/fixtures/figures-row-3.bin");
    assert_eq!(
        decode_figures(row, &table).expect("format 3"),
        old_figures()
    );
    let row = include_bytes!("../../../tests/fixtures/pack-row-3.bin");
    assert_eq!(decode_pack(row, &table).expect("format 3"), old_pack());
    let row = include_bytes!("../../../tests/fixtures/meta-row-3.bin");
    let meta = decode_meta(row).expect("format 3");
    assert_eq!(
        encode_meta(&meta).expect("small"),
        encode_meta(&old_meta()).expect("small")
    );
}

fn old_pack() -> Vec<PackedPost> {
    let empty = PackedPost {
        id: post("q"),
        figures: StoredFigures::default(),
        likers: Vec::new(),
    };
    let full = PackedPost {
        id: post("p"),
        figures: old_figures(),
        likers: vec![old_liker()],
    };
    vec![full, empty]
}

#[test]
fn packs_survive_and_every_flipped_byte_is_found() {
    let table = table();
    let row = encode_pack(&old_pack(), &table.all()).expect("small");
    assert_eq!(decode_pack(&row, &table).expect("as it was"), old_pack());
    for at in 0..row.len() {
        let mut bad = row.to_vec();
        bad[at] ^= 0x10;
        assert!(decode_pack(&bad, &table).is_err(), "flipped byte {at}");
    }
}

/// Keys of a range stand together: packs in the order of hashes, then posts, each with its figures first and
/// its likers in the order of hashes.
#[test]
fn keys_survive_and_stand_in_the_order_in_which_they_are_read() {
    let alike = |text: &str| PostHash::of(&post(text)).range() == PostHash::of(&post("a")).range();
    let names = (0..10_000).map(|number| format!("a{number}"));
    let other = names
        .into_iter()
        .find(|name| alike(name))
        .expect("one of 256");
    let hash = PostHash::of(&post("a")).order();
    let expected = [
        PostKey::Pack(PostHash::orders_of_range(PostHash::range_of_order(hash)).0),
        PostKey::Pack(hash),
        PostKey::Figures(post("a")),
        PostKey::Likers(post("a"), 0),
        PostKey::Likers(post("a"), 1 << 60),
        PostKey::Figures(post(&other)),
        PostKey::Likers(post(&other), 0),
    ];
    let mut keys = expected.clone().map(|key| match key {
        PostKey::Pack(from) => pack_key(from),
        PostKey::Figures(post) => figures_key(&post),
        PostKey::Likers(post, from) => likers_key(&post, from),
    });
    assert!(
        keys.iter()
            .all(|key| key.starts_with(&range_prefix(expected[0].range())))
    );
    keys.sort();
    let read = keys
        .iter()
        .map(|key| post_key(key).expect("well formed").expect("of posts"));
    assert_eq!(read.collect::<Vec<_>>(), expected);
    assert_eq!(post_key(META_KEY).expect("well formed"), None);
    // Under another range it would never be looked for.
    keys[0][1] ^= 1;
    assert!(post_key(&keys[0]).is_err());
}
