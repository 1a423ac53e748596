//! Retired regions: what a retirement changes, where it goes, and what it must survive.

mod support;

use std::collections::BTreeSet;

use likewise::ids::Replica;
use support::{Machine, Node, assert_equal};

/// Retires the running replicas of the nodes.
async fn retire(at: &Node, gone: &[&Node]) -> usize {
    let replicas: BTreeSet<Replica> = gone.iter().map(|node| node.engine.own()).collect();
    let retired = at.engine.retire(&replicas).await.expect("taken");
    retired.replicas
}

/// The replicas that are durably retired at a node.
fn retired(node: &Node) -> BTreeSet<Replica> {
    let newest = node.engine.board().newest();
    let named = newest.retired.iter();
    named.map(|one| newest.replicas.id(*one).clone()).collect()
}

#[tokio::test]
async fn a_retirement_is_an_event_and_changes_no_figure() {
    let machines = [("ap", 1), ("eu", 2), ("us", 3)].map(|(name, seed)| Machine::new(name, seed));
    let a = machines[0].start().await;
    let b = machines[1].start().await;
    let c = machines[2].start().await;
    c.like("p", "ann").await;
    assert!(a.pull(&c).await && b.pull(&c).await);
    let before = a.fingerprint();
    assert_eq!(retire(&a, &[&c]).await, 1);
    assert_eq!(retire(&a, &[&c]).await, 0, "it is retired already");
    assert!(b.pull(&a).await);
    let gone = BTreeSet::from([c.engine.own()]);
    assert_eq!((retired(&a), retired(&b)), (gone.clone(), gone));
    assert_eq!((a.count("p"), a.fingerprint()), (1, before));
    c.like("p", "bob").await;
    assert!(
        a.pull(&c).await && b.pull(&c).await,
        "its events still merge"
    );
    assert_eq!(a.count("p"), 2);
    assert_equal(&[&a, &b], &["p"]);
}

#[tokio::test]
async fn a_retirement_survives_a_kill_and_a_cut_log() {
    let machine = Machine::new("ap", 4);
    let gone = Machine::new("us", 5);
    let c = gone.start().await;
    c.like("p", "ann").await;
    for checkpoints in 0..3 {
        let mut a = machine.start().await;
        a.pull(&c).await;
        let fresh = usize::from(checkpoints == 0);
        assert_eq!(
            retire(&a, &[&c]).await,
            fresh,
            "after {checkpoints} checkpoints"
        );
        if checkpoints > 0 {
            a.checkpointer.checkpoint().await.expect("stored");
        }
        a.kill().await;
    }
}

#[tokio::test]
async fn a_retirement_travels_in_a_snapshot() {
    let machines = [("ap", 6), ("eu", 7), ("us", 8)].map(|(name, seed)| Machine::new(name, seed));
    let a = machines[0].start().await;
    let mut b = machines[1].start().await;
    let c = machines[2].start().await;
    c.like("p", "ann").await;
    assert!(a.pull(&c).await);
    retire(&a, &[&c]).await;
    let parts = a.whole_snapshot().await;
    b.merge(&parts).await.expect("merged");
    assert_eq!(retired(&b), BTreeSet::from([c.engine.own()]));
    b.kill().await;
    let b = machines[1].start().await;
    assert_eq!(retired(&b), BTreeSet::from([c.engine.own()]));
    assert_equal(&[&a, &b], &["p"]);
}

/// Else it would stay retired for as long as it runs.
#[tokio::test]
async fn a_node_that_hears_of_its_own_retirement_goes_on_under_a_fresh_epoch() {
    let machines = [("ap", 9), ("us", 10)].map(|(name, seed)| Machine::new(name, seed));
    let a = machines[0].start().await;
    let mut c = machines[1].start().await;
    c.like("p", "ann").await;
    assert!(a.pull(&c).await);
    let retired_one = c.engine.own();
    retire(&a, &[&c]).await;
    c.like("p", "bob").await;
    assert!(c.pull(&a).await);
    assert_ne!(c.engine.own(), retired_one);
    c.like("p", "cid").await;
    assert!(a.pull(&c).await);
    assert_equal(&[&a, &c], &["p"]);
    assert_eq!(a.count("p"), 3);

    let again = c.engine.own();
    retire(&a, &[&c]).await;
    let parts = a.whole_snapshot().await;
    c.merge(&parts).await.expect("merged");
    assert_ne!(c.engine.own(), again, "also where a snapshot brought it");
}

/// Else a checkpoint of the instant between the two would cover the event and lack what it did.
#[tokio::test]
async fn who_was_met_last_is_in_checkpoints() {
    let machine = Machine::new("ap", 11);
    let mut a = machine.start().await;
    let c = Machine::new("us", 12).start().await;
    let (old, new) = {
        c.like("p", "ann").await;
        a.pull(&c).await;
        let old = c.engine.own();
        (old, c.engine.rotate_epoch())
    };
    let index = |node: &Node, replica: &Replica| {
        let replicas = node.engine.replicas();
        replicas.intern(replica).expect("there is room")
    };
    a.engine.meet(index(&a, &new));
    a.engine.hear_met(index(&a, &old));
    let met = |node: &Node| -> Vec<Replica> {
        let regions = node.engine.regions();
        let all = node.engine.replicas().all();
        regions
            .met()
            .values()
            .map(|met| all.id(*met).clone())
            .collect()
    };
    let newest = vec![new.clone()];
    assert_eq!(met(&a), newest, "what was met here counts for more");
    a.checkpointer.checkpoint().await.expect("stored");
    a.kill().await;
    let a = machine.start().await;
    assert_eq!(met(&a), newest);
    a.engine
        .retire(&BTreeSet::from([new]))
        .await
        .expect("taken");
    a.engine.hear_met(index(&a, &old));
    assert_eq!(met(&a), [old], "unless it has been retired");
}
