//! The engine at its interface: add-wins, counts, repeated likes, requests, restarts.

mod support;

use std::cell::Cell;

use bytes::Bytes;
use futures_util::future::join_all;
use likewise::codec::block;
use likewise::crdt::dot::Replicas;
use likewise::crdt::event::{Action, Block, Event};
use likewise::crdt::frontier::ShortForm;
use likewise::engine::command::Write;
use likewise::engine::commit::Refused;
use likewise::engine::requests::Outcome;
use likewise::engine::write::WriteError;
use likewise::ids::{CounterName, Epoch, Region, Replica};
use likewise::log::{LogOptions, Position};
use support::{Machine, add, assert_entries, assert_equal, like, post, unlike, unlike_dots};

#[tokio::test]
async fn likes_survive_a_kill_and_a_fresh_epoch_is_drawn() {
    let machine = Machine::new("eu", 1);
    let node = machine.start().await;
    assert!(node.report.is_new);
    node.like("p", "ann").await;
    node.like("p", "bob").await;
    node.write(unlike("p", "ann")).await;
    node.write(add("p", "views", 5)).await;
    let (own, fingerprint) = (node.engine.own(), node.fingerprint());
    node.kill().await;

    let node = machine.start().await;
    assert_eq!(node.count("p"), 1);
    assert!(node.likes("p", "bob") && !node.likes("p", "ann"));
    assert_entries(&node, "p");
    assert_eq!(node.fingerprint(), fingerprint);
    assert_ne!(node.engine.own(), own);
}

#[tokio::test]
async fn state_is_the_same_from_a_checkpoint_and_from_the_log() {
    let machine = Machine::new("eu", 2);
    let mut node = machine.start().await;
    for number in 0..5_000 {
        let who = format!("u{number}");
        node.try_write(
            vec![like("hot", &who), like(&format!("p{}", number % 37), &who)],
            None,
        )
        .await
        .expect("taken");
        if number == 2_500 {
            node.checkpointer.checkpoint().await.expect("stored");
        }
    }
    let (fingerprint, likers) = (node.fingerprint(), node.engine.likers());
    node.checkpointer.checkpoint().await.expect("stored");
    node.write(unlike("hot", "u7")).await;
    node.like("hot", "u7").await;
    let after = node.fingerprint();
    assert_ne!(fingerprint, after);
    node.kill().await;

    let node = machine.start().await;
    assert_eq!(node.count("hot"), 5_000);
    assert_eq!(node.engine.likers(), likers);
    assert_eq!(node.fingerprint(), after);
    assert_entries(&node, "hot");
}

/// The same user likes in two regions that are cut off, then unlikes in neither, either or both.
#[tokio::test]
async fn count_equals_likers_after_double_likes_and_unlikes_in_every_order() {
    for (unlikes_a, unlikes_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let (machine_a, machine_b) = (Machine::new("eu", 3), Machine::new("us", 4));
        let (a, b) = (machine_a.start().await, machine_b.start().await);
        a.like("p", "ann").await;
        b.like("p", "ann").await;
        for (node, does) in [(&a, unlikes_a), (&b, unlikes_b)] {
            if does {
                node.write(unlike("p", "ann")).await;
            }
        }
        assert!(a.pull(&b).await && b.pull(&a).await);
        let expected = u64::from(!(unlikes_a && unlikes_b));
        assert_eq!(a.count("p"), expected);
        assert_equal(&[&a, &b], &["p"]);
        assert_entries(&a, "p");
        b.write(unlike("p", "ann")).await;
        assert!(a.pull(&b).await);
        assert_eq!((a.count("p"), b.count("p")), (0, 0));
        assert_equal(&[&a, &b], &["p"]);
    }
}

/// A count that each region keeps beside its set, and merges as a PN-counter, drifts here for ever.
#[tokio::test]
async fn a_counter_kept_beside_the_set_drifts_and_this_does_not() {
    let (machine_a, machine_b) = (Machine::new("eu", 5), Machine::new("us", 6));
    let (a, b) = (machine_a.start().await, machine_b.start().await);
    let mut beside = [0i64; 2];
    for (at, node) in [&a, &b].into_iter().enumerate() {
        let written = node.write(like("p", "ann")).await;
        if written.done[0].outcome == Outcome::Liked {
            beside[at] += 1;
        }
    }
    assert!(a.pull(&b).await && b.pull(&a).await);
    let set_size = i64::from(a.likes("p", "ann"));
    assert_eq!(
        beside.iter().sum::<i64>(),
        2,
        "kept beside the set: count 2, set size {set_size}"
    );
    assert_eq!((a.count("p"), b.count("p")), (1, 1));
}

#[tokio::test]
async fn a_repeated_like_survives_an_unlike_that_had_not_seen_it() {
    let (machine_a, machine_b) = (Machine::new("eu", 7), Machine::new("us", 8));
    let (a, b) = (machine_a.start().await, machine_b.start().await);
    a.like("p", "ann").await;
    assert!(b.pull(&a).await);
    b.write(unlike("p", "ann")).await;
    let again = a.write(like("p", "ann")).await;
    assert_eq!(again.done[0].outcome, Outcome::LikedAgain);
    assert!(a.pull(&b).await && b.pull(&a).await);
    assert_eq!((a.count("p"), b.count("p")), (1, 1));
    assert_equal(&[&a, &b], &["p"]);
}

#[tokio::test]
async fn absorbing_repeated_likes_makes_no_event_and_keeps_the_dot() {
    let mut machine = Machine::new("eu", 9);
    machine.absorb = true;
    let node = machine.start().await;
    let first = node.like("p", "ann").await;
    let position = node.reader.synced();
    assert_eq!(node.like("p", "ann").await, first);
    assert_eq!(node.reader.synced(), position);
}

#[tokio::test]
async fn an_unlike_of_an_unseen_like_kills_it_when_it_arrives() {
    let (machine_a, machine_b) = (Machine::new("eu", 10), Machine::new("us", 11));
    let (a, b) = (machine_a.start().await, machine_b.start().await);
    let dot = a.like("p", "ann").await;
    let done = b.write(unlike_dots("p", "ann", vec![dot.clone()])).await;
    assert_eq!(done.done[0].outcome, Outcome::NotLiked);
    assert_eq!(done.done[0].removed.len(), 1);
    assert_eq!(b.engine.orphan_removals(), 1);
    let again = b.write(unlike_dots("p", "ann", vec![dot])).await;
    assert!(again.done[0].removed.is_empty());
    assert!(b.pull(&a).await && a.pull(&b).await);
    assert_eq!((a.count("p"), b.count("p")), (0, 0));
    assert_eq!(b.engine.orphan_removals(), 0);
    assert_equal(&[&a, &b], &["p"]);
}

#[tokio::test]
async fn orphan_removals_of_clients_are_bounded() {
    let (machine_a, machine_b) = (Machine::new("eu", 12), Machine::new("us", 13));
    let (a, b) = (machine_a.start().await, machine_b.start().await);
    for number in 0..101 {
        let dot = a.like("p", &format!("u{number}")).await;
        let done = b
            .write(unlike_dots("p", &format!("u{number}"), vec![dot]))
            .await;
        let expected = if number < 100 {
            Outcome::NotLiked
        } else {
            Outcome::OrphanRemovalsFull
        };
        assert_eq!(done.done[0].outcome, expected);
    }
    // The bound holds over restarts, from the log and from a checkpoint.
    let mut b = b;
    for checkpoint in [false, true] {
        if checkpoint {
            b.checkpointer.checkpoint().await.expect("stored");
        }
        b.kill().await;
        b = machine_b.start().await;
        let dot = a.like("p", "one more").await;
        let done = b.write(unlike_dots("p", "one more", vec![dot])).await;
        assert_eq!(done.done[0].outcome, Outcome::OrphanRemovalsFull);
    }
    assert!(b.pull(&a).await);
    assert_eq!(b.count("p"), 2);
}

#[tokio::test]
async fn a_like_id_from_the_future_is_refused() {
    let machine = Machine::new("eu", 14);
    let node = machine.start().await;
    let (own, seq) = node.like("p", "ann").await;
    let future = unlike_dots("p", "ann", vec![(own, seq + 1)]);
    let refused = node.try_write(vec![future], None).await;
    assert!(matches!(refused, Err(WriteError::FromTheFuture)));
    assert_eq!(node.count("p"), 1);
}

#[tokio::test]
async fn a_retried_request_gets_the_earlier_answer_also_after_a_restart() {
    let machine = Machine::new("eu", 15);
    let mut node = machine.start().await;
    let adds = || {
        vec![
            add("p", "views", 10),
            add("p", "views", 10),
            like("p", "ann"),
        ]
    };
    let first = node.try_write(adds(), Some("r1")).await.expect("taken");
    let retried = node.try_write(adds(), Some("r1")).await.expect("answered");
    assert_eq!(first.done, retried.done);
    assert_eq!(first.token, retried.token);
    let no_op = node
        .try_write(vec![unlike("p", "bob")], Some("r2"))
        .await
        .expect("taken");
    assert_eq!(no_op.done[0].outcome, Outcome::NotLiked);
    node.like("p", "bob").await;
    let reused = node.try_write(vec![like("p", "bob")], Some("r2")).await;
    assert!(matches!(reused, Err(WriteError::RequestIdReused)));
    for checkpoint in [false, true] {
        if checkpoint {
            node.checkpointer.checkpoint().await.expect("stored");
        }
        node.kill().await;
        node = machine.start().await;
        let retried = node.try_write(adds(), Some("r1")).await.expect("answered");
        assert_eq!(retried.done.len(), 3);
        let no_op = node
            .try_write(vec![unlike("p", "bob")], Some("r2"))
            .await
            .expect("answered");
        assert_eq!(no_op.done[0].outcome, Outcome::NotLiked);
        assert!(
            node.likes("p", "bob"),
            "a retried unlike must not kill a later like"
        );
        let views = node.engine.view_counters(
            &support::post("p"),
            &[],
            likewise::engine::read::Detail::Figures,
        );
        assert_eq!(views[0].value.value, 20);
    }
}

#[tokio::test]
async fn blocks_apply_once_in_order_and_after_their_predecessors() {
    let (machine_a, machine_b) = (Machine::new("eu", 16), Machine::new("us", 17));
    let a = machine_a.start().await;
    a.like("p", "ann").await;
    a.like("p", "bob").await;
    a.kill().await;
    let a = machine_a.start().await;
    a.like("p", "cat").await;
    let blocks = a.blocks(Position::START).await;
    assert_eq!(blocks.len(), 3);
    let b = machine_b.start().await;
    assert_eq!(
        b.apply(&blocks[1]).await.expect("honest"),
        None,
        "over a gap"
    );
    assert_eq!(
        b.apply(&blocks[2]).await.expect("honest"),
        None,
        "before its predecessors"
    );
    for block in [
        &blocks[0], &blocks[1], &blocks[0], &blocks[2], &blocks[1], &blocks[2],
    ] {
        assert_eq!(b.apply(block).await.expect("honest"), Some(()));
    }
    assert_eq!(b.count("p"), 3);
    assert_equal(&[&a, &b], &["p"]);
    assert_eq!(
        b.engine.board().newest().short.len(),
        1,
        "one head a region"
    );
}

#[tokio::test]
async fn events_of_the_running_replica_that_it_never_made_raise_an_alarm() {
    let (machine_a, machine_b) = (Machine::new("eu", 18), Machine::new("us", 19));
    let (a, b) = (machine_a.start().await, machine_b.start().await);
    a.like("p", "ann").await;
    assert!(b.pull(&a).await);
    let copy = Machine::new("eu", 18);
    let copy = copy.start().await;
    assert_eq!(
        copy.engine.own(),
        a.engine.own(),
        "a copy of running memory"
    );
    let alarm = copy.apply(&a.blocks(Position::START).await[0]).await;
    assert!(matches!(
        alarm,
        Err(likewise::engine::remote::RemoteError::Alarm {
            claimed: 1,
            made: 0
        })
    ));
    let fresh = copy.engine.rotate_epoch();
    assert_eq!(
        copy.apply(&a.blocks(Position::START).await[0])
            .await
            .expect("honest"),
        Some(())
    );
    copy.like("p", "bob").await;
    assert_eq!(copy.engine.own(), fresh);
    assert!(a.pull(&copy).await && b.pull(&copy).await);
    assert_equal(&[&a, &b, &copy], &["p"]);
    assert_eq!(a.count("p"), 2);
}

#[tokio::test]
async fn a_thousand_starts_leave_one_head() {
    let machine = Machine::new("eu", 20);
    for number in 0..1_000 {
        let node = machine.start().await;
        node.like("p", &format!("u{number}")).await;
        if number % 100 == 99 {
            let mut node = node;
            node.checkpointer.checkpoint().await.expect("stored");
            assert_eq!(node.engine.board().newest().short.len(), 1);
            assert!(
                node.engine
                    .board()
                    .newest()
                    .token(node.engine.cluster())
                    .len()
                    <= 512
            );
            node.kill().await;
        } else {
            node.kill().await;
        }
    }
    let node = machine.start().await;
    assert_eq!(node.count("p"), 1_000);
    assert_entries(&node, "p");
}

/// What only asks, or has no effect, takes no memory in the end.
#[tokio::test]
async fn posts_that_nobody_wrote_are_forgotten() {
    let node = Machine::new("eu", 10).start().await;
    let engine = &node.engine;
    let watches: Vec<_> = (0..3)
        .map(|_| {
            engine
                .watch(&[post("watched"), post("liked"), post("watched")])
                .expect("a place")
        })
        .collect();
    assert_eq!((engine.posts_held(), engine.posts()), (2, 0));
    for number in 0..100 {
        let who = format!("p{number}");
        node.write(unlike(&who, "ann")).await;
        node.write(unlike("watched", "ann")).await;
        assert!(!node.likes(&who, "ann"));
    }
    assert_eq!(engine.posts_held(), 2);
    // An unlike by like id of a like that is known to be dead.
    let dot = node.like("liked", "ann").await;
    node.write(unlike("liked", "ann")).await;
    node.write(unlike_dots("elsewhere", "ann", vec![dot])).await;
    assert_eq!((engine.posts_held(), engine.posts()), (2, 1));
    drop(watches);
    assert_eq!((engine.posts_held(), engine.posts()), (1, 1));
    // With an effect: the removal waits for its like.
    let us = Machine::new("us", 11).start().await;
    let dot = us.like("elsewhere", "ann").await;
    node.write(unlike_dots("elsewhere", "ann", vec![dot])).await;
    assert_eq!((engine.posts_held(), engine.posts()), (2, 2));
}

#[tokio::test]
async fn a_watch_of_a_post_that_nobody_wrote_sees_its_first_like() {
    let node = Machine::new("eu", 12).start().await;
    let engine = &node.engine;
    drop(engine.watch(&[post("other")]).expect("a place"));
    let mut watch = engine.watch(&[post("p")]).expect("a place");
    node.write(unlike("p", "ann")).await;
    node.like("p", "ann").await;
    assert_eq!(watch.changed().await, [post("p")]);
    let too_many: Vec<_> = (0..10)
        .filter_map(|_| engine.watch(&[post("x")]).ok())
        .collect();
    assert_eq!(too_many.len(), 9);
    assert!(engine.watch(&[post("y")]).is_err());
    assert_eq!(engine.posts_held(), 2, "a refused watch holds nothing");
}

#[tokio::test]
async fn a_refused_like_leaves_nothing_behind() {
    let node = Machine::new("eu", 13).start().await;
    node.engine.queue().close(Refused::Stopping);
    for number in 0..10 {
        let command = like(&format!("p{number}"), "ann");
        node.try_write(vec![command], None)
            .await
            .expect_err("refused");
    }
    assert_eq!(node.engine.posts_held(), 0);
}

/// Side by side each would take as long as all, and find nothing in a cache.
#[tokio::test]
async fn large_writes_beyond_the_cores_wait_for_their_turn_and_small_ones_do_not() {
    const LIKES: u64 = 1_000;
    let mut machine = Machine::new("eu", 14);
    // With room for all of them at once.
    machine.log = LogOptions::default();
    let node = machine.start().await;
    let last = std::thread::available_parallelism().map_or(1, usize::from);
    let large = |number: usize| Write {
        commands: (0..LIKES)
            .map(|at| like(&format!("p{number}-{at}"), "ann"))
            .collect(),
        request: None,
    };
    let made = |number: usize| -> u64 {
        let posts = (0..LIKES).map(|at| format!("p{number}-{at}"));
        posts.map(|post| node.count(&post)).sum()
    };
    let of_last = Cell::new(None);
    let small_is_made = Cell::new(false);
    let writes: Vec<Write> = (0..=last).map(large).collect();
    let writing = writes.iter().map(|write| {
        node.engine.write_noting(write, || {
            if of_last.get().is_none() {
                of_last.set(Some(made(last)));
                small_is_made.set(node.likes("small", "ann"));
            }
        })
    });
    let (written, _) = tokio::join!(join_all(writing), node.like("small", "ann"));
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(of_last.get(), Some(0), "when the first was applied");
    assert!(small_is_made.get());
    assert_eq!(made(last), LIKES);
}

/// A peer's entries are taken as they are; what they make of the sum can be led back.
#[tokio::test]
async fn a_counter_that_peers_took_beyond_the_bound_is_led_back_by_adds() {
    let node = Machine::new("eu", 70).start().await;
    for (epoch, figures, away) in [(1, (u64::MAX, 0), 1), (2, (0, u64::MAX), -1)] {
        let counter = format!("counter-{epoch}");
        let block = foreign_add(epoch, &counter, figures);
        assert!(node.apply(&block).await.expect("a sound block").is_some());
        let further = node.write(add("p", &counter, away)).await;
        assert_eq!(further.done[0].outcome, Outcome::BeyondBound);
        let back = node.write(add("p", &counter, -away * (1 << 59))).await;
        assert_eq!(back.done[0].outcome, Outcome::Added);
    }
}

/// The first event of a replica in another region: an add with these figures.
fn foreign_add(epoch: u128, counter: &str, (increments, decrements): (u64, u64)) -> Bytes {
    let mut replicas = Replicas::default();
    let replica = replicas.intern(&Replica {
        region: Region::new("us").expect("valid"),
        epoch: Epoch(epoch),
    });
    let action = Action::Add {
        post: 0,
        counter: 0,
        increments,
        decrements,
    };
    let block = Block {
        replica,
        first_seq: 1,
        predecessors: Some(ShortForm::new()),
        posts: vec![post("p")],
        counters: vec![CounterName::new(counter).expect("valid")],
        events: vec![Event { time_ms: 1, action }],
    };
    block::encode(&block, &replicas).into()
}
