//! Memory, rows and both are damaged on purpose; each is found and mended, or left alone as said.

use std::sync::Arc;

use super::support::{
    Cutting, Machine, Node, add, assert_entries, like, post, unlike, unlike_dots, user,
};
use crate::crdt::fingerprint::PostHash;
use crate::engine::Engine;
use crate::engine::checkpoint::Checkpointer;
use crate::engine::mending::{Arriving, Checked, Hearsay, Mender, Outcome};
use crate::engine::rows::{self, PostKey};
use crate::engine::snapshot::{Part, Wanted};
use crate::ids::Replica;

fn mender(machine: &Machine, node: &Node) -> Mender {
    Mender {
        engine: node.engine.clone(),
        store: machine.device.store(),
        log: node.reader.clone(),
    }
}

fn range(post_id: &str) -> usize {
    PostHash::of(&post(post_id)).range()
}

fn views(node: &Node) -> i64 {
    let counters = node
        .engine
        .view_counters(&post("p"), &[], crate::engine::read::Detail::Figures);
    counters[0].value.value
}

/// Whether the entries are those that the kept sums speak of.
fn is_whole(node: &Node) -> bool {
    node.engine.recompute_sums() == node.engine.board().newest().sums
}

/// A node with all kinds of entries, half of them in a checkpoint. Returns a dot that another replica made
/// and this node has not seen, and has removed.
async fn filled(machine: &Machine) -> (Node, (Replica, u64)) {
    filled_with(machine, 0).await
}

/// Too many likers for a pack.
const CROWD: usize = 600;

async fn filled_with(machine: &Machine, crowd: usize) -> (Node, (Replica, u64)) {
    let mut node = machine.start().await;
    for number in 0..crowd {
        node.like("p", &format!("crowd{number}")).await;
    }
    for number in 0..40 {
        node.like("p", &format!("u{number}")).await;
    }
    let elsewhere = Machine::new("zz", 99);
    let far = elsewhere.start().await;
    for number in 0..5 {
        far.like("p", &format!("far{number}")).await;
    }
    assert!(node.pull(&far).await);
    let unseen = far.like("p", "unseen").await;
    node.write(unlike_dots("p", "unseen", vec![unseen.clone()]))
        .await;
    node.write(add("p", "views", 7)).await;
    node.checkpointer.checkpoint().await.expect("stored");
    for number in 20..60 {
        node.like("p", &format!("u{number}")).await;
    }
    node.write(unlike("p", "u3")).await;
    node.write(unlike("p", "far1")).await;
    node.write(add("p", "views", -2)).await;
    (node, unseen)
}

async fn scrub(machine: &Machine, node: &Node) -> Checked {
    let scrubbed = mender(machine, node).scrub(range("p"), true).await;
    scrubbed.expect("looked at")
}

async fn check(machine: &Machine, node: &Node, hearsay: &Hearsay) -> Checked {
    let checked = mender(machine, node).check(range("p"), hearsay).await;
    checked.expect("looked at")
}

/// What anybody can see of the post.
fn shown(node: &Node) -> String {
    let view = node.view("p");
    let likers = (0..60).map(|number| node.likes("p", &format!("u{number}")));
    let likers: Vec<bool> = likers.collect();
    format!(
        "{:?} {:?} {likers:?} {}",
        view.count,
        view.regions,
        node.engine.likers()
    )
}

#[tokio::test]
async fn what_is_sound_is_found_sound() {
    let machine = Machine::new("eu", 1);
    let (mut node, _) = filled(&machine).await;
    for _ in 0..2 {
        assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Sound);
        let checked = check(&machine, &node, &Hearsay::default()).await;
        assert_eq!(checked.outcome, Outcome::Sound);
        assert_eq!(checked.rebuilt, Some(checked.memory));
        node.checkpointer.checkpoint().await.expect("stored");
    }
    // Also where a bucket was split, a post was spread over the shards, and after a restart.
    for number in 0..3_000 {
        node.like("p", &format!("many{number}")).await;
    }
    assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Sound);
    node.checkpointer.checkpoint().await.expect("stored");
    assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Sound);
    node.kill().await;
    let node = machine.start().await;
    assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Sound);
    let checked = check(&machine, &node, &Hearsay::default()).await;
    assert_eq!(checked.outcome, Outcome::Sound);
}

/// Damages memory, finds it, and mends it from checkpoint and log.
async fn memory_is_mended(damage: impl Fn(&Engine, &(Replica, u64))) {
    let machine = Machine::new("eu", 1);
    let (node, unseen) = filled(&machine).await;
    let (fingerprint, before) = (node.fingerprint(), shown(&node));
    damage(&node.engine, &unseen);
    assert!(!is_whole(&node));
    assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Unclear);
    let checked = check(&machine, &node, &Hearsay::default()).await;
    assert_eq!(checked.outcome, Outcome::MemoryMended);
    assert_eq!((node.fingerprint(), shown(&node)), (fingerprint, before));
    assert!(is_whole(&node));
    assert_eq!(node.engine.orphan_removals(), 1);
    assert_entries(&node, "p");
    assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Sound);
}

#[tokio::test]
async fn a_lost_liker_comes_back() {
    memory_is_mended(|engine, _| engine.damage_liker(&post("p"), &user("u7"), &[])).await;
    memory_is_mended(|engine, _| engine.damage_liker(&post("p"), &user("u50"), &[])).await;
}

#[tokio::test]
async fn an_invented_liker_goes() {
    memory_is_mended(|engine, unseen| {
        engine.damage_liker(&post("p"), &user("nobody"), std::slice::from_ref(unseen));
    })
    .await;
}

#[tokio::test]
async fn a_changed_figure_becomes_what_it_was() {
    memory_is_mended(|engine, _| engine.damage_figure(&post("p"), &engine.own(), 7_000)).await;
    memory_is_mended(|engine, _| engine.damage_figure(&post("p"), &engine.own(), 3)).await;
}

#[tokio::test]
async fn a_lost_orphan_removal_comes_back() {
    memory_is_mended(|engine, (replica, seq)| engine.damage_orphan(replica, *seq)).await;
}

/// The key of the pack that holds the post while it is small.
fn pack() -> Vec<u8> {
    rows::pack_key(PostHash::orders_of_range(range("p")).0)
}

/// Changes a row of the post, and finds it.
async fn row_is_mended(change: impl Fn(&Node, Vec<u8>) -> Option<Vec<u8>>, key: Vec<u8>) {
    let machine = Machine::new("eu", 1);
    let is_of_packs = matches!(rows::post_key(&key), Ok(Some(PostKey::Pack(_))));
    let crowd = if is_of_packs { 0 } else { CROWD };
    let (mut node, _) = filled_with(&machine, crowd).await;
    node.checkpointer.checkpoint().await.expect("stored");
    let (fingerprint, before) = (node.fingerprint(), shown(&node));
    let store = mender(&machine, &node).store;
    let row = store.get(&key).await.expect("reads").unwrap_or_default();
    machine
        .device
        .tamper(&key, change(&node, row.to_vec()).map(Into::into));
    let found = scrub(&machine, &node).await;
    assert_eq!((found.outcome, found.rows), (Outcome::RowsMended, 1));
    node.checkpointer.checkpoint().await.expect("stored");
    assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Sound);
    node.kill().await;
    let node = machine.start().await;
    assert_eq!((node.fingerprint(), shown(&node)), (fingerprint, before));
}

#[tokio::test]
async fn a_damaged_row_is_written_again() {
    let flipped = |_: &Node, mut row: Vec<u8>| {
        row[9] ^= 1;
        Some(row)
    };
    row_is_mended(flipped, rows::likers_key(&post("p"), 0)).await;
    row_is_mended(flipped, rows::figures_key(&post("p"))).await;
    row_is_mended(flipped, pack()).await;
}

#[tokio::test]
async fn a_lost_row_is_written_again() {
    row_is_mended(|_, _| None, rows::likers_key(&post("p"), 0)).await;
    row_is_mended(|_, _| None, rows::figures_key(&post("p"))).await;
    row_is_mended(|_, _| None, pack()).await;
}

#[tokio::test]
async fn a_row_that_was_changed_with_its_checksum_is_written_again() {
    let fewer = |node: &Node, row: Vec<u8>| {
        let mut likers = rows::decode_likers(&row, node.engine.replicas()).expect("a row");
        likers.pop();
        let row = rows::encode_likers(&likers, &node.engine.replicas().all());
        Some(row.expect("small").to_vec())
    };
    row_is_mended(fewer, rows::likers_key(&post("p"), 0)).await;
    // One that stands where none belongs would take over the hashes from there on.
    let none = |node: &Node, _: Vec<u8>| {
        let row = rows::encode_likers(&[], &node.engine.replicas().all());
        Some(row.expect("small").to_vec())
    };
    row_is_mended(none, rows::likers_key(&post("p"), 1 << 63)).await;
    let fewer = |node: &Node, row: Vec<u8>| {
        let mut posts = rows::decode_pack(&row, node.engine.replicas()).expect("a row");
        posts[0].likers.pop();
        let row = rows::encode_pack(&posts, &node.engine.replicas().all());
        Some(row.expect("small").to_vec())
    };
    row_is_mended(fewer, pack()).await;
    let none = |node: &Node, _: Vec<u8>| {
        let row = rows::encode_pack(&[], &node.engine.replicas().all());
        Some(row.expect("small").to_vec())
    };
    let own = PostHash::of(&post("p")).order();
    row_is_mended(none, rows::pack_key(own)).await;
}

/// Rows of its own that a packed post should not have would speak after a restart.
#[tokio::test]
async fn rows_of_its_own_beside_a_pack_are_written_again() {
    let machine = Machine::new("eu", 1);
    let (mut node, _) = filled(&machine).await;
    node.checkpointer.checkpoint().await.expect("stored");
    let (fingerprint, before) = (node.fingerprint(), shown(&node));
    let none = rows::encode_likers(&[], &node.engine.replicas().all());
    let stray = Some(none.expect("small"));
    machine
        .device
        .tamper(&rows::likers_key(&post("p"), 0), stray);
    let found = scrub(&machine, &node).await;
    assert_eq!((found.outcome, found.rows), (Outcome::RowsMended, 1));
    node.checkpointer.checkpoint().await.expect("stored");
    assert_eq!(scrub(&machine, &node).await.outcome, Outcome::Sound);
    node.kill().await;
    let node = machine.start().await;
    assert_eq!((node.fingerprint(), shown(&node)), (fingerprint, before));
}

/// The node's range, as it crosses the wire.
async fn carried(from: &Node, to: &Node) -> crate::engine::rebuild::RebuiltRange {
    let mut arriving = Arriving::new(to.engine.clone(), range("p"));
    let wanted = Wanted::of([range("p")].into_iter().collect());
    let mut snapshot = from.snapshot_of(wanted).expect("settled");
    for part in from.read_on(&mut snapshot, Vec::new()).await {
        let part: Part = crate::replication::parts::read(part, &mut to.engine.replicas())
            .expect("an honest part");
        if let Some(range) = arriving.take(part).expect("in order") {
            return range;
        }
    }
    panic!("the snapshot has an end");
}

#[tokio::test]
async fn memory_and_disk_alike_need_another_region() {
    let (machine, other) = (Machine::new("eu", 1), Machine::new("us", 2));
    let (mut node, _) = filled(&machine).await;
    let sound = other.start().await;
    assert!(sound.pull(&node).await);
    sound.like("p", "more").await;
    assert!(node.pull(&sound).await);
    assert!(!sound.pull(&node).await || sound.durable() == node.durable());
    let (fingerprint, before) = (node.fingerprint(), shown(&node));
    assert_eq!(sound.fingerprint(), fingerprint);
    node.engine.damage_liker(&post("p"), &user("u7"), &[]);
    node.engine
        .damage_figure(&post("p"), &node.engine.own(), 7_000);
    node.engine.spread_to_disk();
    node.checkpointer.checkpoint().await.expect("stored");
    let checked = check(&machine, &node, &Hearsay::default()).await;
    assert_eq!(checked.outcome, Outcome::Unclear);
    assert_eq!(checked.rebuilt, Some(checked.memory));
    // What the node writes meanwhile is not lost.
    node.write(add("p", "views", 100)).await;
    let own = node.engine.own();
    let taken = carried(&sound, &node).await;
    let taken = mender(&machine, &node)
        .take(taken, Some(Default::default()))
        .await;
    let taken = taken.expect("taken");
    assert_eq!((taken.difference.added, taken.difference.removed), (2, 1));
    assert_eq!(views(&node), 105);
    assert_ne!(node.engine.own(), own, "its figure fell");
    assert!(is_whole(&node));
    node.like("p", "u0").await;
    assert!(sound.pull(&node).await);
    assert_eq!(sound.fingerprint(), node.fingerprint());
    assert_ne!(before, shown(&node));
    // After a restart the damage does not come back.
    node.checkpointer.checkpoint().await.expect("stored");
    let fingerprint = node.fingerprint();
    node.kill().await;
    let node = machine.start().await;
    assert_eq!(node.fingerprint(), fingerprint);
}

#[tokio::test]
async fn what_is_not_what_was_meant_is_not_taken() {
    let (machine, other) = (Machine::new("eu", 1), Machine::new("us", 2));
    let (node, _) = filled(&machine).await;
    let sound = other.start().await;
    assert!(sound.pull(&node).await);
    sound.engine.damage_liker(&post("p"), &user("u8"), &[]);
    let before = shown(&node);
    let taken = carried(&sound, &node).await;
    let taken = mender(&machine, &node)
        .take(taken, Some(Default::default()))
        .await;
    assert!(taken.is_err());
    assert_eq!(shown(&node), before);
    // Nor is what shows events that have not arrived.
    sound.like("p", "ahead").await;
    let taken = carried(&sound, &node).await;
    assert!(mender(&machine, &node).take(taken, None).await.is_err());
    assert_eq!(shown(&node), before);
}

#[tokio::test]
async fn what_memory_holds_is_kept_where_an_operator_says_so() {
    let machine = Machine::new("eu", 1);
    let (mut node, _) = filled(&machine).await;
    node.engine.damage_liker(&post("p"), &user("u7"), &[]);
    node.engine.spread_to_disk();
    node.checkpointer.checkpoint().await.expect("stored");
    assert!(!is_whole(&node));
    let own = node.engine.own();
    let kept = mender(&machine, &node).keep(range("p")).await;
    let kept = kept.expect("kept");
    assert_ne!(kept.before, kept.after);
    assert_eq!((kept.difference.added, kept.difference.removed), (0, 0));
    assert!(is_whole(&node));
    assert_eq!(
        check(&machine, &node, &Hearsay::default()).await.outcome,
        Outcome::Sound
    );
    let held = shown(&node);
    // Figures that were lost are not given out twice, and the checkpoint that follows holds what was kept.
    assert_ne!(node.engine.own(), own);
    node.checkpointer.checkpoint().await.expect("stored");
    node.kill().await;
    let node = machine.start().await;
    assert!(is_whole(&node));
    assert_eq!(shown(&node), held);
}

/// A region that is as damaged as this one may have its state from here, in a snapshot: it is no witness against one
/// that has the sum which the changes made.
#[tokio::test]
async fn a_region_with_the_kept_sum_outweighs_one_with_the_damage() {
    let machine = Machine::new("eu", 1);
    let (mut node, _) = filled(&machine).await;
    node.engine.damage_liker(&post("p"), &user("u7"), &[]);
    node.engine.spread_to_disk();
    node.checkpointer.checkpoint().await.expect("stored");
    let unclear = check(&machine, &node, &Hearsay::default()).await;
    assert_eq!(unclear.outcome, Outcome::Unclear);
    let mut difference = unclear.memory;
    difference -= unclear.kept;
    let hearsay = Hearsay {
        is_shared: true,
        differences: vec![difference],
    };
    let checked = check(&machine, &node, &hearsay).await;
    assert_eq!(checked.outcome, Outcome::Unclear);
    assert_eq!(checked.kept, unclear.kept);
}

/// The kept sum alone is off: memory and disk say the same, and so does another region.
#[tokio::test]
async fn a_kept_sum_that_is_off_is_put_right_by_what_another_region_says() {
    let machine = Machine::new("eu", 1);
    let (node, _) = filled(&machine).await;
    let right = node.engine.board().newest().sums.range(range("p"));
    let still_sum = {
        let demand = crate::engine::commit::Demand {
            events: 0,
            bytes: 0,
        };
        let slot = node.engine.queue().reserve(demand).expect("open");
        let section = crate::engine::section::Section {
            prints: vec![(range("p"), crate::crdt::fingerprint::Fingerprint(77))],
            ..Default::default()
        };
        slot.fill(section).await.expect("the log works")
    };
    let mut difference = right;
    difference -= still_sum.sums.range(range("p"));
    let unclear = check(&machine, &node, &Hearsay::default()).await;
    assert_eq!(unclear.outcome, Outcome::Unclear);
    let hearsay = Hearsay {
        is_shared: false,
        differences: vec![difference],
    };
    check(&machine, &node, &hearsay).await;
    node.like("other", "ann").await;
    assert_eq!(node.engine.board().newest().sums.range(range("p")), right);
}

/// Rebuilding and scrubbing while clients and peers write: nothing is lost, and nothing is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrubs_under_writes_find_nothing_and_hinder_nobody() {
    let mut machine = Machine::new("eu", 1);
    machine.cutting = Cutting::Always;
    let machine = Arc::new(machine);
    let (mut node, _) = filled(&machine).await;
    let engine = node.engine.clone();
    let writing = tokio::spawn(async move {
        for turn in 0..600 {
            let name = format!("u{}", turn % 70);
            let command = match turn % 3 {
                0 => unlike("p", &name),
                1 => like("p", &name),
                _ => add("p", "views", 1),
            };
            let commands = vec![command, like("q", &name)];
            let write = crate::engine::command::Write {
                commands,
                request: None,
            };
            engine.write(&write).await.expect("taken");
        }
    });
    let mut rounds = 0;
    while !writing.is_finished() || rounds < 3 {
        let found = scrub(&machine, &node).await;
        assert_eq!(found.outcome, Outcome::Sound, "{found:?}");
        let found = check(&machine, &node, &Hearsay::default()).await;
        assert_eq!(found.outcome, Outcome::Sound, "{found:?}");
        if rounds % 3 == 0 {
            let checkpointer: &mut Checkpointer = &mut node.checkpointer;
            checkpointer.checkpoint().await.expect("stored");
        }
        rounds += 1;
    }
    writing.await.expect("written");
    assert_entries(&node, "p");
}
