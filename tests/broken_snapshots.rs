//! Snapshots that break off: who may go on, what is sent again, and what a receiver refuses to believe.
//!
//! A takes a snapshot from B; C is another that may go on with it.

mod support;

use likewise::crdt::fingerprint::PostHash;
use likewise::engine::merge::merge_stage;
use likewise::engine::snapshot::{CourseError, SnapshotError};
use likewise::ids::{Epoch, Region, Replica};
use likewise::limits::SNAPSHOT_ORPHANS_MAX;
use likewise::log::Position;
use likewise::replication::staged::StagedSnapshot;
use likewise::replication::staging::Staging;
use likewise::wire::frames::write_replica;
use likewise::wire::replication::snapshot_chunk::Part as ChunkOf;
use likewise::wire::replication::snapshot_response::Body;
use likewise::wire::replication::{SnapshotBegin, SnapshotResponse};
use support::transfer::{Offer, Transfer};
use support::{
    Cutting, Machine, Node, assert_entries, assert_equal, like, post, unlike, unlike_dots,
};

const POSTS: usize = 12;

fn name(number: usize) -> String {
    format!("p{number:02}")
}

fn names() -> Vec<String> {
    (0..POSTS).map(name).collect()
}

/// B and C hold the same; A has written something of its own.
async fn three() -> ([Machine; 3], [Node; 3]) {
    let machines = [
        Machine::new("ap", 1),
        Machine::new("eu", 2),
        Machine::new("us", 3),
    ];
    let [a, b, c] = [
        machines[0].start().await,
        machines[1].start().await,
        machines[2].start().await,
    ];
    for number in 0..POSTS {
        b.like(&name(number), "ann").await;
        c.like(&name(number), "bob").await;
    }
    let dot = c.like("p05", "zed").await;
    b.write(unlike_dots("p05", "zed", vec![dot])).await;
    a.like("p03", "own").await;
    a.like("mine", "own").await;
    assert!(b.pull(&c).await && c.pull(&b).await);
    (machines, [a, b, c])
}

/// Likes, unlikes and likes again of what is in the snapshot.
async fn write_on(node: &Node, turn: usize) {
    let post = name(turn * 5 % POSTS);
    match turn % 3 {
        0 => drop(node.write(unlike(&post, "ann")).await),
        1 => drop(node.like(&post, "ann").await),
        _ => drop(node.like(&post, &format!("u{turn}")).await),
    }
}

async fn assert_converged(a: &Node, b: &Node, c: &Node) {
    for _ in 0..2 {
        assert!(a.pull(b).await && a.pull(c).await);
        assert!(b.pull(a).await && b.pull(c).await);
        assert!(c.pull(a).await && c.pull(b).await);
    }
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["mine"]).collect();
    assert_equal(&[a, b, c], &names);
    names.iter().for_each(|name| assert_entries(a, name));
}

/// Broken after every part in turn, gone on with by another sender and after a restart of the receiver, with
/// writes between.
#[tokio::test]
async fn a_snapshot_that_breaks_after_any_part_goes_on_with_another_sender() {
    let mut broken_after = 1;
    loop {
        let (machines, [a, b, c]) = three().await;
        let mut transfer = Transfer::new(&a, Offer::Nothing);
        let mut snapshot = b.serve(&transfer.request(&a)).expect("settled");
        for turn in 0..broken_after {
            let Some(part) = b.next_part(&mut snapshot).await else {
                assert!(broken_after > 2 * POSTS, "it is in many parts");
                return;
            };
            transfer.take(&a, part).expect("an honest sender");
            write_on(&b, turn).await;
        }
        drop(snapshot);
        assert!(c.pull(&b).await);
        write_on(&c, broken_after).await;
        a.kill().await;
        let mut a = machines[0].start().await;
        transfer.recover(&a);
        if transfer.resume().is_none() {
            transfer = Transfer::new(&a, Offer::Nothing);
        }
        transfer.run(&c, &a, usize::MAX).await;
        a.merge(&transfer.parts).await.expect("merged");
        assert_converged(&a, &b, &c).await;
        broken_after += 1;
    }
}

/// Each part is sent once, however often it breaks.
#[tokio::test]
async fn what_is_here_is_not_sent_again() {
    let (_machines, [mut a, b, c]) = three().await;
    let mut transfer = Transfer::new(&a, Offer::Nothing);
    let (mut begun, mut turn) = (0, 0);
    while !transfer.is_whole() {
        let sender = [&b, &c][turn % 2];
        // A beginning, and one part more; the first time two, for before a post nothing can go on.
        let parts = if turn == 0 { 3 } else { 2 };
        begun += 1;
        transfer.run(sender, &a, parts).await;
        assert!(b.pull(&c).await && c.pull(&b).await);
        write_on(&b, turn).await;
        turn += 1;
        assert!(c.pull(&b).await);
    }
    assert!(begun > 2 * POSTS);
    let mut seen = Vec::new();
    for part in &transfer.parts {
        match &part.body {
            Some(Body::Chunks(group)) => seen.extend(group.chunks.iter().map(|chunk| {
                let from = match &chunk.part {
                    Some(ChunkOf::Likers(likers)) => Some(likers.from_hash),
                    _ => None,
                };
                format!("{} {from:?}", chunk.post)
            })),
            Some(Body::TailBlock(block)) => seen.push(format!("{block:?}")),
            _ => {}
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "something came twice");
    a.merge(&transfer.parts).await.expect("merged");
    assert_converged(&a, &b, &c).await;
}

/// Who lacks an event that a staged chunk may show would end before it: the like would have no event.
#[tokio::test]
async fn a_sender_behind_what_was_shown_does_not_go_on() {
    let (_machines, [mut a, b, c]) = three().await;
    let mut transfer = Transfer::new(&a, Offer::Nothing);
    let mut snapshot = b.serve(&transfer.request(&a)).expect("settled");
    let begin = b.next_part(&mut snapshot).await.expect("begins");
    transfer.take(&a, begin).expect("an honest sender");
    // Beyond F, and in the chunks.
    b.like("p00", "late").await;
    for _ in 0..6 {
        let part = b.next_part(&mut snapshot).await.expect("goes on");
        transfer.take(&a, part).expect("an honest sender");
    }
    let refused = c.serve(&transfer.request(&a)).err();
    assert!(
        matches!(refused, Some(SnapshotError::NotCovered)),
        "{refused:?}"
    );
    assert!(c.pull(&b).await);
    transfer.run(&c, &a, usize::MAX).await;
    a.merge(&transfer.parts).await.expect("merged");
    assert!(a.likes("p00", "late"));
    assert_converged(&a, &b, &c).await;
}

#[tokio::test]
async fn a_sender_whose_log_does_not_reach_back_does_not_go_on() {
    let (mut machines, [a, b, c]) = three().await;
    let mut transfer = Transfer::new(&a, Offer::Nothing);
    transfer.run(&b, &a, 8).await;
    c.kill().await;
    machines[2].cutting = Cutting::Always;
    let mut c = machines[2].start().await;
    for number in 0..1_500 {
        c.like("p00", &format!("{}-{number}", "x".repeat(100)))
            .await;
    }
    let report = c.checkpointer.checkpoint().await.expect("stored");
    assert!(report.segments_removed > 0);
    let refused = c.serve(&transfer.request(&a)).err();
    assert!(matches!(refused, Some(SnapshotError::Cut)), "{refused:?}");
}

/// The orphan removals of F's instant are the first sender's alone, and may not all be here.
#[tokio::test]
async fn before_its_first_post_a_snapshot_cannot_go_on() {
    let (_machines, [a, b, _c]) = three().await;
    let mut transfer = Transfer::new(&a, Offer::Nothing);
    assert_eq!(transfer.run(&b, &a, 1).await, 1);
    assert!(transfer.resume().is_none());
    let mut more = Transfer::new(&a, Offer::Nothing);
    more.run(&b, &a, 2).await;
    assert!(more.resume().is_some());
}

/// Ranges in which both hold the same are left out, whatever either applies between the question, the
/// answer and the merge.
#[tokio::test]
async fn equal_ranges_are_left_out_whatever_is_applied_meanwhile() {
    for variant in 0..8 {
        let (_machines, [mut a, b, c]) = three().await;
        assert!(a.pull(&b).await && b.pull(&a).await && c.pull(&a).await);
        // Only p00 is not the same any more.
        b.like("p00", "new").await;
        let mut transfer = Transfer::new(&a, Offer::Sums);
        let request = transfer.request(&a);
        // Foreign events in between, of which F covers some: a like and its unlike, an unlike, a like.
        c.like("p01", "passing").await;
        c.write(unlike("p01", "passing")).await;
        c.write(unlike("p02", "ann")).await;
        c.like("p04", "passing").await;
        a.write(unlike("p06", "bob")).await;
        if variant & 1 != 0 {
            assert!(b.pull(&c).await && b.pull(&a).await);
        }
        if variant & 2 != 0 {
            assert!(a.pull(&c).await);
        }
        let mut snapshot = b.serve(&request).expect("settled");
        while let Some(part) = b.next_part(&mut snapshot).await {
            transfer.take(&a, part).expect("an honest sender");
        }
        if variant & 4 != 0 {
            assert!(a.pull(&c).await);
            a.like("p07", "own").await;
        }
        let is_equal = |post_id: &str| {
            let range = PostHash::of(&post(post_id)).range();
            transfer.equal().contains(range)
        };
        assert!(!is_equal("p00") && is_equal("p08") && is_equal("mine"));
        assert_eq!(is_equal("p04"), variant & 1 == 0);
        a.merge(&transfer.parts).await.expect("merged");
        assert!(a.likes("p08", "ann") && a.likes("mine", "own"));
        assert_converged(&a, &b, &c).await;
    }
}

#[tokio::test]
async fn orphan_removals_come_in_parts_of_bounded_size() {
    let (_machines, [a, b, c]) = three().await;
    let users: Vec<String> = (0..SNAPSHOT_ORPHANS_MAX + 50)
        .map(|n| format!("u{n}"))
        .collect();
    for some in users.chunks(100) {
        let likes = some.iter().map(|user| like("many", user)).collect();
        a.try_write(likes, None).await.expect("taken");
    }
    assert!(c.pull(&a).await);
    let from = c.reader.synced();
    for some in users.chunks(100) {
        let unlikes = some.iter().map(|user| unlike("many", user)).collect();
        c.try_write(unlikes, None).await.expect("taken");
    }
    for block in c.blocks(from).await {
        b.apply(&block).await.expect("an honest block");
    }
    assert_eq!(b.engine.orphan_removals(), users.len());
    let fresh = Machine::new("za", 9);
    let mut z = fresh.start().await;
    let mut transfer = Transfer::new(&z, Offer::Nothing);
    transfer.run(&b, &z, usize::MAX).await;
    let more = |part: &&SnapshotResponse| matches!(part.body, Some(Body::OrphanRemovals(_)));
    assert_eq!(transfer.parts.iter().filter(more).count(), 1);
    z.merge(&transfer.parts).await.expect("merged");
    assert_eq!(z.fingerprint(), b.fingerprint());
    assert!(z.pull(&a).await);
    assert_eq!(z.count("many"), 0);
}

/// What is staged outlives kills and power cuts; a torn tail is cut off, and the rest is asked for again.
#[tokio::test]
async fn a_stage_goes_on_after_kills_and_power_cuts() {
    for cut in 0..12 {
        let (machines, [a, b, c]) = three().await;
        let files = machines[0].disk.files();
        let request = Transfer::new(&a, Offer::Nothing).request(&a);
        let mut staging = Staging::begin(a.engine.clone(), files, &request)
            .await
            .expect("a disk");
        let mut snapshot = b.serve(&request).expect("settled");
        for turn in 0..2 + 2 * cut {
            if let Some(part) = b.next_part(&mut snapshot).await {
                staging.take(part).await.expect("an honest sender");
            }
            write_on(&b, turn).await;
        }
        let before = staging.course.resume();
        staging.suspend().await.expect("a disk");
        drop((staging, snapshot));
        let by_power = cut % 3 == 0;
        a.stop().await;
        match by_power {
            true => machines[0].reboot(),
            false => machines[0].disk.kill(),
        }
        let mut a = machines[0].start().await;
        let files = machines[0].disk.files();
        let found = Staging::recover(a.engine.clone(), files.clone())
            .await
            .expect("a disk");
        if !by_power {
            let found = found.as_ref().and_then(|found| found.course.resume());
            let place = |resume: Option<likewise::engine::snapshot::Resume>| {
                resume.map(|resume| (resume.place, resume.equal))
            };
            assert_eq!(place(found), place(before));
        }
        assert!(c.pull(&b).await);
        let mut request = request;
        let mut staging = match found {
            Some(staging) => {
                let resume = staging.course.resume().expect("else it is not found");
                let replicas = a.engine.replicas().all();
                request.resume = Some(likewise::replication::parts::write_resume(
                    &resume, &replicas,
                ));
                staging
            }
            None => Staging::begin(a.engine.clone(), files.clone(), &request)
                .await
                .expect("a disk"),
        };
        let mut snapshot = c.serve(&request).expect("it can go on");
        let mut is_whole = false;
        while let Some(part) = c.next_part(&mut snapshot).await {
            is_whole = staging.take(part).await.expect("an honest sender");
        }
        assert!(is_whole);
        staging.finish().await.expect("a disk");
        let engine = a.engine.clone();
        let staged = StagedSnapshot {
            engine: engine.clone(),
            files,
        };
        merge_stage(&engine, &mut a.checkpointer, &staged)
            .await
            .expect("merged");
        assert_converged(&a, &b, &c).await;
    }
}

/// A snapshot from B, with one part changed, must be refused at that part or later, and never be whole.
async fn check_refused(what: &str, change: impl Fn(&Node, &mut Vec<SnapshotResponse>)) {
    let (_machines, [a, b, _c]) = three().await;
    b.like("p11", "beyond").await;
    let mut transfer = Transfer::new(&a, Offer::Nothing);
    let mut snapshot = b.serve(&transfer.request(&a)).expect("settled");
    let first = b.next_part(&mut snapshot).await.expect("begins");
    b.like("p00", "late").await;
    let mut parts = b.read_on(&mut snapshot, vec![first]).await;
    change(&a, &mut parts);
    let mut refused: Option<CourseError> = None;
    for part in parts {
        let outcome = transfer.take(&a, part);
        refused = refused.or(outcome.err());
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.unwrap_or_else(|| panic!("{what}: it was believed"));
    assert!(!transfer.is_whole(), "{what}: {refused}");
    let is_alarm = matches!(refused, CourseError::Alarm { .. });
    assert_eq!(is_alarm, what.contains("own replica"), "{what}: {refused}");
}

fn chunk_at(parts: &[SnapshotResponse], nth: usize) -> usize {
    let chunks = parts.iter().enumerate();
    let mut chunks = chunks.filter(|(_, part)| matches!(part.body, Some(Body::Chunks(_))));
    chunks.nth(nth).expect("it has so many").0
}

fn begin_of(parts: &mut [SnapshotResponse]) -> &mut SnapshotBegin {
    match &mut parts[0].body {
        Some(Body::Begin(begin)) => begin,
        other => panic!("{other:?}"),
    }
}

type Change = Box<dyn Fn(&Node, &mut Vec<SnapshotResponse>)>;

fn changes() -> Vec<(&'static str, Change)> {
    fn with(change: impl Fn(&Node, &mut Vec<SnapshotResponse>) + 'static) -> Change {
        Box::new(change)
    }
    vec![
        ("no beginning", with(|_, parts| drop(parts.remove(0)))),
        (
            "a second beginning of another F",
            with(|_, parts| {
                let mut begin = parts[0].clone();
                begin_of(std::slice::from_mut(&mut begin))
                    .frontier
                    .as_mut()
                    .expect("set")
                    .seqs[0] += 1;
                parts.insert(chunk_at(parts, 3), begin);
            }),
        ),
        (
            "a post's likers are missing",
            with(|_, parts| drop(parts.remove(chunk_at(parts, 2)))),
        ),
        (
            "figures are missing",
            with(|_, parts| drop(parts.remove(chunk_at(parts, 3)))),
        ),
        (
            "a post comes twice",
            with(|_, parts| {
                let at = chunk_at(parts, 4);
                let again = [parts[at - 2].clone(), parts[at - 1].clone()];
                parts.splice(at..at, again);
            }),
        ),
        (
            "a range has a hole",
            with(|_, parts| {
                let at = chunk_at(parts, 0);
                if let Some(Body::Chunks(group)) = &mut parts[at].body
                    && let Some(ChunkOf::Likers(likers)) = &mut group.chunks[0].part
                {
                    likers.from_hash = 1;
                }
            }),
        ),
        (
            "a liker outside of its chunk",
            with(|_, parts| {
                let at = chunk_at(parts, 0);
                if let Some(Body::Chunks(group)) = &mut parts[at].body
                    && let Some(ChunkOf::Likers(likers)) = &mut group.chunks[0].part
                {
                    likers.to_hash = 0;
                }
            }),
        ),
        (
            "a dot beyond what it says to show",
            with(|_, parts| {
                let at = chunk_at(parts, 0);
                if let Some(Body::Chunks(group)) = &mut parts[at].body
                    && let Some(ChunkOf::Likers(likers)) = &mut group.chunks[0].part
                {
                    likers.likers[0].dots[0].seq += 1_000;
                }
            }),
        ),
        (
            "increments beyond what it says to show",
            with(|_, parts| {
                let at = chunk_at(parts, 1);
                if let Some(Body::Chunks(group)) = &mut parts[at].body
                    && let Some(ChunkOf::Figures(figures)) = &mut group.chunks[0].part
                {
                    figures.likes[0].increments += 1_000;
                }
            }),
        ),
        (
            "a range left out that was not offered",
            with(|_, parts| begin_of(parts).equal.push(7)),
        ),
        (
            "an orphan removal that F covers",
            with(|_, parts| {
                let begin = begin_of(parts);
                let frontier = begin.frontier.clone().expect("set");
                begin
                    .orphan_removals
                    .push(likewise::wire::replication::OrphanRemoval {
                        replica: frontier.replicas.first().cloned(),
                        seq: 1,
                        post: "p".to_owned(),
                        user: "u".to_owned(),
                    });
            }),
        ),
        (
            "events of the own replica in F",
            with(|a, parts| {
                let frontier = begin_of(parts).frontier.as_mut().expect("set");
                frontier.replicas.push(write_replica(&a.engine.own()));
                frontier.seqs.push(1_000);
            }),
        ),
        (
            "events of the own replica in what is shown",
            with(|a, parts| {
                let at = chunk_at(parts, 0);
                if let Some(Body::Chunks(group)) = &mut parts[at].body {
                    let shows = group.shows.as_mut().expect("set");
                    shows.replicas.push(write_replica(&a.engine.own()));
                    shows.seqs.push(1_000);
                    group.lineage.push(likewise::wire::replication::Lineage {
                        replica: Some(write_replica(&a.engine.own())),
                        predecessors: Some(Default::default()),
                    });
                }
            }),
        ),
        (
            "a head that nobody described",
            with(|_, parts| {
                let unknown = Replica {
                    region: Region::new("xx").expect("valid"),
                    epoch: Epoch(99),
                };
                let at = chunk_at(parts, 0);
                if let Some(Body::Chunks(group)) = &mut parts[at].body {
                    let shows = group.shows.as_mut().expect("set");
                    shows.replicas.push(write_replica(&unknown));
                    shows.seqs.push(1);
                }
            }),
        ),
        (
            "a block of the tail is missing",
            with(|_, parts| {
                let is_tail =
                    |part: &SnapshotResponse| matches!(part.body, Some(Body::TailBlock(_)));
                let at = parts.iter().position(is_tail).expect("has a tail");
                parts.remove(at);
                if let Some(Body::End(end)) = parts.last_mut().and_then(|part| part.body.as_mut()) {
                    end.blocks -= 1;
                }
            }),
        ),
        (
            "a block comes twice",
            with(|_, parts| {
                let is_tail =
                    |part: &SnapshotResponse| matches!(part.body, Some(Body::TailBlock(_)));
                let at = parts.iter().position(is_tail).expect("has a tail");
                parts.insert(at, parts[at].clone());
            }),
        ),
        (
            "an end before what it shows",
            with(|_, parts| {
                let frontier = begin_of(parts).frontier.clone();
                if let Some(Body::End(end)) = parts.last_mut().and_then(|part| part.body.as_mut()) {
                    end.frontier = frontier;
                }
            }),
        ),
        (
            "an end with other numbers",
            with(|_, parts| {
                if let Some(Body::End(end)) = parts.last_mut().and_then(|part| part.body.as_mut()) {
                    end.chunks += 1;
                }
            }),
        ),
    ]
}

#[tokio::test]
async fn a_receiver_believes_nothing_that_is_out_of_order() {
    for (what, change) in changes() {
        check_refused(what, change).await;
    }
}

#[tokio::test]
async fn a_log_that_holds_more_than_allowed_ends_a_snapshot() {
    let (_machines, [_a, b, _c]) = three().await;
    assert!(b.reader.synced() > Position::START);
    let mut snapshot = b.snapshot_within(1_000).expect("settled");
    assert!(snapshot.next().await.is_ok());
    for number in 0..40 {
        b.like("p00", &format!("u{number}")).await;
    }
    let ended = snapshot.next().await.err();
    assert!(
        matches!(ended, Some(SnapshotError::TooMuchLog { .. })),
        "{ended:?}"
    );
}
