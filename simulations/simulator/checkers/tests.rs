//! Each checker takes a right history and refuses a wrong one.

use std::collections::BTreeMap;
use std::time::Duration;

use likewise::codec::text::NamedSeq;
use likewise::ids::{Epoch, Region, Replica};

use super::*;
use crate::simulator::history::{Action, History, Lost, Operation, Outcome};

fn replica() -> Replica {
    Replica {
        region: Region::new("eu").expect("valid"),
        epoch: Epoch(7),
    }
}

fn dot(seq: u64) -> NamedSeq {
    (replica(), seq)
}

fn operation(action: Action, outcome: Outcome) -> Operation {
    Operation {
        client: 0,
        machine: 0,
        at: Duration::from_secs(1),
        ended: Duration::from_secs(2),
        post: "p".to_owned(),
        user: "ann".to_owned(),
        action,
        retries: None,
        outcome,
        through: Vec::new(),
    }
}

fn liked(seq: u64, replaced: &[u64]) -> Operation {
    let outcome = Outcome::Liked {
        dots: vec![dot(seq)],
        replaced: replaced.iter().map(|seq| dot(*seq)).collect(),
    };
    operation(Action::Like, outcome)
}

fn unliked(removed: &[u64]) -> Operation {
    let removed = removed.iter().map(|seq| dot(*seq)).collect();
    operation(Action::Unlike, Outcome::Unliked { removed })
}

fn history(operations: impl IntoIterator<Item = Operation>) -> History {
    History {
        operations: operations.into_iter().collect(),
        ..History::default()
    }
}

fn likes_by(live: &[u64]) -> State {
    let mut state = State::default();
    if !live.is_empty() {
        let dots = live.iter().map(|seq| dot(*seq)).collect();
        state
            .likers
            .insert(("p".to_owned(), "ann".to_owned()), dots);
    }
    state
}

#[track_caller]
fn good(operations: impl IntoIterator<Item = Operation>, live: &[u64]) {
    let verdict = acknowledged(&history(operations), &likes_by(live));
    assert_eq!(verdict.problems, Vec::<String>::new());
}

#[track_caller]
fn bad(operations: impl IntoIterator<Item = Operation>, live: &[u64]) {
    assert!(!acknowledged(&history(operations), &likes_by(live)).is_good());
}

#[test]
fn an_acknowledged_like_lives_until_an_acknowledged_answer_ends_it() {
    good([liked(1, &[])], &[1]);
    bad([liked(1, &[])], &[]);
    good([liked(1, &[]), unliked(&[1])], &[]);
    bad([liked(1, &[]), unliked(&[1])], &[1]);
    good([liked(1, &[]), liked(2, &[1])], &[2]);
    bad([liked(1, &[]), liked(2, &[1])], &[1, 2]);
    good([liked(1, &[]), liked(2, &[]), unliked(&[2])], &[1]);
    bad([liked(1, &[]), liked(2, &[]), unliked(&[2])], &[]);
    bad([], &[3]);
    bad([liked(1, &[])], &[1, 3]);
}

#[test]
fn what_is_unknown_may_be_either_and_nothing_else() {
    let maybe_like = || operation(Action::Like, Outcome::Unknown);
    let maybe_unlike = || operation(Action::Unlike, Outcome::Unknown);
    good([maybe_like()], &[]);
    good([maybe_like()], &[9]);
    good([liked(1, &[]), maybe_unlike()], &[]);
    good([liked(1, &[]), maybe_unlike()], &[1]);
    bad([liked(1, &[]), maybe_unlike()], &[9]);
    good([liked(1, &[]), maybe_like()], &[1]);
    good([liked(1, &[]), maybe_like()], &[9]);
    bad([liked(1, &[]), maybe_like()], &[]);
    let refused = operation(Action::Like, Outcome::Refused("Overloaded".to_owned()));
    bad([refused], &[9]);
}

#[test]
fn an_unlike_that_finds_its_likes_removed_is_as_sure_as_what_removed_them() {
    let by_id = || {
        let outcome = Outcome::Unliked { removed: vec![] };
        operation(Action::UnlikeById(vec![dot(1)]), outcome)
    };
    bad([liked(1, &[]), by_id()], &[1]);
    bad([liked(1, &[]), unliked(&[1]), by_id()], &[1]);
    let maybe_unlike = operation(Action::Unlike, Outcome::Unknown);
    good([liked(1, &[]), maybe_unlike, by_id()], &[1]);
}

#[test]
fn a_retry_that_succeeds_tells_what_came_of_all_tries() {
    let first = operation(Action::Unlike, Outcome::Unknown);
    let mut second = unliked(&[]);
    second.retries = Some(1);
    bad([liked(1, &[]), first.clone(), second.clone()], &[]);
    let mut forgotten = history([liked(1, &[]), first, second]);
    forgotten.destroyed.push((0, Duration::from_millis(1_500)));
    assert!(acknowledged(&forgotten, &likes_by(&[])).is_good());
}

#[test]
fn what_stood_on_a_lost_disk_alone_may_be_gone() {
    let mut history = history([liked(5, &[])]);
    assert!(!acknowledged(&history, &likes_by(&[])).is_good());
    history.lost.push(Lost {
        replica: replica(),
        beyond: 4,
    });
    assert!(acknowledged(&history, &likes_by(&[])).is_good());
    history.lost[0].beyond = 5;
    assert!(!acknowledged(&history, &likes_by(&[])).is_good());
}

#[test]
fn counters_are_sums_give_or_take_the_unknown() {
    let add = |delta, outcome| {
        let counter = "views";
        operation(Action::Add { counter, delta }, outcome)
    };
    let history = history([
        add(5, Outcome::Added),
        add(-2, Outcome::Added),
        add(4, Outcome::Unknown),
    ]);
    let with = |value| {
        let mut state = State::default();
        state
            .counters
            .insert(("p".to_owned(), "views".to_owned(), "eu".to_owned()), value);
        counters(&history, &state, &["eu"]).is_good()
    };
    let good: Vec<i64> = (0..10).filter(|value| with(*value)).collect();
    assert_eq!(good, [3, 4, 5, 6, 7]);
}

#[test]
fn a_dot_has_one_meaning() {
    let mut other = liked(1, &[]);
    other.user = "bob".to_owned();
    assert!(dots(&history([liked(1, &[]), liked(1, &[])]), &likes_by(&[1])).is_good());
    assert!(!dots(&history([liked(1, &[]), other.clone()]), &State::default()).is_good());
    assert!(!dots(&history([other]), &likes_by(&[1])).is_good());
}

#[test]
fn a_token_shows_what_its_client_wrote() {
    let read = |likes| {
        let expected = Some(true);
        let shown = Outcome::Shown { likes, count: 1 };
        history([operation(Action::Read { expected }, shown)])
    };
    assert!(sessions(&read(true)).is_good());
    assert!(!sessions(&read(false)).is_good());
}

#[test]
fn a_machine_that_is_well_takes_writes() {
    let mut unknown = history([operation(Action::Like, Outcome::Unknown)]);
    assert!(!availability(&unknown).is_good());
    let while_down = (Duration::from_millis(1_500), Duration::from_millis(1_600));
    unknown.excused.insert(0, vec![while_down]);
    assert!(availability(&unknown).is_good());
}

#[test]
fn a_write_that_the_end_of_the_run_cut_off_is_no_proof() {
    let mut pending = history([operation(Action::Like, Outcome::Pending)]);
    let begun = pending.operations[0].at;
    pending.over = begun + Duration::from_millis(150);
    assert!(availability(&pending).is_good());
    pending.over = begun + Duration::from_secs(3);
    assert!(!availability(&pending).is_good(), "it was waited for");
}

#[test]
fn vectors_only_grow() {
    let vector = |seq| BTreeMap::from([(replica(), seq)]);
    let mut vectors = Vectors::default();
    vectors.see(0, vector(5));
    vectors.see(1, vector(3));
    vectors.see(0, vector(5));
    vectors.begin_anew(1);
    vectors.see(1, vector(2));
    assert!(vectors.verdict().is_good());
    let mut vectors = Vectors::default();
    vectors.see(0, vector(5));
    vectors.see(0, BTreeMap::new());
    assert!(!vectors.verdict().is_good());
}

#[test]
fn equal_vectors_have_equal_sums_and_figures_add_up() {
    let vector = |seq| BTreeMap::from([(replica(), seq)]);
    let sees = |sum: &str| {
        let mut fingerprints = Fingerprints::default();
        fingerprints.see(0, &vector(1), "a".to_owned());
        fingerprints.see(1, &vector(2), "b".to_owned());
        fingerprints.see(1, &vector(1), sum.to_owned());
        fingerprints.verdict().is_good()
    };
    assert!(sees("a") && !sees("b"));
    for (likers, entries, holds) in [(3, 3, true), (2, 3, false), (3, 2, false)] {
        let mut figures = Figures::default();
        figures.see(0, "p", 3, likers, entries);
        assert_eq!(figures.verdict().is_good(), holds);
    }
}
