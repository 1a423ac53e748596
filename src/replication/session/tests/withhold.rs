//! Events of kinds that a node does not know: passed over, told, and asked for again after its upgrade.

use std::sync::Arc;

use crate::replication::session::tests::world::{Link, Node, run};
use crate::versions::Dialect;

/// The kind of the events that an older node here does not read.
const ADD: u8 = 3;

/// A node that reads only the kinds before that.
fn older(region: &str, epoch: u128) -> Arc<Node> {
    let node = Node::new(region, epoch);
    node.inner.lock().kind_max = ADD - 1;
    node
}

#[test]
fn only_the_replica_with_unknown_kinds_is_passed_over() {
    let (ap, eu, us) = (Node::new("ap", 1), Node::new("eu", 2), older("us", 3));
    let mut now = 0;
    let mut links = [Link::new(&ap, &eu, now), Link::new(&eu, &us, now)];
    eu.write(2);
    run(&mut links, &mut now, 100);
    eu.write_adds(1);
    for _ in 0..200 {
        eu.write(1);
        ap.write(1);
        us.write(1);
        run(&mut links, &mut now, 20);
    }
    run(&mut links, &mut now, 3_000);
    assert_eq!(us.frontier().len(), 3);
    let reached: Vec<u64> = us.frontier().iter().map(|(_, seq)| *seq).collect();
    assert_eq!(reached, [200, 2, 200], "ap, eu up to the unknown, us");
    assert_eq!(eu.frontier(), ap.frontier(), "the others go on");
    assert_eq!(links[1].1.ended, None);
    assert_eq!(
        links[1].1.resumes, 0,
        "nothing is asked for again and again"
    );
    let sent = links[1].0.events_sent;
    assert!(sent < 220, "{sent}: hardly any that is passed over");
    let told = links[1].1.session.standing(now).problem;
    assert!(
        told.contains("kind 3") && told.contains("from eu"),
        "{told}"
    );
    let told = links[1].0.session.standing(now).problem;
    assert!(told.contains("upgrade the peer"), "{told}");

    us.inner.lock().kind_max = Dialect::default().kind_max;
    links[1] = Link::new(&eu, &us, now);
    run(&mut links, &mut now, 3_000);
    assert_eq!(us.frontier(), eu.frontier());
    assert_eq!(links[1].1.session.standing(now).problem, "");
}

#[test]
fn a_replica_that_follows_on_a_withheld_one_is_withheld_too() {
    let (eu, us) = (Node::new("eu", 2), older("us", 3));
    let mut now = 0;
    eu.write(1);
    let mut links = [Link::new(&eu, &us, now)];
    run(&mut links, &mut now, 100);
    eu.write_adds(1);
    run(&mut links, &mut now, 100);
    // Its process ends, and the next one's first event names it.
    eu.restart(4);
    links = [Link::new(&eu, &us, now)];
    for _ in 0..50 {
        eu.write(1);
        run(&mut links, &mut now, 20);
    }
    run(&mut links, &mut now, 5_000);
    assert_eq!(us.frontier().len(), 1);
    assert_eq!(links[0].1.resumes, 0);
    assert_eq!(links[0].1.ended, None);
    us.inner.lock().kind_max = Dialect::default().kind_max;
    links = [Link::new(&eu, &us, now)];
    run(&mut links, &mut now, 3_000);
    assert_eq!(us.frontier(), eu.frontier());
}

#[test]
fn what_is_withheld_is_relayed_to_those_who_know_it() {
    let (ap, eu, us) = (Node::new("ap", 1), older("eu", 2), Node::new("us", 3));
    let mut now = 0;
    ap.write_adds(1);
    // The older one stands between the two, then the upgraded one passes on what came before.
    let mut links = [Link::new(&ap, &eu, now), Link::new(&eu, &us, now)];
    run(&mut links, &mut now, 3_000);
    assert_eq!(us.frontier().len(), 0);
    eu.inner.lock().kind_max = Dialect::default().kind_max;
    links[0] = Link::new(&ap, &eu, now);
    run(&mut links, &mut now, 3_000);
    assert_eq!(us.frontier(), ap.frontier());
}
