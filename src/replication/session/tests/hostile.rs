//! Frames that break the protocol: each closes the session and changes nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::replication::frame::{
    Acknowledge, BadFrame, CloseReason, Described, Entries, Frame, Hello,
};
use crate::replication::session::Input;
use crate::replication::session::tests::world::{End, Node, replica, settings};
use crate::replication::trust::AllowedRegions;

fn hello(epoch: u128) -> Hello {
    Hello {
        protocol: 1..=1,
        cluster: "test".to_owned(),
        replica: replica("us", epoch),
        frontier: vec![],
        lineage: vec![],
    }
}

/// Feeds frames; the last must close the session for the reason, and leave the node as it was.
fn check(frames: Vec<Frame>, reason: CloseReason) -> End {
    let node = Node::new("eu", 1);
    node.write(3);
    let before = (node.frontier(), node.inner.lock().published.position);
    let mut end = End::new(&node, settings(), 0);
    let last = frames.len() - 1;
    for (at, frame) in frames.into_iter().enumerate() {
        assert_eq!(end.ended, None, "before frame {at}");
        end.feed(Input::Frame(frame), 1);
        assert_eq!(end.ended.is_some(), at == last, "after frame {at}");
    }
    assert_eq!(end.ended.as_ref().map(|ended| ended.0), Some(reason));
    let after = (node.frontier(), node.inner.lock().published.position);
    assert_eq!(before, after);
    let sent = end.sent.len();
    end.feed(Input::Frame(Frame::Hello(hello(2))), 2);
    assert_eq!(end.sent.len(), sent, "a closed session is deaf");
    end
}

#[test]
fn strangers_are_told_why() {
    let other = Hello {
        cluster: "other".to_owned(),
        ..hello(2)
    };
    check(vec![Frame::Hello(other)], CloseReason::WrongCluster);
    let own = Hello {
        replica: replica("eu", 1),
        ..hello(2)
    };
    check(vec![Frame::Hello(own)], CloseReason::Own);
}

#[test]
fn an_address_of_another_region_is_told() {
    let node: Arc<Node> = Node::new("eu", 1);
    let mut expecting = settings();
    expecting.expected_region = Some(replica("ap", 1).region);
    let mut end = End::new(&node, expecting, 0);
    end.feed(Input::Frame(Frame::Hello(hello(2))), 1);
    assert!(matches!(end.ended, Some((CloseReason::WrongRegion, _))));
}

#[test]
fn a_peer_of_another_region_than_its_certificate_is_refused() {
    let node: Arc<Node> = Node::new("eu", 1);
    let mut proving = settings();
    proving.certified_region = Some(replica("ap", 1).region);
    let mut end = End::new(&node, proving, 0);
    end.feed(Input::Frame(Frame::Hello(hello(2))), 1);
    assert!(matches!(end.ended, Some((CloseReason::NotAllowed, _))));
}

#[test]
fn a_region_that_is_not_listed_is_refused() {
    let node: Arc<Node> = Node::new("eu", 1);
    let mut listing = settings();
    listing.regions = AllowedRegions::only([replica("ap", 1).region]);
    let mut end = End::new(&node, listing, 0);
    end.feed(Input::Frame(Frame::Hello(hello(2))), 1);
    assert!(matches!(end.ended, Some((CloseReason::NotAllowed, _))));
}

fn acknowledge_of(frame: u64, frontier: Entries, lineage: Described) -> Frame {
    Frame::Acknowledge(Acknowledge {
        frame,
        frontier,
        lineage,
        fingerprint: None,
        heard: vec![],
        at_ms: 0,
    })
}

#[test]
fn frames_out_of_order_close() {
    let events = |frame| Frame::Events {
        frame,
        block: Bytes::from_static(b"x"),
    };
    let acknowledge = |frame| acknowledge_of(frame, vec![], vec![]);
    let greeted = |frame| vec![Frame::Hello(hello(2)), frame];
    check(vec![events(1)], CloseReason::Protocol);
    check(vec![acknowledge(0)], CloseReason::Protocol);
    check(greeted(Frame::Hello(hello(2))), CloseReason::Protocol);
    check(greeted(events(0)), CloseReason::Protocol);
    check(greeted(events(2)), CloseReason::Protocol);
    check(greeted(events(u64::MAX)), CloseReason::Protocol);
    check(greeted(acknowledge(99)), CloseReason::Protocol);
}

#[test]
fn a_block_that_is_none_closes() {
    for bytes in [&b"x"[..], &[1, 2, 3, 4, 5, 6, 7, 8], &[0; 64]] {
        let events = Frame::Events {
            frame: 1,
            block: Bytes::copy_from_slice(bytes),
        };
        check(vec![Frame::Hello(hello(2)), events], CloseReason::Protocol);
    }
}

#[test]
fn claims_of_events_that_this_node_never_made_raise_an_alarm() {
    let claim = vec![(replica("eu", 1), 4)];
    let frames = [
        acknowledge_of(0, claim.clone(), vec![]),
        Frame::Resume {
            frontier: vec![],
            lineage: vec![(replica("us", 3), claim.clone())],
        },
        Frame::BehindCut {
            whole_from: claim.clone(),
        },
    ];
    for frame in frames {
        let end = check(vec![Frame::Hello(hello(2)), frame], CloseReason::Alarm);
        assert_eq!(end.alarms, 1);
    }
    let greeting = Hello {
        frontier: claim,
        ..hello(2)
    };
    let end = check(vec![Frame::Hello(greeting)], CloseReason::Alarm);
    assert_eq!(end.alarms, 1);
}

#[test]
fn a_frame_that_is_none_closes_with_its_reason() {
    let node = Node::new("eu", 1);
    let bad = [
        BadFrame::Version {
            theirs: 9..=9,
            ours: 1..=1,
        },
        BadFrame::Invalid {
            what: "a block",
            why: "is empty",
        },
    ];
    for bad in bad {
        let mut end = End::new(&node, settings(), 0);
        let reason = bad.reason();
        end.feed(Input::BadFrame(bad), 1);
        assert_eq!(end.ended.map(|ended| ended.0), Some(reason));
    }
}

#[test]
fn a_form_with_an_unknown_head_is_not_used() {
    let node = Node::new("eu", 1);
    node.write(1);
    let mut end = End::new(&node, settings(), 0);
    end.feed(Input::Frame(Frame::Hello(hello(2))), 1);
    let covering = vec![(replica("eu", 1), 1), (replica("us", 7), 1)];
    let acknowledge = |lineage| acknowledge_of(0, covering.clone(), lineage);
    end.feed(Input::Frame(acknowledge(vec![])), 2);
    assert_eq!(end.session.standing(2).events_behind, 1);
    let described = vec![(replica("us", 7), vec![])];
    end.feed(Input::Frame(acknowledge(described)), 3);
    assert_eq!(end.session.standing(3).events_behind, 0);
    assert_eq!(end.ended, None);
}
