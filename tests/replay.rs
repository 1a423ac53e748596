//! A start from the log alone: likes of large posts are applied in bulk, and everything is as it was.

mod support;

use support::{Machine, Node, add, like, unlike, unlike_dots};

fn users(first: usize, count: usize) -> Vec<String> {
    let name = |number| match number % 10 {
        7 => format!("somebody with a longer name {number}"),
        _ => format!("u{number}"),
    };
    (first..first + count).map(name).collect()
}

async fn like_all(node: &Node, post_id: &str, users: &[String]) {
    // Blocks of both sizes that are told apart.
    for some in users.chunks(1_500) {
        let commands = some.iter().map(|user| like(post_id, user)).collect();
        node.try_write(commands, None).await.expect("taken");
    }
}

fn roomy(region: &'static str, seed: u64) -> Machine {
    let mut machine = Machine::new(region, seed);
    machine.log.segment_bytes = 4 << 20;
    machine.log.group_bytes_max = 1 << 20;
    machine
}

/// Kills the node and starts it from its log: it holds what it held.
async fn assert_replays(machine: &Machine, node: Node) -> Node {
    let sums = node.engine.board().newest().sums.clone();
    let views = ["hot", "other", "small"].map(|post_id| node.view(post_id));
    node.kill().await;
    machine.reboot();
    let node = machine.start().await;
    assert!(node.engine.board().newest().sums == sums);
    assert!(node.engine.recompute_sums() == sums);
    let again = ["hot", "other", "small"].map(|post_id| node.view(post_id));
    assert_eq!(again, views);
    node
}

#[tokio::test]
async fn likes_of_large_posts_replay_to_the_same_state() {
    let (here, there) = (roomy("eu", 1), roomy("us", 2));
    let (eu, us) = (here.start().await, there.start().await);
    // Two posts that are spread, and one that is not.
    like_all(&eu, "hot", &users(0, 5_000)).await;
    like_all(&eu, "other", &users(0, 3_000)).await;
    like_all(&eu, "small", &users(0, 20)).await;
    like_all(&us, "hot", &users(4_000, 4_000)).await;
    // What the node here knows to be dead before it comes, and what names another's dots.
    let unseen = us.like("hot", "u70000").await;
    eu.write(unlike_dots("hot", "u70000", vec![unseen])).await;
    like_all(&eu, "hot", &users(20_000, 700)).await;
    assert!(eu.pull(&us).await);
    like_all(&eu, "hot", &users(30_000, 700)).await;
    for user in users(20_100, 40) {
        eu.write(unlike("hot", &user)).await;
        eu.write(like("other", &user)).await;
    }
    like_all(&eu, "hot", &users(20_120, 40)).await;
    eu.write(add("hot", "views", 7)).await;
    like_all(&eu, "hot", &users(40_000, 300)).await;
    let eu = assert_replays(&here, eu).await;
    assert!(!eu.likes("hot", "u70000") && eu.likes("hot", "u20130"));
    // And once more, from what the second process logged too.
    like_all(&eu, "hot", &users(50_000, 300)).await;
    assert_replays(&here, eu).await;
}
