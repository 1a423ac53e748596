//! Pages of likers beside a naive model, while others like and unlike, buckets split, the post spreads over shards,
//! and the pages come from one node or the other.

#[path = "support/served.rs"]
mod served;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use likewise::client::{Client, Read};
use likewise::codec::text::encode_page_token;
use likewise::crdt::user_key::UserHash;
use likewise::engine::Serving;
use likewise::ids::UserId;
use likewise::log::{LogOptions, Position};
use likewise::wire::v1::{Consistency, ListLikersRequest, ListLikersResponse, ReadOptions};
use proptest::prelude::*;
use served::{Served, at_least, get, refusal, served};
use support::{Machine, Node, like, post, unlike, user};
use tonic::Code;
use tonic_types::StatusExt;

const POST: &str = "p";
/// Writes of one batch: few syncs, for nothing here is about them.
const BATCH: usize = 1_000;

fn place(user: &UserId) -> (u64, UserId) {
    (UserHash::of(user).order(), user.clone())
}

async fn write_all(node: &Node, commands: Vec<likewise::engine::command::Command>) {
    for part in commands.chunks(BATCH) {
        node.try_write(part.to_vec(), None).await.expect("taken");
    }
}

async fn start(region: &'static str, seed: u64) -> Node {
    let mut machine = Machine::new(region, seed);
    machine.log = LogOptions {
        segment_bytes: 4 << 20,
        group_bytes_max: 1 << 20,
        ..machine.log
    };
    machine.start().await
}

/// What happens between two pages.
#[derive(Debug, Clone)]
struct Step {
    /// Which node gives the page, and which takes the writes.
    page_from: usize,
    write_to: usize,
    page_size: usize,
    /// Users who toggle: (first, how many) of a number of restless ones.
    toggled: (usize, usize),
    /// New users that arrive for good, enough of them to split buckets and spread the post.
    arrivals: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop_oneof![Just(1usize), 2usize..50, 200usize..900];
    let arrivals = prop_oneof![4 => 0usize..20, 1 => 500usize..1_500];
    (
        0usize..2,
        0usize..2,
        sizes,
        (0usize..200, 0usize..60),
        arrivals,
    )
        .prop_map(|(page_from, write_to, page_size, toggled, arrivals)| Step {
            page_from,
            write_to,
            page_size,
            toggled,
            arrivals,
        })
}

struct Crowd {
    nodes: [Node; 2],
    /// Up to where the other has each one's log.
    exchanged: [Position; 2],
    /// Who likes, by the writes that were made on either node.
    restless: BTreeMap<usize, bool>,
    arrived: usize,
}

impl Crowd {
    async fn new(stable: usize) -> Self {
        let nodes = [start("eu", 1).await, start("us", 2).await];
        let likes = (0..stable).map(|number| like(POST, &format!("s{number}")));
        write_all(&nodes[0], likes.collect()).await;
        let mut crowd = Self {
            nodes,
            exchanged: [Position::START; 2],
            restless: BTreeMap::new(),
            arrived: 0,
        };
        crowd.exchange().await;
        crowd
    }

    /// Everything that one node has and the other lacks goes over, both ways.
    async fn exchange(&mut self) {
        for at in 0..2 {
            let (from, to) = (&self.nodes[at], &self.nodes[1 - at]);
            for block in from.blocks(self.exchanged[at]).await {
                let applied = to.apply(&block).await.expect("an honest block");
                assert!(applied.is_some());
            }
            self.exchanged[at] = from.reader.synced();
        }
    }

    async fn disturb(&mut self, step: &Step) {
        let mut commands = Vec::new();
        for number in step.toggled.0..step.toggled.0 + step.toggled.1 {
            let likes = self.restless.entry(number).or_default();
            *likes = !*likes;
            let who = format!("r{number}");
            commands.push(match likes {
                true => like(POST, &who),
                false => unlike(POST, &who),
            });
        }
        for _ in 0..step.arrivals {
            commands.push(like(POST, &format!("n{}", self.arrived)));
            self.arrived += 1;
        }
        write_all(&self.nodes[step.write_to], commands).await;
        self.exchange().await;
    }
}

async fn listed_once_and_in_order(stable: usize, steps: Vec<Step>) {
    let mut crowd = Crowd::new(stable).await;
    let mut listed: Vec<UserId> = Vec::new();
    let mut steps = steps.iter().cycle();
    // Arrivals in each round would never let the listing end.
    for round in 0.. {
        let mut step = steps.next().expect("cycles").clone();
        if round >= 12 {
            step.arrivals = 0;
            step.page_size = step.page_size.max(400);
        }
        let node = &crowd.nodes[step.page_from];
        let after = listed.last();
        let page = node
            .engine
            .list_likers(&post(POST), after, step.page_size)
            .await;
        assert!(page.users.len() <= step.page_size);
        assert!(!page.has_more || page.users.len() == step.page_size);
        assert_eq!(page.count, node.count(POST));
        listed.extend(page.users);
        if !page.has_more {
            break;
        }
        crowd.disturb(&step).await;
    }
    let places: Vec<_> = listed.iter().map(place).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "each once, in order");
    let listed: BTreeSet<String> = listed.iter().map(UserId::to_string).collect();
    for number in 0..stable {
        let who = format!("s{number}");
        assert!(listed.contains(who.as_str()), "{who} was a liker all along");
    }
    let known = |who: &str| {
        let number: usize = who[1..].parse().expect("a number");
        match &who[..1] {
            "s" => number < stable,
            "r" => crowd.restless.contains_key(&number),
            _ => number < crowd.arrived,
        }
    };
    assert!(listed.iter().all(|who| known(who)));
}

fn runtime() -> tokio::runtime::Runtime {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn who_likes_all_along_is_listed_exactly_once(
        stable in 1usize..1_200,
        steps in prop::collection::vec(step(), 1..12),
    ) {
        runtime().block_on(listed_once_and_in_order(stable, steps));
    }
}

/// The post is listed across the moment at which it is spread over all shards.
#[tokio::test]
async fn a_listing_goes_on_while_the_post_spreads() {
    let quiet = Step {
        page_from: 0,
        write_to: 1,
        page_size: 100,
        toggled: (0, 10),
        arrivals: 400,
    };
    listed_once_and_in_order(1_000, vec![quiet]).await;
}

#[tokio::test]
async fn equal_nodes_give_equal_pages() {
    let crowd = Crowd::new(3_000).await;
    let [eu, us] = &crowd.nodes;
    let mut last = None;
    loop {
        let [ours, theirs] = [
            eu.engine.list_likers(&post(POST), last.as_ref(), 700).await,
            us.engine.list_likers(&post(POST), last.as_ref(), 700).await,
        ];
        assert_eq!(ours, theirs);
        last = ours.users.last().cloned();
        if !ours.has_more {
            break;
        }
    }
}

#[tokio::test]
async fn a_page_begins_after_a_user_who_likes_no_longer() {
    let crowd = Crowd::new(100).await;
    let node = &crowd.nodes[0];
    let first = node.engine.list_likers(&post(POST), None, 10).await;
    let last = first.users.last().expect("ten").clone();
    write_all(node, vec![unlike(POST, last.text().as_str())]).await;
    let second = node.engine.list_likers(&post(POST), Some(&last), 10).await;
    assert!(first.users.iter().all(|who| !second.users.contains(who)));
    let stranger = user("never liked anything");
    let rest = node
        .engine
        .list_likers(&post(POST), Some(&stranger), 1_000)
        .await;
    assert!(rest.users.iter().all(|who| place(who) > place(&stranger)));
    let unknown = node.engine.list_likers(&post("unknown"), None, 10).await;
    assert!(unknown.users.is_empty() && !unknown.has_more);
}

fn page(size: u32, page_token: &str) -> ListLikersRequest {
    ListLikersRequest {
        post: POST.to_owned(),
        page_size: Some(size),
        page_token: page_token.to_owned(),
        options: None,
    }
}

async fn ask(node: &Served, request: ListLikersRequest) -> ListLikersResponse {
    let mut likes = node.likes.clone();
    let answer = likes.list_likers(request).await.expect("a page");
    answer.into_inner()
}

/// Two regions that both have the same 25 likers.
async fn two_served() -> (Served, Served) {
    let (eu, us) = (served("eu", 30).await, served("us", 31).await);
    let likes = (0..25).map(|number| like(POST, &format!("u{number}")));
    for command in likes {
        eu.node.write(command).await;
    }
    assert!(us.node.pull(&eu.node).await);
    (eu, us)
}

#[tokio::test]
async fn pages_go_on_at_another_node() {
    let (eu, us) = two_served().await;
    let (mut all, mut sizes, mut next) = (BTreeSet::new(), Vec::new(), String::new());
    for node in [&eu, &us, &eu] {
        let answer = ask(node, page(10, &next)).await;
        assert_eq!(answer.count, 25);
        assert!(!answer.token.is_empty());
        sizes.push(answer.users.len());
        all.extend(answer.users);
        next = answer.next_page_token;
    }
    assert_eq!((sizes, all.len(), next.as_str()), (vec![10, 10, 5], 25, ""));
    let whole = ask(&us, page(25, "")).await;
    assert_eq!(whole.next_page_token, "", "nobody follows");
    let mut unset = page(1, "");
    unset.page_size = None;
    assert_eq!(ask(&us, unset).await.users.len(), 25);
}

#[tokio::test]
async fn pages_are_read_as_other_reads_are() {
    let (eu, us) = two_served().await;
    let written = eu.node.write(like(POST, "late")).await;
    let mut request = page(100, "");
    request.options = at_least(&written.token, std::time::Duration::from_millis(5));
    let refused = refusal(us.likes.clone().list_likers(request.clone()).await);
    assert_eq!(refused.1, "REASON_TOKEN_NOT_COVERED");
    assert!(us.node.pull(&eu.node).await);
    let answer = ask(&us, request).await;
    assert!(answer.users.contains(&"late".to_owned()));

    let mut fast = page(100, "");
    fast.options = Some(ReadOptions {
        consistency: Consistency::Fast as i32,
        ..ReadOptions::default()
    });
    assert_eq!(ask(&us, fast).await.users.len(), 26);
    us.node.engine.set_serving(Serving::Rebuilding);
    let refused = refusal(us.likes.clone().list_likers(page(1, "")).await);
    assert_eq!(refused, (Code::Unavailable, "REASON_REBUILDING".into()));
}

#[tokio::test]
async fn bad_pages_are_refused_with_field_and_limit() {
    let (eu, _us) = two_served().await;
    let cluster = eu.node.engine.cluster().clone();
    let foreign = encode_page_token(&cluster, &post("other"), &user("u1"));
    let mut likes = eu.likes.clone();
    let token = likes.get_post(get(POST, "")).await.expect("read");
    let token = token.into_inner().token;
    let mut no_post = page(1, "");
    no_post.post.clear();
    let cases = [
        (page(0, ""), "page_size", "give 1 to 10000"),
        (page(10_001, ""), "page_size", "give 1 to 10000"),
        (page(1, "garbage!"), "page_token", "base64url"),
        (page(1, &foreign), "page_token", "another post"),
        (
            page(1, &token),
            "page_token",
            "is a token, not a page token",
        ),
        (page(1, &"x".repeat(5_000)), "page_token", "4096"),
        (no_post, "post", "1 to 256 bytes"),
    ];
    for (request, field, words) in cases {
        let status = likes.list_likers(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(words), "{}", status.message());
        let fields = status.get_details_bad_request().expect("a field");
        assert_eq!(fields.field_violations[0].field, field);
    }
}

#[tokio::test]
async fn the_client_goes_through_all_pages_over_several_nodes() {
    let (eu, us) = two_served().await;
    let client = |node: &Served| {
        let client = Client::builder().endpoints([node.endpoint.uri().to_string()]);
        client.connect_lazy().expect("an endpoint")
    };
    let mut listed = BTreeSet::new();
    let mut pages = client(&eu).list_likers(POST, Read::default()).page_size(7);
    let first = pages.next_page().await.expect("a page").expect("the first");
    listed.extend(first.users);
    let pages = client(&us).list_likers(POST, Read::default()).page_size(7);
    let mut pages = pages.from_page(first.next_page_token);
    while let Some(page) = pages.next_page().await.expect("a page") {
        for who in page.users {
            assert!(listed.insert(who), "nobody twice");
        }
    }
    assert_eq!(listed.len(), 25);
    assert!(pages.next_page().await.expect("no error").is_none());
}
