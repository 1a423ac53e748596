//! Packs of small posts: split, outgrown, and cut short by a power failure at any step of a checkpoint.

mod support;

use std::collections::BTreeMap;

use likewise::adapters::power::CutPoint;
use likewise::crdt::fingerprint::PostHash;
use likewise::engine::rows::{self, PostKey};
use likewise::seams::CheckpointStore;
use proptest::prelude::*;
use support::{Machine, Node, add, like, post, unlike};

/// Likers by post that the node said are there.
type Expected = BTreeMap<String, u64>;

/// Names of posts in two ranges: enough for many packs.
fn names(count: usize) -> Vec<String> {
    let names = (0..).map(|number| format!("post-{number}"));
    let is_near = |name: &String| PostHash::of(&post(name)).range() < 2;
    names.filter(is_near).take(count).collect()
}

/// A user whose name is long, so that rows fill soon.
fn long(number: usize) -> String {
    format!("{number}{}", "x".repeat(200))
}

async fn likes(node: &Node, name: &str, users: std::ops::Range<usize>, expected: &mut Expected) {
    let users: Vec<usize> = users.collect();
    for some in users.chunks(1_000) {
        let commands = some.iter().map(|number| like(name, &long(*number)));
        node.try_write(commands.collect(), None)
            .await
            .expect("taken");
    }
    *expected.entry(name.to_owned()).or_default() += users.len() as u64;
}

fn assert_as_expected(node: &Node, expected: &Expected) {
    for (name, likers) in expected {
        assert_eq!(node.count(name), *likers, "{name}");
    }
    let sums = node.engine.board().newest().sums.clone();
    assert!(node.engine.recompute_sums() == sums);
}

/// How many packs the store has, and how many posts with rows of their own.
async fn rows_of(machine: &Machine) -> (usize, usize) {
    let all = machine.device.store().scan(None, 100_000).await;
    let all = all.expect("reads");
    let keys = all.iter().map(|(key, _)| rows::post_key(key));
    let keys: Vec<_> = keys.map(|key| key.expect("well formed")).collect();
    let packs = keys
        .iter()
        .filter(|key| matches!(key, Some(PostKey::Pack(_))));
    let own = keys
        .iter()
        .filter(|key| matches!(key, Some(PostKey::Figures(_))));
    (packs.count(), own.count())
}

fn roomy(seed: u64) -> Machine {
    let mut machine = Machine::new("eu", seed);
    machine.log.segment_bytes = 32 << 20;
    machine.log.group_bytes_max = 16 << 20;
    machine
}

#[tokio::test]
async fn small_posts_stand_in_packs_and_large_ones_in_rows_of_their_own() {
    let machine = roomy(1);
    let mut node = machine.start().await;
    let mut expected = Expected::new();
    let names = names(120);
    for name in &names {
        likes(&node, name, 0..3, &mut expected).await;
    }
    node.write(add(&names[0], "views", 5)).await;
    node.write(add("only-counted", "views", 5)).await;
    node.checkpointer.checkpoint().await.expect("stored");
    let (packs, own) = rows_of(&machine).await;
    assert!((3..=8).contains(&packs) && own == 0, "{packs} {own}");

    // One outgrows its pack, the others fill theirs.
    for (place, name) in names.iter().enumerate() {
        let more = if place == 7 { 1_500 } else { 10 };
        likes(&node, name, 3..more, &mut expected).await;
    }
    node.checkpointer.checkpoint().await.expect("stored");
    let (packs, own) = rows_of(&machine).await;
    assert!((9..=24).contains(&packs) && own == 1, "{packs} {own}");

    // It keeps its rows when it is small again.
    for number in 0..1_490 {
        node.write(unlike(&names[7], &long(number))).await;
    }
    expected.insert(names[7].clone(), 10);
    node.checkpointer.checkpoint().await.expect("stored");
    assert_eq!(rows_of(&machine).await, (packs, 1));
    node.kill().await;
    let node = machine.start().await;
    assert_as_expected(&node, &expected);
    assert_eq!(node.engine.posts(), names.len() + 1);
}

/// A checkpoint rewrites what changed, not what stands beside it in other packs.
#[tokio::test]
async fn a_checkpoint_writes_the_packs_that_changed() {
    let machine = roomy(2);
    let mut node = machine.start().await;
    let mut expected = Expected::new();
    for name in names(400) {
        likes(&node, &name, 0..3, &mut expected).await;
    }
    let first = node.checkpointer.checkpoint().await.expect("stored");
    likes(&node, &names(1)[0], 3..4, &mut expected).await;
    let second = node.checkpointer.checkpoint().await.expect("stored");
    assert!(second.bytes * 6 < first.bytes, "{second:?} {first:?}");
    let third = node.checkpointer.checkpoint().await.expect("stored");
    assert_eq!(third.bytes, 0);
}

/// Grows posts and makes checkpoints, of which some are cut short by a power failure.
async fn history(seed: u64, steps: Vec<(usize, usize, Option<u64>)>) {
    let machine = roomy(seed);
    let mut node = machine.start().await;
    let mut expected = Expected::new();
    let names = names(180);
    for name in &names {
        likes(&node, name, 0..4, &mut expected).await;
    }
    node.checkpointer.checkpoint().await.expect("stored");
    for (place, more, cut) in steps {
        for name in names.iter().skip(place).step_by(2) {
            let have = expected[name] as usize;
            likes(&node, name, have..have + more, &mut expected).await;
        }
        match cut {
            None => drop(node.checkpointer.checkpoint().await.expect("stored")),
            Some(after) => {
                let number = machine.power.operations() + 1 + after;
                machine.power.cut_at(CutPoint::Operation { number });
                // Each row goes by itself. The checkpoint may also be done before the cut falls.
                node.checkpointer.group_bytes = 1;
                drop(node.checkpointer.checkpoint().await);
                machine.power.cancel_cut();
                drop(node);
                machine.reboot();
                node = machine.start().await;
            }
        }
        assert_as_expected(&node, &expected);
    }
    // With the log gone up to the last checkpoint, rows alone must tell.
    node.checkpointer.checkpoint().await.expect("stored");
    node.kill().await;
    let node = machine.start().await;
    assert_as_expected(&node, &expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn no_cut_in_a_checkpoint_loses_what_was_packed(
        seed in 0..1_000_000u64,
        steps in prop::collection::vec((0..2usize, 1..10usize, prop::option::weighted(0.7, 0..120u64)), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("starts").block_on(history(seed, steps));
    }
}
