//! What counts of a region, and who is told of it.

use super::*;

fn replica(region: &str, epoch: u128) -> Replica {
    Replica {
        region: Region::new(region).expect("valid"),
        epoch: Epoch(epoch),
    }
}

fn vector(seq: u64) -> Arc<VersionVector> {
    Arc::new([(ReplicaIndex(0), seq)].into_iter().collect())
}

fn said(seq: u64, at_ms: u64) -> Said {
    Said {
        vector: vector(seq),
        short: Some(Arc::new(vec![(ReplicaIndex(0), seq)])),
        at_ms,
    }
}

fn hearsay(region: &str, epoch: u128, said: Said, hops: u32) -> Hearsay {
    Hearsay {
        replica: replica(region, epoch),
        said,
        hops,
    }
}

/// What a peer of the region is told, as replica, number and hops.
fn told(table: &AckTable, peer: &str, since: u64) -> Vec<(Replica, u64, u32)> {
    let (_, news) = table.news(&replica(peer, 0).region, since);
    let number = |said: &Said| said.vector.get(ReplicaIndex(0));
    let told = news.into_iter();
    told.map(|one| (one.replica, number(&one.said), one.hops))
        .collect()
}

/// The number up to which the region is known to have it.
fn known(table: &AckTable, region: &str) -> u64 {
    100 - table.events_behind(&replica(region, 0).region, &vector(100))
}

fn eu() -> Region {
    replica("eu", 0).region
}

#[test]
fn a_newer_replica_replaces_what_was_known_also_downwards() {
    let table = AckTable::default();
    table.begin(Owner(1), &replica("eu", 1), vector(9));
    table.end(&replica("eu", 1));
    assert!(table.covered_by_any(&vector(9)));
    table.begin(Owner(2), &replica("eu", 2), vector(3));
    assert!(!table.covered_by_any(&vector(9)));
    table.set(Owner(2), &replica("eu", 2), said(9, 1));
    assert!(table.covered_by_any(&vector(9)));
}

#[test]
fn all_means_every_live_clone_and_every_region() {
    let table = AckTable::default();
    let (eu, us) = (replica("eu", 1), replica("us", 1));
    table.begin(Owner(1), &eu, vector(9));
    assert!(table.covered_by_all([&eu.region], &vector(9)));
    assert!(!table.covered_by_all([&eu.region, &us.region], &vector(9)));
    table.begin(Owner(2), &replica("eu", 2), vector(3));
    assert!(!table.covered_by_all([&eu.region], &vector(9)));
    table.end(&replica("eu", 2));
    assert!(table.covered_by_all([&eu.region], &vector(9)));
}

#[test]
fn a_displaced_session_says_nothing_more() {
    let table = AckTable::default();
    let eu = replica("eu", 1);
    table.begin(Owner(2), &eu, vector(9));
    table.begin(Owner(1), &eu, vector(3));
    table.set(Owner(1), &eu, said(4, 1));
    assert!(table.covered_by_any(&vector(9)));
}

#[test]
fn events_behind_are_counted_from_the_last_word_of_a_region() {
    let table = AckTable::default();
    assert_eq!(known(&table, "eu"), 0);
    table.begin(Owner(1), &replica("eu", 1), vector(7));
    table.end(&replica("eu", 1));
    assert_eq!(known(&table, "eu"), 7);
}

#[test]
fn a_session_counts_for_more_than_hearsay_until_it_ends() {
    let table = AckTable::default();
    let via = replica("us", 1).region;
    table.begin(Owner(1), &replica("eu", 1), vector(3));
    table.set(Owner(1), &replica("eu", 1), said(3, 1_000));
    table.hear(&via, hearsay("eu", 1, said(5, 1_100), 0));
    table.hear(&via, hearsay("eu", 2, said(1, 1_200), 0));
    assert_eq!(known(&table, "eu"), 3);
    table.end(&replica("eu", 1));
    assert_eq!(known(&table, "eu"), 1, "of the replica that spoke last");
    table.begin(Owner(2), &replica("eu", 1), vector(6));
    assert_eq!(known(&table, "eu"), 6);
    table.end(&replica("eu", 1));
    assert_eq!(known(&table, "eu"), 6, "its session replaced all memory");
}

#[test]
fn what_was_heard_while_a_session_was_dying_counts_after_it() {
    let table = AckTable::default();
    let via = replica("us", 1).region;
    table.begin(Owner(1), &replica("eu", 1), vector(3));
    table.set(Owner(1), &replica("eu", 1), said(3, 1_000));
    table.hear(&via, hearsay("eu", 1, said(5, 1_100), 0));
    table.end(&replica("eu", 1));
    assert_eq!(known(&table, "eu"), 5);
    table.hear(&via, hearsay("eu", 1, said(4, 1_050), 0));
    assert_eq!(known(&table, "eu"), 5, "one replica's word only grows");
}

#[test]
fn of_a_region_without_a_session_the_newer_replica_counts_also_downwards() {
    let table = AckTable::default();
    let via = replica("us", 1).region;
    table.hear(&via, hearsay("eu", 1, said(9, 1_000), 0));
    table.hear(&via, hearsay("eu", 2, said(4, 2_000), 0));
    assert_eq!(known(&table, "eu"), 4);
    table.hear(&via, hearsay("eu", 1, said(9, 1_500), 0));
    assert_eq!(known(&table, "eu"), 4, "an old word came by a longer way");
    assert!(
        !table.covered_by_any(&vector(1)),
        "nobody said it themselves"
    );
}

#[test]
fn news_is_told_once_and_not_back_to_where_it_came_from() {
    let table = AckTable::default();
    let via = replica("us", 1).region;
    table.begin(Owner(1), &replica("eu", 1), vector(3));
    assert!(
        told(&table, "us", 0).is_empty(),
        "its short form is to come"
    );
    table.set(Owner(1), &replica("eu", 1), said(3, 1_000));
    assert_eq!(told(&table, "us", 0), [(replica("eu", 1), 3, 0)]);
    assert!(told(&table, "eu", 0).is_empty(), "it knows itself");
    let (now, _) = table.news(&via, 0);
    table.set(Owner(1), &replica("eu", 1), said(3, 9_000));
    assert!(
        told(&table, "us", now).is_empty(),
        "nothing but time has passed"
    );
    table.set(Owner(1), &replica("eu", 1), said(3, 11_000));
    assert_eq!(told(&table, "us", now).len(), 1, "much time has passed");
    let (now, _) = table.news(&via, now);
    table.hear(&via, hearsay("ap", 1, said(5, 1_000), 0));
    assert_eq!(told(&table, "eu", now), [(replica("ap", 1), 5, 1)]);
    assert!(told(&table, "us", now).is_empty(), "it came from there");
    table.hear(&via, hearsay("ap", 1, said(5, 1_000), 0));
    assert_eq!(table.news(&eu(), now).1.len(), 1);
    let (later, _) = table.news(&eu(), now);
    table.hear(&via, hearsay("ap", 1, said(5, 1_000), 3));
    assert!(told(&table, "eu", later).is_empty(), "it is known");
}

#[test]
fn what_has_gone_through_many_nodes_goes_no_further() {
    let table = AckTable::default();
    let via = replica("us", 1).region;
    table.hear(&via, hearsay("ap", 1, said(5, 1), HEARD_HOPS_MAX - 1));
    assert_eq!(
        told(&table, "eu", 0),
        [(replica("ap", 1), 5, HEARD_HOPS_MAX)]
    );
    table.hear(&via, hearsay("ap", 1, said(6, 2), HEARD_HOPS_MAX));
    assert!(told(&table, "eu", 0).is_empty());
    assert_eq!(known(&table, "ap"), 6, "here it counts");
}

#[test]
fn hearsay_of_too_many_regions_is_not_kept() {
    let table = AckTable::default();
    let via = replica("us", 1).region;
    for region in 0..=REGIONS_HEARD_MAX {
        table.hear(&via, hearsay(&format!("r{region}"), 1, said(5, 1), 0));
    }
    assert_eq!(table.all().len(), REGIONS_HEARD_MAX);
    table.begin(Owner(1), &replica("eu", 1), vector(3));
    assert_eq!(
        table.all().len(),
        REGIONS_HEARD_MAX + 1,
        "a session is not refused"
    );
}

#[test]
fn every_change_is_told_to_those_who_wait() {
    let table = AckTable::default();
    let mut changes = table.changes();
    let mut is_told = || {
        let is_told = changes.has_changed().expect("the table is there");
        changes.mark_unchanged();
        is_told
    };
    table.begin(Owner(1), &replica("eu", 1), vector(3));
    assert!(is_told());
    table.set(Owner(1), &replica("eu", 1), said(3, 1));
    assert!(is_told(), "its short form came");
    table.set(Owner(1), &replica("eu", 1), said(3, 2));
    assert!(!is_told(), "a heartbeat");
    table.set(Owner(1), &replica("eu", 1), said(4, 3));
    assert!(is_told());
}
