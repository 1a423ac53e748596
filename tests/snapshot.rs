//! Snapshots taken while writes go on, merged by the rules, and what breaks without each of them.
//!
//! The traces are those that showed the rules to be needed: A, B and C are regions; a snapshot is read in
//! parts, with writes between them.

mod support;

use likewise::crdt::fingerprint::PostHash;
use likewise::crdt::ranges::RangeSet;
use likewise::engine::Settlement;
use likewise::engine::snapshot::Wanted;
use likewise::log::Position;
use likewise::wire::replication::SnapshotResponse;
use likewise::wire::replication::snapshot_chunk::Part as ChunkOf;
use likewise::wire::replication::snapshot_response::Body;
use support::{Machine, Node, add, assert_entries, assert_equal, unlike, unlike_dots};

async fn three() -> ([Machine; 3], [Node; 3]) {
    let machines = [
        Machine::new("ap", 1),
        Machine::new("eu", 2),
        Machine::new("us", 3),
    ];
    let nodes = [
        machines[0].start().await,
        machines[1].start().await,
        machines[2].start().await,
    ];
    (machines, nodes)
}

#[tokio::test]
async fn an_empty_node_gets_everything() {
    let (_machines, [mut a, b, c]) = three().await;
    for number in 0..3_000 {
        b.like("hot", &format!("u{number}")).await;
        b.like(&format!("p{}", number % 50), "ann").await;
    }
    b.write(add("hot", "views", 7)).await;
    let dot = c.like("hot", "far").await;
    b.write(unlike_dots("hot", "far", vec![dot])).await;
    let parts = b.whole_snapshot().await;
    a.merge(&parts).await.expect("merged");
    assert_equal(&[&a, &b], &["hot", "p7"]);
    assert_eq!(a.engine.orphan_removals(), 1);
    assert!(a.pull(&c).await && b.pull(&c).await);
    assert_equal(&[&a, &b], &["hot"]);
    assert_entries(&a, "hot");
    assert_eq!(a.count("hot"), 3_000);
}

#[tokio::test]
async fn a_merged_snapshot_survives_a_kill() {
    let (machines, [mut a, b, _c]) = three().await;
    a.like("mine", "ann").await;
    b.like("p", "ann").await;
    let parts = b.whole_snapshot().await;
    a.merge(&parts).await.expect("merged");
    a.like("mine", "bob").await;
    let fingerprint = a.fingerprint();
    a.kill().await;
    let a = machines[0].start().await;
    assert_eq!((a.count("p"), a.count("mine")), (1, 2));
    assert_eq!(a.fingerprint(), fingerprint);
    assert!(b.pull(&a).await);
    assert_equal(&[&a, &b], &["p", "mine"]);
}

/// Writes on both sides while the snapshot is read: likes, unlikes and re-likes of what is in it.
#[tokio::test]
async fn a_snapshot_read_in_the_middle_of_writes_loses_and_revives_nothing() {
    let (_machines, [mut a, b, _c]) = three().await;
    for number in 0..40 {
        b.like(&format!("p{number:02}"), "ann").await;
        a.like(&format!("p{number:02}"), "bob").await;
    }
    assert!(b.pull(&a).await);
    let mut snapshot = b.snapshot();
    let mut parts = Vec::new();
    let mut turn = 0;
    while let Some(part) = b.next_part(&mut snapshot).await {
        parts.push(part);
        let name = format!("p{:02}", (turn * 7) % 40);
        match turn % 3 {
            0 => drop(b.write(unlike(&name, "ann")).await),
            1 => drop(b.like(&name, "bob").await),
            _ => drop(a.write(unlike(&name, "bob")).await),
        }
        turn += 1;
    }
    a.merge(&parts).await.expect("merged");
    assert!(a.pull(&b).await && b.pull(&a).await);
    let names: Vec<String> = (0..40).map(|number| format!("p{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_equal(&[&a, &b], &names);
    for name in names {
        assert_entries(&a, name);
    }
}

/// Rule: from the beginning of merging, events that F covers are not applied from streams.
#[tokio::test]
async fn events_under_f_are_held_while_a_snapshot_is_merged() {
    let (_machines, [mut a, b, _c]) = three().await;
    b.like("p", "ann").await;
    let like = b.blocks(Position::START).await.remove(0);
    b.write(unlike("p", "ann")).await;
    let parts = b.whole_snapshot().await;
    let engine = a.engine.clone();
    // Between two parts of the merge a stream tries to bring the like.
    let attempts = tokio::spawn(async move {
        let mut applied = 0;
        for _ in 0..200 {
            if engine.settlement() == Settlement::Merging
                && let Ok(likewise::engine::remote::Applied::New(_)) = engine.apply_remote(&like)
            {
                applied += 1;
            }
            tokio::task::yield_now().await;
        }
        applied
    });
    a.merge(&parts).await.expect("merged");
    assert_eq!(attempts.await.expect("ran"), 0);
    assert!(a.pull(&b).await);
    assert_eq!(a.count("p"), 0, "the like was revived");
    assert_equal(&[&a, &b], &["p"]);
}

/// Rule: orphan removals are read with the frontier, before any post.
#[tokio::test]
async fn an_orphan_removal_that_is_resolved_while_the_snapshot_is_read_still_travels() {
    let (_machines, [mut a, b, c]) = three().await;
    let dot = c.like("p", "ann").await;
    b.write(unlike_dots("p", "ann", vec![dot])).await;
    let mut snapshot = b.snapshot();
    let first = b.next_part(&mut snapshot).await.expect("begins");
    assert!(b.pull(&c).await);
    let parts = b.read_on(&mut snapshot, vec![first]).await;
    a.merge(&parts).await.expect("merged");
    assert!(a.pull(&c).await && a.pull(&b).await);
    assert_eq!(a.count("p"), 0, "a dead like lives");
    assert_equal(&[&a, &b], &["p"]);
}

/// The same for a checkpoint: orphan removals are in it, as of its beginning.
#[tokio::test]
async fn orphan_removals_survive_a_checkpoint_and_a_kill() {
    let (mut machines, [a, b, c]) = three().await;
    drop(a);
    b.kill().await;
    machines[1].cutting = support::Cutting::Always;
    let mut b = machines[1].start().await;
    let dot = c.like("p", "ann").await;
    b.write(unlike_dots("p", "ann", vec![dot])).await;
    b.checkpointer.checkpoint().await.expect("stored");
    b.kill().await;
    let b = machines[1].start().await;
    assert_eq!(b.engine.orphan_removals(), 1);
    assert!(b.pull(&c).await);
    assert_eq!(b.count("p"), 0);
}

/// Rule: a removal of a dot that is not covered leaves an orphan removal, also when the dot is there.
#[tokio::test]
async fn an_unlike_of_a_like_that_only_a_snapshot_brought_outlives_a_crash_in_the_merge() {
    let (machines, [mut a, b, _c]) = three().await;
    b.like("p", "zed").await;
    let mut snapshot = b.snapshot();
    let begin = b.next_part(&mut snapshot).await.expect("begins");
    b.like("p", "ann").await;
    let parts = b.read_on(&mut snapshot, vec![begin]).await;
    // The merge stops before its end: the like is in memory, beyond the frontier.
    let is_tail = |part: &SnapshotResponse| matches!(part.body, Some(Body::TailBlock(_)));
    let cut = parts.iter().position(is_tail).expect("has a tail");
    let merged = a.merge_and_stop(&parts, cut).await;
    assert!(merged.is_err());
    assert!(a.likes("p", "ann"));
    a.write(unlike("p", "ann")).await;
    a.kill().await;
    let mut a = machines[0].start().await;
    assert!(a.pull(&b).await);
    assert!(!a.likes("p", "ann"), "the like outlived its unlike");
    assert!(b.pull(&a).await);
    assert_equal(&[&a, &b], &["p"]);
    let _later = a.checkpointer.checkpoint().await.expect("stored");
}

/// Rule: what is merged before the whole snapshot is here would show effects of events nobody has.
/// An incomplete one is refused, and nothing happens.
#[tokio::test]
async fn an_incomplete_snapshot_changes_nothing() {
    let (_machines, [mut a, b, _c]) = three().await;
    b.like("p", "ann").await;
    let parts = b.whole_snapshot().await;
    for end in 0..parts.len() {
        assert!(a.merge(&parts[..end]).await.is_err());
        assert_eq!(
            (a.count("p"), a.engine.settlement()),
            (0, Settlement::Settled)
        );
    }
    a.merge(&parts).await.expect("merged");
    assert_equal(&[&a, &b], &["p"]);
}

/// A merge is over when a checkpoint holds it. Whichever sync of it fails, trying again makes it durable, and not the
/// frontier that memory shows already.
#[tokio::test]
async fn a_merge_whose_checkpoint_failed_is_not_over() {
    let mut has_failed = false;
    for further in 1.. {
        let (machines, [mut a, b, _c]) = three().await;
        b.like("p", "ann").await;
        let parts = b.whole_snapshot().await;
        let power = &machines[0].power;
        power.fail_sync(power.syncs() + further);
        if a.merge(&parts).await.is_ok() {
            assert!(has_failed, "no sync of a merge was made to fail");
            return;
        }
        has_failed = true;
        assert_eq!(a.engine.settlement(), Settlement::Merging);
        assert_ne!(a.durable(), b.durable(), "announced");
        a.merge(&parts).await.expect("merged");
        a.kill().await;
        let a = machines[0].start().await;
        assert_equal(&[&a, &b], &["p"]);
    }
}

/// Nothing leaves before it is durable: when the sender's log fails, its snapshot ends.
#[tokio::test]
async fn a_chunk_waits_for_the_sync_of_what_it_shows() {
    let (machines, [_a, b, _c]) = three().await;
    b.like("p", "ann").await;
    let mut snapshot = b.snapshot();
    let _begin = snapshot.next().await.expect("well");
    machines[1].power.fail_sync(machines[1].power.syncs() + 1);
    let write = b.try_write(vec![unlike("p", "ann")], None).await;
    assert!(write.is_err());
    assert!(!b.likes("p", "ann"), "memory shows the unlike");
    assert!(snapshot.next().await.is_err(), "the snapshot must not");
}

/// Posts that the snapshot lacks are empty there.
#[tokio::test]
async fn a_post_that_the_sender_emptied_is_emptied() {
    let (_machines, [mut a, b, c]) = three().await;
    c.like("gone", "ann").await;
    assert!(a.pull(&c).await && b.pull(&c).await);
    b.write(unlike("gone", "ann")).await;
    let parts = b.whole_snapshot().await;
    a.merge(&parts).await.expect("merged");
    assert_eq!(a.count("gone"), 0);
    assert_equal(&[&a, &b], &["gone"]);
}

/// A snapshot of some ranges has their posts and orphan removals, and none of others.
#[tokio::test]
async fn a_snapshot_of_some_ranges_leaves_the_others_out() {
    let (_machines, [_a, b, c]) = three().await;
    for number in 0..40 {
        let name = format!("p{number:02}");
        b.like(&name, "ann").await;
        let dot = c.like(&name, "bob").await;
        b.write(unlike_dots(&name, "bob", vec![dot])).await;
    }
    let range_of = |post: &str| PostHash::of(&support::post(post)).range();
    let ranges: RangeSet = [range_of("p03"), range_of("p21")].into_iter().collect();
    let mut snapshot = b.snapshot_of(Wanted::of(ranges)).expect("settled");
    let (mut posts, mut orphans) = (0, 0);
    for part in b.read_on(&mut snapshot, Vec::new()).await {
        match part.body {
            Some(Body::Begin(begin)) => orphans += begin.orphan_removals.len(),
            Some(Body::Chunks(chunks)) => {
                for chunk in chunks.chunks {
                    assert!(ranges.contains(range_of(&chunk.post)), "{}", chunk.post);
                    posts += usize::from(matches!(chunk.part, Some(ChunkOf::Figures(_))));
                }
            }
            _ => {}
        }
    }
    assert!((2..40).contains(&posts), "{posts} posts");
    assert_eq!(orphans, posts);
}

/// Two nodes snapshot each other, with unlikes of each other's likes between.
#[tokio::test]
async fn snapshots_both_ways_converge() {
    let (_machines, [mut a, mut b, _c]) = three().await;
    for number in 0..30 {
        a.like("p", &format!("a{number}")).await;
        b.like("p", &format!("b{number}")).await;
        b.like("p", &format!("a{number}")).await;
    }
    let (mut from_a, mut from_b) = (a.snapshot(), b.snapshot());
    a.write(unlike("p", "a3")).await;
    let from_a = a.read_on(&mut from_a, Vec::new()).await;
    b.write(unlike("p", "b3")).await;
    let from_b = b.read_on(&mut from_b, Vec::new()).await;
    b.merge(&from_a).await.expect("merged");
    a.merge(&from_b).await.expect("merged");
    assert!(a.pull(&b).await && b.pull(&a).await);
    assert_equal(&[&a, &b], &["p"]);
    assert_eq!(a.count("p"), 59);
    assert_entries(&a, "p");
}
