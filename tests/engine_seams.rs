//! What happens between two steps of the engine: a post that spreads while a checkpoint reads it, a client
//! that gives up and tries again, a first write while a snapshot is merged.

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use likewise::adapters::power::{CutPoint, Moment};
use likewise::adapters::simulated_disk::Operation;
use likewise::crdt::fingerprint::PostHash;
use likewise::crdt::user_key::UserHash;
use likewise::engine::checkpoint::CheckpointError;
use likewise::engine::command::{Command, Write};
use likewise::engine::commit::Refused;
use likewise::engine::snapshot::SnapshotError;
use likewise::engine::write::{WriteError, Written};
use likewise::log::Position;
use support::{Machine, Node, add, gate, like, post, unlike, user};
use tokio::sync::watch;

/// Users whose hash lies in the upper half, or the lower one.
fn users(upper: bool, count: usize) -> Vec<String> {
    let names = (0..).map(|number| format!("u{number}"));
    let is_upper = |name: &str| UserHash::of(&user(name)).order() >> 63 == 1;
    names
        .filter(|name| is_upper(name) == upper)
        .take(count)
        .collect()
}

/// A post that lives in this of four shards while it is small.
fn post_at(home: u128, stem: &str) -> String {
    let names = (0..).map(|number| format!("{stem}{number}"));
    let mut here = names.filter(|name| PostHash::of(&post(name)).0 & 3 == home);
    here.next().expect("some name")
}

fn likes(post_id: &str, users: &[String]) -> Vec<Command> {
    users.iter().map(|name| like(post_id, name)).collect()
}

fn roomy(machine: &mut Machine) {
    machine.log.segment_bytes = 32 << 20;
    machine.log.group_bytes_max = 16 << 20;
}

async fn write_all(node: &Node, commands: Vec<Command>) {
    for some in commands.chunks(100) {
        node.try_write(some.to_vec(), None).await.expect("taken");
    }
}

async fn assert_survives(machine: &Machine, node: Node, post_id: &str, count: u64) {
    let fingerprint = node.fingerprint();
    assert_eq!(node.count(post_id), count);
    node.kill().await;
    let node = machine.start().await;
    assert_eq!(node.count(post_id), count, "after a restart");
    assert_eq!(node.fingerprint(), fingerprint);
    assert_eq!(node.engine.recompute_sums().total().0, fingerprint);
}

/// Rows of the checkpoint speak until the next row: one whose bucket is gone would speak of the past.
#[tokio::test]
async fn boundaries_of_a_small_post_stay_when_it_spreads() {
    let mut machine = Machine::new("eu", 1);
    machine.shards = 2;
    let mut node = machine.start().await;
    let upper = users(true, 1_040);
    write_all(&node, likes("hot", &upper)).await;
    node.checkpointer.checkpoint().await.expect("stored");
    let unlikes = upper[..300]
        .iter()
        .map(|name| unlike("hot", name))
        .collect();
    write_all(&node, unlikes).await;
    write_all(&node, likes("hot", &users(false, 1_400))).await;
    node.checkpointer.checkpoint().await.expect("stored");
    assert_survives(&machine, node, "hot", 2_140).await;
}

/// Its lowest row would shrink before the others are stored.
#[tokio::test]
async fn a_post_does_not_spread_between_two_shards_of_a_checkpoint() {
    let mut machine = Machine::new("eu", 2);
    roomy(&mut machine);
    let mut node = machine.start().await;
    let (hot, large) = (
        post_at(3, "hot"),
        [post_at(2, "large"), post_at(1, "large")],
    );
    let mut all = users(true, 1_000);
    all.extend(users(false, 1_000));
    write_all(&node, likes(&hot, &all)).await;
    for name in &large {
        let long: Vec<String> = (0..2_500)
            .map(|number| format!("{number}{}", "x".repeat(240)))
            .collect();
        write_all(&node, likes(name, &long[..1_000])).await;
        for more in 0..4 {
            let name = post_at(PostHash::of(&post(name)).0 & 3, &format!("more{more}"));
            write_all(&node, likes(&name, &long[..1_000])).await;
        }
    }
    let engine = node.engine.clone();
    let write = |commands: Vec<Command>| {
        let engine = engine.clone();
        async move {
            let write = likewise::engine::command::Write {
                commands,
                request: None,
            };
            engine.write(&write).await.expect("taken");
        }
    };
    let (more, one) = (users(true, 1_100), vec![like("other", "ann")]);
    let before = async {
        // Its sync is under way when the checkpoint waits for the log.
        write(one.clone()).await;
    };
    let spread = write(likes(&hot, &more[1_000..]));
    let (_, stored, ()) = tokio::join!(before, node.checkpointer.checkpoint(), spread);
    stored.expect("stored");
    assert_survives(&machine, node, &hot, 2_100).await;
}

/// The stage's sender merges one itself: what it reads afterwards belongs to no frontier.
#[tokio::test]
async fn a_snapshot_ends_when_its_sender_merges_another() {
    let machines = [Machine::new("ap", 3), Machine::new("eu", 4)];
    let (a, mut b) = (machines[0].start().await, machines[1].start().await);
    a.like("p", "ann").await;
    b.like("q", "bob").await;
    let mut snapshot = b.snapshot();
    assert!(snapshot.next().await.is_ok());
    b.merge(&a.whole_snapshot().await).await.expect("merged");
    let ended = snapshot.next().await;
    assert!(matches!(ended, Err(SnapshotError::Unsettled)));
}

/// A region that lost its folder takes writes while a snapshot of its past is merged.
#[tokio::test]
async fn a_first_write_while_the_own_past_is_merged_is_kept() {
    let (old, peer) = (Machine::new("eu", 5), Machine::new("us", 6));
    let (node, b) = (old.start().await, peer.start().await);
    node.like("p", "ann").await;
    assert!(b.pull(&node).await);
    node.kill().await;
    let parts = b.whole_snapshot().await;
    for late in 0..40 {
        for cut in [None, Some(1), Some(2), Some(3), Some(4), Some(5)] {
            let machine = Machine::new("eu", 100 + late);
            let mut node = machine.start().await;
            let engine = node.engine.clone();
            if let Some(cut) = cut {
                let number = machine.power.syncs() + cut;
                machine.power.cut_at(CutPoint::Sync {
                    number,
                    moment: Moment::Before,
                });
            }
            let write = async {
                for _ in 0..late {
                    tokio::task::yield_now().await;
                }
                let commands = vec![like("p", "new")];
                engine
                    .write(&likewise::engine::command::Write {
                        commands,
                        request: None,
                    })
                    .await
            };
            let (merged, written) = tokio::join!(node.merge(&parts), write);
            machine.power.cancel_cut();
            assert_eq!(merged.is_ok() && written.is_ok(), machine.power.is_on());
            node.stop().await;
            machine.reboot();
            let mut node = machine.start().await;
            node.merge(&parts).await.expect("merged again");
            if written.is_ok() {
                assert!(node.likes("p", "new"), "late {late}, cut {cut:?}");
            }
            assert!(node.likes("p", "ann"));
            assert!(b.nodes_can_take(&node).await);
        }
    }
}

impl Node {
    /// All blocks of another node's log can be applied to a copy of this one's state.
    async fn nodes_can_take(&self, other: &Node) -> bool {
        let fresh = Machine::new("ap", 7);
        let fresh = fresh.start().await;
        let mut all = fresh.pull(self).await;
        for block in other.blocks(Position::START).await {
            all &= fresh
                .apply(&block)
                .await
                .expect("an honest block")
                .is_some();
        }
        all
    }
}

/// Events of a replica that this process was stand in the log behind those that it made as that replica.
#[tokio::test]
async fn what_a_twin_made_later_stands_behind_what_this_node_made() {
    let machines = [Machine::new("eu", 12), Machine::new("eu", 12)];
    let (twin, node) = (machines[0].start().await, machines[1].start().await);
    assert_eq!(
        twin.engine.own(),
        node.engine.own(),
        "a copy of running memory"
    );
    let first = || vec![like("p", "a"), like("p", "b")];
    twin.try_write(first(), None).await.expect("taken");
    twin.like("p", "c").await;
    let blocks = twin.blocks(Position::START).await;
    give_up(node.try_write(first(), None)).await;
    assert!(node.apply(&blocks[1]).await.is_err(), "an alarm");
    node.engine.rotate_epoch();
    assert_eq!(node.apply(&blocks[1]).await.expect("honest"), Some(()));
    node.like("p", "d").await;
    assert_survives(&machines[1], node, "p", 4).await;
}

/// A merge that stopped half way: what memory holds is under no frontier.
#[tokio::test]
async fn an_unsettled_node_makes_no_checkpoint_of_its_own() {
    let machines = [Machine::new("ap", 13), Machine::new("eu", 14)];
    let (mut a, b) = (machines[0].start().await, machines[1].start().await);
    b.like("p", "ann").await;
    let parts = b.whole_snapshot().await;
    assert!(a.merge_and_stop(&parts, parts.len() - 1).await.is_err());
    let refused = a.checkpointer.checkpoint().await;
    assert!(matches!(refused, Err(CheckpointError::Unsettled)));
    a.merge(&parts).await.expect("merged");
    a.checkpointer.checkpoint().await.expect("stored");
}

/// The dot is there and its event is still to come: the unlike must be remembered until then.
#[tokio::test]
async fn an_unlike_of_a_like_that_a_stopped_merge_brought_outlives_the_merge() {
    let machines = [Machine::new("ap", 15), Machine::new("eu", 16)];
    let (mut a, b) = (machines[0].start().await, machines[1].start().await);
    b.like("p", "zed").await;
    let mut snapshot = b.snapshot();
    let begin = b.next_part(&mut snapshot).await.expect("begins");
    b.like("p", "ann").await;
    let parts = b.read_on(&mut snapshot, vec![begin]).await;
    assert!(a.merge_and_stop(&parts, parts.len() - 1).await.is_err());
    assert!(a.likes("p", "ann"));
    a.write(unlike("p", "ann")).await;
    a.merge(&parts).await.expect("merged");
    assert!(!a.likes("p", "ann"), "the like outlived its unlike");
    assert!(a.pull(&b).await && b.pull(&a).await);
    support::assert_equal(&[&a, &b], &["p"]);
}

/// Polls once: the command is in memory, on its way to the log.
async fn give_up<T>(call: impl Future<Output = T>) {
    let mut call = pin!(call);
    let polled =
        std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready()));
    assert!(!polled.await, "it waits for the sync");
}

#[tokio::test]
async fn a_retry_while_the_given_up_call_is_in_flight_does_nothing_twice() {
    let machine = Machine::new("eu", 8);
    let node = machine.start().await;
    let adds = || vec![add("p", "views", 5), add("q", "views", 5), like("p", "ann")];
    give_up(node.try_write(adds(), Some("r"))).await;
    let answer = node.try_write(adds(), Some("r")).await.expect("answered");
    assert_eq!(answer.done.len(), 3);
    for name in ["p", "q"] {
        let views =
            node.engine
                .view_counters(&post(name), &[], likewise::engine::read::Detail::Figures);
        assert_eq!(views[0].value.value, 5, "{name}");
    }
}

#[tokio::test]
async fn a_given_up_call_whose_sync_fails_holds_nobody_up() {
    let machine = Machine::new("eu", 9);
    let node = machine.start().await;
    machine.power.fail_sync(machine.power.syncs() + 1);
    give_up(node.try_write(vec![like("p", "ann")], Some("r"))).await;
    let retried = node.try_write(vec![like("p", "ann")], Some("r")).await;
    assert!(matches!(
        retried,
        Err(WriteError::Refused(_) | WriteError::OutcomeUnknown(_))
    ));
}

/// A row may speak for users of several shards, where there were fewer when it was written.
#[tokio::test]
async fn rows_are_read_whatever_the_number_of_shards() {
    let mut machine = Machine::new("eu", 11);
    roomy(&mut machine);
    machine.shards = 1;
    let mut node = machine.start().await;
    let names = |from| (from..from + 4_000).map(|number| format!("u{number}"));
    write_all(&node, likes("hot", &names(0).collect::<Vec<_>>())).await;
    for (at, shards) in [8, 2, 16, 4].into_iter().enumerate() {
        node.checkpointer.checkpoint().await.expect("stored");
        let (fingerprint, count) = (node.fingerprint(), node.count("hot"));
        node.kill().await;
        machine.shards = shards;
        node = machine.start().await;
        assert_eq!(
            (node.fingerprint(), node.count("hot")),
            (fingerprint, count)
        );
        assert_eq!(node.engine.recompute_sums().total().0, fingerprint);
        let more: Vec<String> = names(3_000 + 1_000 * at).collect();
        write_all(&node, likes("hot", &more)).await;
    }
    assert_survives(&machine, node, "hot", 10_000).await;
}

/// What a start reads stands in the checkpoint already.
#[tokio::test]
async fn a_checkpoint_after_a_start_writes_no_row_of_likers_again() {
    let mut machine = Machine::new("eu", 12);
    roomy(&mut machine);
    let mut node = machine.start().await;
    let names: Vec<String> = (0..6_000).map(|number| format!("u{number}")).collect();
    write_all(&node, likes("hot", &names)).await;
    node.checkpointer.checkpoint().await.expect("stored");
    // Once more, for rows of before the post was spread give way to others.
    node.checkpointer.checkpoint().await.expect("stored");
    node.kill().await;
    let mut node = machine.start().await;
    node.write(like("other", "ann")).await;
    let report = node.checkpointer.checkpoint().await.expect("stored");
    assert_eq!(
        report.rows, 2,
        "of the other post, and how far rows may show"
    );
}

/// A batch that only an empty one can take waits for it, and lets the log's worker work.
#[tokio::test]
async fn a_huge_batch_behind_a_small_one_is_taken() {
    let mut machine = Machine::new("eu", 10);
    roomy(&mut machine);
    machine.shards = 1;
    let node = machine.start().await;
    let long = "x".repeat(240);
    let huge =
        (0..9_000).map(|number| like(&format!("{long}{}", number % 9), &format!("{long}{number}")));
    let (small, huge) = tokio::join!(
        node.try_write(vec![like("p", "ann")], None),
        node.try_write(huge.collect(), None)
    );
    assert!(small.is_ok() && huge.is_ok(), "{small:?} {huge:?}");
    assert_eq!(node.engine.likers(), 9_001);
}

/// In so many turns of all tasks a write is done, if nothing holds it up.
const TURNS: usize = 100;

/// No segment is allocated until the sender says so.
fn hold_allocations(machine: &Machine) -> watch::Sender<bool> {
    gate(&machine.disk, Operation::Allocate, false)
}

/// Writes until one waits, which is returned with how many were taken.
async fn fill_until_one_waits(
    node: &Node,
) -> (usize, impl Future<Output = Result<Written, WriteError>>) {
    for taken in 0.. {
        let (engine, who) = (node.engine.clone(), format!("u{taken}"));
        let mut write = Box::pin(async move {
            let commands = vec![like("p", &who)];
            let request = None;
            engine.write(&Write { commands, request }).await
        });
        let mut turns = 0;
        let written = loop {
            match futures_util::poll!(&mut write) {
                Poll::Ready(written) => break written,
                Poll::Pending if turns == TURNS => return (taken, write),
                Poll::Pending => tokio::task::yield_now().await,
            }
            turns += 1;
        };
        written.expect("nobody is refused while a segment is on its way");
    }
    unreachable!("a log without another segment takes no end of writes")
}

#[tokio::test]
async fn a_write_waits_for_a_segment_that_is_being_prepared() {
    let machine = Machine::new("eu", 13);
    let node = machine.start().await;
    let release = hold_allocations(&machine);
    let (taken, waiting) = fill_until_one_waits(&node).await;
    release.send_replace(true);
    waiting.await.expect("taken");
    assert_eq!(node.count("p"), taken as u64 + 1);
}

#[tokio::test]
async fn who_waits_for_a_segment_hears_that_the_disk_is_full() {
    let machine = Machine::new("eu", 14);
    let node = machine.start().await;
    let release = hold_allocations(&machine);
    let (taken, waiting) = fill_until_one_waits(&node).await;
    machine.disk.set_capacity(machine.disk.used());
    release.send_replace(true);
    let refused = waiting.await.expect_err("there is no room");
    assert!(
        matches!(refused, WriteError::Refused(Refused::DiskFull)),
        "{refused}"
    );
    assert_eq!(node.count("p"), taken as u64);
}

#[tokio::test]
async fn who_waits_for_a_segment_hears_that_the_node_stops() {
    let machine = Machine::new("eu", 15);
    let node = machine.start().await;
    let _held = hold_allocations(&machine);
    let (_, waiting) = fill_until_one_waits(&node).await;
    node.engine.queue().close(Refused::Stopping);
    let refused = waiting.await.expect_err("it stops");
    assert!(
        matches!(refused, WriteError::Refused(Refused::Stopping)),
        "{refused}"
    );
}

/// Writes are refused before they change anything, and taken again when there is room.
#[tokio::test]
async fn a_full_disk_refuses_and_an_emptied_one_takes() {
    let mut machine = Machine::new("eu", 11);
    machine.cutting = support::Cutting::Always;
    let mut node = machine.start().await;
    node.like("p", "first").await;
    machine.disk.set_capacity(machine.disk.used());
    let mut taken = 1;
    let refused = loop {
        let who = format!("u{taken}");
        match node.try_write(vec![like("p", &who)], None).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, WriteError::Refused(_)), "{refused:?}");
    assert_eq!(node.count("p"), taken);
    node.checkpointer
        .checkpoint()
        .await
        .expect("the store has room");
    machine.disk.set_capacity(u64::MAX);
    node.room.retry();
    node.room.wait_for(4_096).await.expect("the log lives");
    node.like("p", "last").await;
    assert_eq!(node.count("p"), taken + 1);
}

/// While the first of three writes is synced the second comes; the third comes when the first is answered. Returns the
/// commits that the three took, and how long.
async fn commits_of_three_writes(items: usize) -> (u64, Duration) {
    let mut machine = Machine::new("eu", 17);
    roomy(&mut machine);
    let node = machine.start().await;
    let sync = gate(&machine.disk, Operation::Sync, false);
    let begun = tokio::time::Instant::now();
    let engine = node.engine.clone();
    let write = |post_id: &'static str| {
        let commands = likes(post_id, &users(false, items));
        let engine = engine.clone();
        tokio::spawn(async move {
            let request = None;
            engine.write(&Write { commands, request }).await
        })
    };
    let first = write("first");
    while node.engine.queue().own().1 == 0 {
        tokio::task::yield_now().await;
    }
    // The log has it by now, and waits for its sync.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let second = write("second");
    while node.count("second") < items as u64 {
        tokio::task::yield_now().await;
    }
    sync.send(true).expect("the disk listens");
    first.await.expect("no panic").expect("taken");
    let third = write("third");
    for written in [second, third] {
        written.await.expect("no panic").expect("taken");
    }
    let took = begun.elapsed();
    node.kill().await;
    (machine.start().await.report.log.records, took)
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_more_where_much_is_written_and_for_nobody_else() {
    let (commits, took) = commits_of_three_writes(2_000).await;
    assert_eq!(commits, 2, "the second and the third together");
    assert!(took < Duration::from_millis(10), "{took:?}");
    // One caller, or a client that gathers the calls of some hundred.
    for items in [1, 300] {
        let (commits, took) = commits_of_three_writes(items).await;
        assert_eq!(commits, 3, "{items}");
        assert_eq!(
            took,
            Duration::from_millis(1),
            "as long as the first was held"
        );
    }
}
