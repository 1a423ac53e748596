//! Acknowledgements of third regions, passed on between machines.

use std::sync::Arc;

use super::world::{Link, Node, replica, run};
use crate::replication::session::{Hearsay, Input, Said};

/// What the node has durable, as a third node would hear it.
fn said(node: &Arc<Node>, at_ms: u64) -> Said {
    let published = node.durable().published;
    Said {
        vector: Arc::new(published.vector.clone()),
        short: Some(Arc::new(published.short.clone())),
        at_ms,
    }
}

/// The same by another node's numbers of the replicas.
fn translated(said: &Said, from: &Arc<Node>, to: &Arc<Node>) -> Said {
    let names = from.durable().published.replicas.clone();
    let number = |(replica, seq): (_, u64)| (to.number(names.id(replica)), seq);
    let short = said.short.iter().flat_map(|short| short.iter().copied());
    Said {
        vector: Arc::new(said.vector.iter().map(number).collect()),
        short: Some(Arc::new(short.map(number).collect())),
        at_ms: said.at_ms,
    }
}

fn heard(link: &Link) -> Vec<(String, Vec<u64>, u64, u32)> {
    let told = link.0.heard.iter();
    told.map(
        |Hearsay {
             replica,
             said,
             hops,
         }| {
            let numbers = said.vector.iter().map(|(_, seq)| seq).collect();
            (replica.region.to_string(), numbers, said.at_ms, *hops)
        },
    )
    .collect()
}

/// `ap` has a session with `eu`, which has heard of `us`.
fn three() -> ([Arc<Node>; 3], [Link; 1], u64) {
    let nodes = [Node::new("ap", 1), Node::new("eu", 2), Node::new("us", 3)];
    let link = Link::new(&nodes[0], &nodes[1], 0);
    (nodes, [link], 0)
}

fn pass_on(link: &mut Link, said: Said, now: u64) {
    let news = vec![Hearsay {
        replica: replica("us", 3),
        said,
        hops: 0,
    }];
    link.1.feed(Input::Heard(news), now);
}

#[test]
fn what_a_third_replica_has_is_told_once_with_the_next_acknowledgement() {
    let ([_, eu, us], mut links, mut now) = three();
    run(&mut links, &mut now, 50);
    us.write(3);
    eu.merge(&us);
    run(&mut links, &mut now, 50);
    let before = links[0].1.acknowledged;
    pass_on(&mut links[0], translated(&said(&us, 7_000), &us, &eu), now);
    run(&mut links, &mut now, 20);
    assert_eq!(heard(&links[0]), [("us".to_owned(), vec![3], 7_000, 0)]);
    assert_eq!(links[0].1.acknowledged, before + 1);
    run(&mut links, &mut now, 900);
    assert_eq!(links[0].1.acknowledged, before + 1, "rest costs nothing");
    assert_eq!(heard(&links[0]).len(), 1);
}

/// Its lineage is not known here, so nobody could read it.
#[test]
fn what_cannot_be_described_waits_until_it_can() {
    let ([_, eu, us], mut links, mut now) = three();
    run(&mut links, &mut now, 50);
    us.write(3);
    pass_on(&mut links[0], translated(&said(&us, 7_000), &us, &eu), now);
    let before = links[0].1.acknowledged;
    run(&mut links, &mut now, 500);
    assert!(heard(&links[0]).is_empty());
    assert!(
        links[0].1.acknowledged <= before + 1,
        "and is not tried again all the time"
    );
    eu.merge(&us);
    run(&mut links, &mut now, 50);
    assert_eq!(heard(&links[0]), [("us".to_owned(), vec![3], 7_000, 0)]);
}

#[test]
fn of_a_region_only_the_last_news_waits() {
    let ([_, eu, us], mut links, now) = three();
    us.write(3);
    eu.merge(&us);
    let first = translated(&said(&us, 7_000), &us, &eu);
    us.write(2);
    eu.merge(&us);
    let second = translated(&said(&us, 8_000), &us, &eu);
    let link = &mut links[0];
    pass_on(link, first, now);
    pass_on(link, second, now);
    let mut now = now;
    run(&mut links, &mut now, 100);
    assert_eq!(heard(&links[0]), [("us".to_owned(), vec![5], 8_000, 0)]);
}

/// A peer that claims them through a third replica is as wrong as one that claims them itself.
#[test]
fn claims_by_hearsay_raise_an_alarm_too() {
    let ([ap, eu, us], mut links, mut now) = three();
    run(&mut links, &mut now, 50);
    us.write(3);
    eu.merge(&us);
    let mut claim = translated(&said(&us, 7_000), &us, &eu);
    let short = vec![(eu.number(&replica("ap", 1)), 9)];
    // The lineage of a replica without events is not known to anybody.
    claim.short = Some(Arc::new(short));
    ap.write(1);
    run(&mut links, &mut now, 50);
    pass_on(&mut links[0], claim, now);
    run(&mut links, &mut now, 50);
    assert_eq!(links[0].0.alarms, 1);
}

#[test]
fn a_node_is_not_told_of_itself() {
    let ([ap, eu, _], mut links, mut now) = three();
    ap.write(2);
    run(&mut links, &mut now, 50);
    let said = translated(&said(&ap, 7_000), &ap, &eu);
    let news = vec![Hearsay {
        replica: replica("ap", 1),
        said,
        hops: 3,
    }];
    links[0].1.feed(Input::Heard(news), now);
    run(&mut links, &mut now, 50);
    assert!(heard(&links[0]).is_empty() && links[0].0.ended.is_none());
}

/// The peer's clock goes with its frontier, and with the newest that could be read.
#[test]
fn an_acknowledgement_has_its_clock() {
    let (_, mut links, mut now) = three();
    let clocks = |link: &mut Link| {
        let said = std::mem::take(&mut link.0.said);
        said.iter().map(|said| said.at_ms).collect::<Vec<_>>()
    };
    links[0].1.node.set_clock(5_000);
    run(&mut links, &mut now, 1_100);
    assert_eq!(clocks(&mut links[0]).last(), Some(&5_000));
}
