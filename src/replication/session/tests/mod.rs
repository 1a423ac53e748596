//! The machine, two at a time and back to back, over nodes in memory.

mod hostile;
mod passing;
mod withhold;
mod world;

use std::sync::Arc;

use crate::replication::frame::CloseReason;
use crate::replication::session::Agreement;
use crate::replication::session::Verdict;
use crate::replication::session::tests::world::{End, Link, Node, run, settings};

fn assert_equal(nodes: &[&Arc<Node>]) {
    for node in nodes {
        assert_eq!(node.frontier(), nodes[0].frontier());
    }
}

/// Two nodes with a link between them.
fn pair() -> (Arc<Node>, Arc<Node>, [Link; 1], u64) {
    let (eu, us) = (Node::new("eu", 1), Node::new("us", 2));
    let link = Link::new(&eu, &us, 0);
    (eu, us, [link], 0)
}

#[test]
fn own_events_cross_at_once_and_the_states_are_compared() {
    let (eu, us, mut links, mut now) = pair();
    run(&mut links, &mut now, 50);
    eu.write(3);
    us.write(2);
    run(&mut links, &mut now, 15);
    assert_equal(&[&eu, &us]);
    run(&mut links, &mut now, 50);
    let status = links[0].0.session.standing(now);
    assert_eq!(status.agreement, Agreement::Equal);
    assert_eq!((status.events_behind, status.lag_ms), (0, 0));
}

#[test]
fn equal_frontiers_with_other_contents_are_told() {
    let (eu, us, mut links, mut now) = pair();
    eu.write(3);
    run(&mut links, &mut now, 100);
    us.inner.lock().published = {
        let (published, mut sums) = (us.durable().published, us.durable().published.sums.clone());
        sums.add(7, crate::crdt::fingerprint::Fingerprint(1));
        Arc::new(crate::engine::published::Published::new(
            (published.ticket, published.position),
            (published.vector.clone(), published.short.clone()),
            sums,
            (published.replicas.clone(), published.own),
        ))
    };
    run(&mut links, &mut now, 100);
    for end in [&links[0].0, &links[0].1] {
        assert_eq!(end.session.standing(now).agreement, Agreement::Diverged);
    }
}

#[test]
fn a_full_mesh_carries_each_event_once() {
    let nodes = [Node::new("ap", 1), Node::new("eu", 2), Node::new("us", 3)];
    let [ap, eu, us] = &nodes;
    let mut now = 0;
    let mut links = [
        Link::new(ap, eu, 0),
        Link::new(eu, us, 0),
        Link::new(us, ap, 0),
    ];
    for round in 0..50 {
        nodes[round % 3].write(1 + round % 4);
        run(&mut links, &mut now, 60);
    }
    run(&mut links, &mut now, 5_000);
    assert_equal(&[ap, eu, us]);
    let sent: usize = links
        .iter()
        .map(|link| link.0.events_sent + link.1.events_sent)
        .sum();
    assert_eq!(sent, 100, "50 blocks to two peers each");
    assert!(nodes.iter().all(|node| node.inner.lock().known == 0));
}

#[test]
fn a_missing_link_is_bridged() {
    let (ap, eu, us) = (Node::new("ap", 1), Node::new("eu", 2), Node::new("us", 3));
    let mut now = 0;
    let mut links = [Link::new(&ap, &eu, 0), Link::new(&eu, &us, 0)];
    for _ in 0..40 {
        ap.write(5);
        us.write(2);
        run(&mut links, &mut now, 20);
    }
    assert_ne!(ap.frontier(), us.frontier());
    run(&mut links, &mut now, 1_500);
    assert_equal(&[&ap, &eu, &us]);
    assert!(
        [&ap, &eu, &us]
            .iter()
            .all(|node| node.inner.lock().known == 0)
    );
}

#[test]
fn after_a_cut_only_what_is_missing_is_sent() {
    let (eu, us, mut links, mut now) = pair();
    for _ in 0..30 {
        eu.write(2);
        run(&mut links, &mut now, 5);
    }
    run(&mut links, &mut now, 2_000);
    for _ in 0..20 {
        eu.write(1);
        us.write(1);
    }
    let mut links = [Link::new(&eu, &us, now)];
    run(&mut links, &mut now, 3_000);
    assert_equal(&[&eu, &us]);
    assert_eq!(links[0].0.events_sent, 20);
    assert_eq!(links[0].1.events_sent, 20);
}

#[test]
fn events_cut_off_in_flight_are_sent_again() {
    let (eu, us, mut links, mut now) = pair();
    for round in 0..40 {
        eu.write(2);
        run(&mut links, &mut now, 3);
        if round % 4 == 3 {
            links = [Link::new(&eu, &us, now)];
        }
    }
    run(&mut links, &mut now, 2_000);
    assert_equal(&[&eu, &us]);
}

#[test]
fn dropped_blocks_are_asked_for_again() {
    for refusal in [Verdict::NotYet, Verdict::NoRoom] {
        let (eu, us, mut links, mut now) = pair();
        run(&mut links, &mut now, 50);
        us.inner.lock().refusal = Some(refusal);
        for _ in 0..10 {
            eu.write(2);
            run(&mut links, &mut now, 700);
        }
        let resumes = links[0].1.resumes;
        assert!((2..=5).contains(&resumes), "{resumes} in 7 s, ever fewer");
        assert!(!links[0].1.session.standing(now).problem.is_empty());
        us.inner.lock().refusal = None;
        run(&mut links, &mut now, 5_000);
        assert_equal(&[&eu, &us]);
        assert!(links[0].1.session.standing(now).problem.is_empty());
        let resumes = links[0].1.resumes;
        run(&mut links, &mut now, 10_000);
        assert_eq!(links[0].1.resumes, resumes, "quiet once all is there");
    }
}

#[test]
fn a_busy_engine_is_tried_again_and_the_peer_waits() {
    let (eu, us, mut links, mut now) = pair();
    run(&mut links, &mut now, 50);
    us.inner.lock().refusal = Some(Verdict::Busy);
    for _ in 0..10 {
        eu.write(2);
    }
    run(&mut links, &mut now, 6_000);
    assert!(!links[0].1.session.wants_frames());
    us.inner.lock().refusal = None;
    run(&mut links, &mut now, 100);
    assert_equal(&[&eu, &us]);
    assert_eq!(links[0].1.resumes, 0);
    assert_eq!(links[0].1.ended, None);
}

#[test]
fn the_window_bounds_what_is_not_durable_there() {
    let (eu, us, mut links, mut now) = pair();
    run(&mut links, &mut now, 50);
    links[0].1.is_syncing = false;
    for _ in 0..500 {
        eu.write(1);
    }
    run(&mut links, &mut now, 500);
    let bytes = 32;
    let sent = links[0].0.events_sent;
    assert!(
        sent > 10 && sent * bytes < 2 * settings().window_bytes,
        "{sent} blocks"
    );
    run(&mut links, &mut now, 500);
    assert_eq!(links[0].0.events_sent, sent);
    assert!(links[0].0.session.standing(now).events_behind > 0);
    links[0].1.is_syncing = true;
    run(&mut links, &mut now, 3_000);
    assert_equal(&[&eu, &us]);
    assert_eq!(links[0].0.events_sent, 500);
}

#[test]
fn behind_the_cut_a_snapshot_is_wanted_and_the_log_goes_on_after_it() {
    let (eu, us) = (Node::new("eu", 1), Node::new("us", 2));
    for _ in 0..20 {
        eu.write(1);
    }
    eu.cut(1);
    let mut now = 0;
    let mut links = [Link::new(&eu, &us, 0)];
    us.write(1);
    run(&mut links, &mut now, 2_500);
    assert_eq!(links[0].1.wants.len(), 1, "asked once");
    assert_eq!(links[0].0.events_sent, 0, "nothing that cannot be applied");
    assert!(eu.frontier().len() == 2, "the other direction goes on");
    assert!(!links[0].0.session.standing(now).problem.is_empty());
    eu.write(3);
    us.merge(&eu);
    eu.write(2);
    run(&mut links, &mut now, 500);
    assert_equal(&[&eu, &us]);
    assert!(links[0].0.session.standing(now).problem.is_empty());
}

#[test]
fn a_raised_frontier_does_not_stand_for_a_whole_log() {
    let (ap, eu, us) = (Node::new("ap", 1), Node::new("eu", 2), Node::new("us", 3));
    for _ in 0..3 {
        ap.write(1);
    }
    eu.merge(&ap);
    eu.write(1);
    let mut now = 0;
    let mut links = [Link::new(&eu, &us, 0)];
    run(&mut links, &mut now, 3_000);
    assert_eq!(links[0].1.wants.len(), 1);
    assert_eq!(us.frontier().len(), 1, "eu's own events flow");
}

/// No log of this node will ever hold it, and perhaps the peer knows nobody else.
#[test]
fn who_lacks_what_a_snapshot_brings_during_the_session_is_told() {
    let (ap, eu, us) = (Node::new("ap", 1), Node::new("eu", 2), Node::new("us", 3));
    us.write(5);
    let mut now = 0;
    let mut links = [Link::new(&ap, &eu, now)];
    run(&mut links, &mut now, 3_000);
    eu.merge(&us);
    run(&mut links, &mut now, 3_000);
    let wanted = [(ap.number(&world::replica("us", 3)), 5)];
    assert_eq!(links[0].0.wants, [wanted.to_vec()]);
    ap.merge(&eu);
    eu.write(1);
    run(&mut links, &mut now, 3_000);
    assert_eq!(links[0].0.wants.len(), 1);
    assert_eq!(ap.frontier(), eu.frontier());
}

#[test]
fn who_follows_on_a_replica_behind_the_cut_waits_for_it() {
    let (ap, eu, us) = (Node::new("ap", 1), Node::new("eu", 2), Node::new("us", 3));
    let mut now = 0;
    let mut links = [Link::new(&ap, &eu, now)];
    for _ in 0..8 {
        eu.write(1);
    }
    run(&mut links, &mut now, 100);
    // The second run follows on the first, whose events the log will lose, and the third on the second.
    for epoch in [20, 21] {
        eu.restart(epoch);
        for _ in 0..4 {
            eu.write(1);
        }
    }
    let mut unrelated = [Link::new(&Node::new("sa", 4), &eu, now)];
    unrelated[0].0.node.write(1);
    run(&mut unrelated, &mut now, 100);
    eu.cut(3);
    let mut links = [Link::new(&eu, &us, now)];
    run(&mut links, &mut now, 3_000);
    assert_eq!(links[0].1.wants.len(), 1);
    let reached: Vec<_> = us.frontier().into_iter().map(|(one, _)| one).collect();
    assert_eq!(reached, [world::replica("sa", 4)], "who follows on nobody");
    assert_eq!(links[0].0.events_sent, 1, "nothing that cannot be applied");
    assert_eq!(links[0].1.resumes, 0);

    // Another peer held what the first run made, and no more.
    assert_eq!(ap.frontier(), [(world::replica("eu", 2), 8)]);
    us.merge(&ap);
    run(&mut links, &mut now, 3_000);
    assert_equal(&[&eu, &us]);
    assert_eq!(links[0].0.events_sent, 1 + 8, "each once");
    assert_eq!(links[0].1.resumes, 0);
    assert_eq!(links[0].1.ended, None);
}

#[test]
fn a_thousand_starts_make_one_head() {
    let (eu, us) = (Node::new("eu", 1), Node::new("us", 2));
    let mut now = 0;
    for epoch in 0..1_000 {
        eu.restart(100 + epoch);
        eu.write(1);
        us.write(1);
    }
    let mut links = [Link::new(&eu, &us, now)];
    run(&mut links, &mut now, 5_000);
    assert_equal(&[&eu, &us]);
    assert_eq!(us.inner.lock().published.short.len(), 2);
    for end in [&links[0].0, &links[0].1] {
        assert_eq!(end.session.standing(now).agreement, Agreement::Equal);
    }
}

#[test]
fn a_wiped_node_gets_its_own_past_back_from_its_peer() {
    let (eu, us, mut links, mut now) = pair();
    for _ in 0..10 {
        eu.write(1);
        us.write(1);
    }
    run(&mut links, &mut now, 500);
    let fresh = Node::new("eu", 9);
    let mut links = [Link::new(&fresh, &us, now)];
    fresh.write(1);
    run(&mut links, &mut now, 3_000);
    assert_equal(&[&fresh, &us]);
    assert_eq!(fresh.frontier().len(), 3);
}

#[test]
fn clones_of_a_folder_exchange_their_events() {
    let (one, us, mut links, mut now) = pair();
    one.write(3);
    run(&mut links, &mut now, 100);
    let two = Node::new("eu", 7);
    two.merge(&one);
    one.restart(8);
    one.write(1);
    two.write(1);
    let mut links = [Link::new(&one, &us, now), Link::new(&two, &us, now)];
    run(&mut links, &mut now, 3_000);
    assert_equal(&[&one, &us, &two]);
}

#[test]
fn silence_ends_a_session_and_heartbeats_keep_it() {
    let (eu, us, mut links, mut now) = pair();
    run(&mut links, &mut now, 20_000);
    assert_eq!(links[0].0.ended, None);
    let told = links[0].0.acknowledged;
    assert!((19..=23).contains(&told), "{told} signs of life in 20 s");
    let mut alone = End::new(&eu, settings(), now);
    let begun = now;
    while alone.ended.is_none() {
        now = alone.session.deadline_ms();
        alone.feed(crate::replication::session::Input::Tick, now);
    }
    assert_eq!(now - begun, 4_000);
    assert!(matches!(alone.ended, Some((CloseReason::Silence, _))));
    drop(us);
}

#[test]
fn who_waits_is_told_soon_and_who_waits_for_nothing_now_and_then() {
    let (eu, us, mut links, mut now) = pair();
    run(&mut links, &mut now, 2_000);
    let before = [links[0].0.acknowledged, links[0].1.acknowledged];
    for _ in 0..1_000 {
        eu.write(1);
        run(&mut links, &mut now, 1);
    }
    let told = [&links[0].0, &links[0].1].map(|end| end.acknowledged);
    assert!((18..=21).contains(&(told[0] - before[0])), "{told:?}");
    assert!((180..=201).contains(&(told[1] - before[1])), "{told:?}");
    run(&mut links, &mut now, 100);
    assert_equal(&[&eu, &us]);
}

#[test]
fn a_fresh_replica_ends_the_sessions_of_the_old_one() {
    let (eu, _us, mut links, mut now) = pair();
    run(&mut links, &mut now, 100);
    eu.restart(5);
    run(&mut links, &mut now, 2_000);
    assert!(matches!(links[0].0.ended, Some((CloseReason::Renewed, _))));
    assert!(matches!(links[0].1.ended, Some((CloseReason::Renewed, _))));
}
