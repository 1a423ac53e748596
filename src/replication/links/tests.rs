use std::time::Duration;

use super::*;
use Direction::{Accepted, Dialled};

fn replica(region: &str, epoch: u128) -> Replica {
    Replica {
        region: Region::new(region).expect("valid"),
        epoch: Epoch(epoch),
    }
}

/// The board of `us`, to whom `eu` is configured.
fn board() -> (LinkBoard, Replica) {
    let board = LinkBoard::new([(replica("eu", 1).region, "eu:1".to_owned())]);
    (board, replica("us", 1))
}

fn only(board: &LinkBoard) -> LinkView {
    let mut all = board.all();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn clones_have_links_of_their_own() {
    let (board, own) = board();
    let first = board.enter(&own, &replica("eu", 1), Accepted);
    let second = board.enter(&own, &replica("eu", 2), Accepted);
    let (first, second) = (first.expect("the only one"), second.expect("another"));
    let addresses = board.all().into_iter().map(|link| link.address);
    assert_eq!(addresses.collect::<Vec<_>>(), ["eu:1", ""]);
    assert!(board.leave(&second, "gone"));
    assert!(only(&board).connected);
    assert!(board.leave(&first, "gone for good"));
    assert_eq!(only(&board).standing.problem, "gone for good");
}

#[test]
fn a_displaced_session_does_not_take_the_link_down() {
    let (board, own) = board();
    let peer = replica("eu", 1);
    let displaced = board.enter(&own, &peer, Accepted).expect("the only one");
    let kept = board.enter(&own, &peer, Accepted).expect("the newer");
    assert!(displaced.displaced.is_cancelled());
    board.update(&displaced, Standing::with_problem("of the displaced"));
    assert!(!board.leave(&displaced, "another session is kept"));
    assert!(only(&board).connected);
    assert_eq!(only(&board).standing.problem, "");
    board.update(&kept, Standing::with_problem("of the kept"));
    assert_eq!(only(&board).standing.problem, "of the kept");
}

#[test]
fn a_restarted_peer_takes_the_link_over_before_its_former_session_ends() {
    let (board, own) = board();
    let former = board.enter(&own, &replica("eu", 1), Dialled);
    let former = former.expect("the only one");
    let newer = board.enter(&own, &replica("eu", 2), Accepted);
    assert!(newer.is_some());
    assert!(board.leave(&former, "the connection was lost"));
    let link = only(&board);
    assert!(link.connected);
    assert_eq!(
        (link.address.as_str(), link.epoch),
        ("eu:1", Some(Epoch(2)))
    );
}

#[test]
fn the_lag_of_a_link_that_is_down_grows_from_where_its_session_left_it() {
    let (board, own) = board();
    let place = board.enter(&own, &replica("eu", 1), Dialled);
    let place = place.expect("the only one");
    let standing = Standing {
        events_behind: 3,
        lag_ms: 500,
        ..Standing::with_problem("")
    };
    board.update(&place, standing);
    board.leave(&place, "the connection was lost");
    let now = Instant::now() + Duration::from_secs(10);
    board.follow_down(now, |_| 4);
    board.follow_down(now + Duration::from_secs(2), |_| 7);
    let standing = only(&board).standing;
    assert_eq!((standing.events_behind, standing.lag_ms), (7, 2_500));
    board.follow_down(now + Duration::from_secs(3), |_| 0);
    assert_eq!(only(&board).standing.lag_ms, 0);
}

#[tokio::test]
async fn both_sides_keep_the_session_that_the_smaller_dialled() {
    let (ap, us) = (replica("ap", 1), replica("us", 1));
    for (first, second) in [(Dialled, Accepted), (Accepted, Dialled)] {
        for (own, peer, kept) in [(&ap, &us, Dialled), (&us, &ap, Accepted)] {
            let board = LinkBoard::new([]);
            let earlier = board.enter(own, peer, first).expect("the only one");
            let later = board.enter(own, peer, second);
            assert_eq!(later.is_some(), kept == second);
            assert_eq!(earlier.displaced.is_cancelled(), kept == second);
            assert_eq!(board.leave(&earlier, ""), later.is_none());
            if let Some(later) = later {
                assert!(board.leave(&later, ""));
            }
            board.gone(peer).await;
        }
    }
}

#[test]
fn a_region_of_hearsay_is_shown_until_it_is_forgotten() {
    let (board, own) = board();
    let ap = replica("ap", 1);
    board.learn(&ap.region, "ap:1".to_owned());
    board.learn(&ap.region, "ap:2".to_owned());
    let shown = |board: &LinkBoard| {
        let all = board.all().into_iter();
        all.map(|link| (link.address, link.connected))
            .collect::<Vec<_>>()
    };
    let eu = ("eu:1".to_owned(), false);
    assert_eq!(shown(&board), [("ap:2".to_owned(), false), eu.clone()]);
    let place = board.enter(&own, &ap, Dialled).expect("the only one");
    assert_eq!(shown(&board), [("ap:2".to_owned(), true), eu.clone()]);
    board.leave(&place, "gone");
    board.forget(&ap.region);
    assert_eq!(shown(&board), [eu]);
}

#[test]
fn seeds_matter_while_nobody_is_there() {
    let (board, own) = board();
    board.note_seed("one:1", Some("refused"));
    board.note_seed("two:1", Some("refused"));
    board.note_seed("two:1", None);
    assert_eq!(board.seed_problems().len(), 1);
    let place = board.enter(&own, &replica("eu", 1), Dialled);
    let place = place.expect("the only one");
    assert!(board.seed_problems().is_empty());
    board.leave(&place, "gone");
    assert!(board.seed_problems()[0].contains("one:1"));
}

#[test]
fn both_sides_keep_the_newer_of_two_that_one_side_dialled() {
    let (ap, us) = (replica("ap", 1), replica("us", 1));
    for (own, peer, direction) in [(&ap, &us, Dialled), (&us, &ap, Accepted)] {
        let board = LinkBoard::new([]);
        let older = board.enter(own, peer, direction).expect("the only one");
        let newer = board.enter(own, peer, direction).expect("kept");
        assert!(older.displaced.is_cancelled() && !newer.displaced.is_cancelled());
    }
}
