//! `likewise bench` as a process, against nodes that are processes too.

#[path = "support/process/mod.rs"]
mod process;

use std::process::{Output, Stdio};
use std::time::Duration;

use likewise::client::Read;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::process::node::{Node, PATIENCE, Setup};
use crate::process::world::World;
use crate::process::{Wire, eventually};

const WITHIN: Duration = Duration::from_secs(60);

/// A run against the addresses; it is killed when this is dropped.
fn bench(addresses: &[String], arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_likewise"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LIKEWISE") {
            command.env_remove(name);
        }
    }
    command
        .arg("bench")
        .args(arguments)
        .arg(format!("--node={}", addresses.join(",")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts")
}

fn address(node: &Node) -> String {
    format!("http://{}", node.client_address)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn ended(run: Child) -> Output {
    let ended = tokio::time::timeout(WITHIN, run.wait_with_output()).await;
    ended.expect("it ends").expect("it can be waited for")
}

/// The report of a run that ends with the code.
async fn report(run: Child, code: i32) -> Value {
    let output = ended(run).await;
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

/// As from a terminal.
async fn interrupt(run: &Child) {
    let pid = run.id().expect("it runs");
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -INT {pid}"))
        .status()
        .await;
    assert!(status.expect("a shell").success());
}

/// Waits until the post has more likes than that.
async fn liked(node: &Node, post: &str, more_than: u64) -> u64 {
    let look = || async {
        let likes = node.client.get_post(post, None, Read::default()).await;
        match likes {
            Ok(likes) if likes.count > more_than => Ok(likes.count),
            other => Err(format!("{other:?}")),
        }
    };
    eventually("likes arrive", PATIENCE, look).await
}

/// The likes of all posts of a run.
async fn likes(node: &Node, name: &str, posts: u32) -> u64 {
    let posts: Vec<String> = (0..posts).map(|post| format!("{name}-{post}")).collect();
    let likes = node.client.batch_get_posts(&posts, None, Read::default());
    let likes = likes.await.expect("read");
    likes.iter().map(|likes| likes.count).sum()
}

async fn a_storm_is_counted_exactly(setting: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    let node = setup.set("ENGINE__REPEATED_LIKES", setting).start().await;
    let arguments = "storm --name s --posts 20 --users 400 --clients 8 --batch 10 --rate 2000 \
                     --duration 1s -o json";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let run = bench(&[address(&node)], &arguments);
    let report = report(run, 0).await;

    let phases = report["phases"].as_array().expect("a list");
    let names: Vec<_> = phases.iter().map(|phase| &phase["phase"]).collect();
    assert_eq!(names, ["normal", "viral", "tsunami"]);
    for phase in phases {
        assert!(phase["likes"].as_u64() > Some(0), "{phase}");
        assert!(phase["liked_again"].as_u64() > Some(0), "{phase}");
        assert!(phase["reads"].as_u64() > Some(0), "{phase}");
        assert!(
            phase["like_times"]["p99_ms"].as_f64() > Some(0.0),
            "{phase}"
        );
        assert!(
            phase["read_times"]["p99_ms"].as_f64() > Some(0.0),
            "{phase}"
        );
        assert!(phase["queues"]["under_way"]["max"].is_u64(), "{phase}");
    }
    assert_eq!(phases[0]["like_times"]["timed"], "since due");
    assert_eq!(phases[2]["like_times"]["timed"], "corrected");
    assert_eq!(report["accuracy"]["exact"], true);

    assert_eq!(report["accuracy"]["likes"], likes(&node, "s", 20).await);
    node.stop().await;
}

#[tokio::test]
async fn a_storm_is_counted_exactly_where_repeated_likes_are_recorded() {
    a_storm_is_counted_exactly("record").await;
}

#[tokio::test]
async fn a_storm_is_counted_exactly_where_repeated_likes_are_absorbed() {
    a_storm_is_counted_exactly("absorb").await;
}

#[tokio::test]
async fn a_like_that_the_tool_did_not_make_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Setup::new("eu", folder.path().join("eu")).start().await;
    let arguments = "like --name f --posts 3 --clients 2 --batch 5 --rate 500 --duration 10m";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let run = bench(&[address(&node)], &arguments);
    liked(&node, "f-1", 0).await;
    node.client.like("f-1", "a stranger").await.expect("taken");
    interrupt(&run).await;
    let output = ended(run).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));

    let (count, _) = node.likes("f-1", "a stranger").await;
    let said = stdout(&output);
    let told = format!("  f-1 at eu: {count} in place of {}", count - 1);
    assert!(said.contains("WRONG: 1 count at one node"), "{said}");
    assert!(said.lines().any(|line| line == told), "{told} in\n{said}");

    // What was there before says nothing about a run.
    let run = bench(&[address(&node)], &arguments);
    let output = ended(run).await;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("f-0 has likes already"), "{said}");
    node.stop().await;
}

#[tokio::test]
async fn each_of_several_nodes_counts_what_all_took() {
    let world = World::start(&["eu", "us"], |setup| setup).await;
    // Before a peer has answered, a node is not ready.
    for region in ["eu", "us"] {
        world.node(region).ready().await;
    }
    let nodes = ["eu", "us"].map(|region| address(world.node(region)));
    // Users who like again do so at either node.
    let arguments = "mixed --name m --posts 5 --users 300 --clients 6 --batch 20 --dup-ratio 0.5 \
                     --duration 500ms -o json";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let report = report(bench(&nodes, &arguments), 0).await;
    assert_eq!(report["regions"], serde_json::json!(["eu", "us"]));
    for region in ["eu", "us"] {
        let sum = likes(world.node(region), "m", 5).await;
        assert_eq!(report["accuracy"]["likes"], sum, "at {region}");
    }
    assert!(report["phases"][1]["queues"]["peers_behind"]["max"].is_u64());

    let twice = bench(&[nodes[0].clone(), nodes[0].clone()], &["like"]);
    let output = ended(twice).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("named twice"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn what_a_killed_node_acknowledged_is_counted_after_its_return() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    let node = setup.start().await;
    let wire = Wire::lay().await;
    wire.lead_to(Some(node.client_address));
    let arguments =
        "like --name k --posts 2 --clients 4 --batch 10 --rate 4000 --duration 10m -o json";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let run = bench(&[format!("http://{}", wire.address())], &arguments);
    liked(&node, "k-0", 100).await;
    wire.lead_to(None);
    node.kill().await;
    let node = setup.start().await;
    let (count, _) = node.likes("k-0", "nobody").await;
    wire.lead_to(Some(node.client_address));
    liked(&node, "k-0", count).await;
    interrupt(&run).await;
    let report = report(run, 130).await;
    assert_eq!(report["accuracy"]["exact"], true);
    assert!(report["phases"][0]["streams_broken"].as_u64() > Some(0));
    node.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_sent() {
    // A port that nobody listens on: whoever asked there would say so.
    let nowhere = ["http://127.0.0.1:1".to_owned()];
    for (arguments, said) in [
        (
            "like --posts 0",
            "--posts 0 is out of bounds; give 1 to 1000000",
        ),
        (
            "read --batch 1001",
            "--batch 1001 is out of bounds; give 1 to 1000",
        ),
        (
            "like --batch -1",
            "--batch -1 is out of bounds; give 1 to 10000",
        ),
        ("storm --users 4294967296", "give 1 to 4294967295"),
        (
            "like --zipf nan",
            "--zipf NaN is out of bounds; give 0 to 10",
        ),
        (
            "like --dup-ratio -0.5",
            "--dup-ratio -0.5 is out of bounds; give 0 to 1",
        ),
        (
            "mixed --clients 1",
            "--clients 1 is out of bounds; give 2 to 2000",
        ),
        (
            "like --duration 99ms",
            "--duration 99ms is out of bounds; give 100ms",
        ),
        ("like --rate 1", "--rate 1 makes no batch of --batch 100"),
        ("like --unary --batch 7", "--batch 7 does not fit"),
        ("like --posts many", "--posts <NUMBER>"),
        ("like --duration 10", "ms, s or m"),
        ("nonsense", "nonsense"),
    ] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = ended(bench(&nowhere, &arguments)).await;
        let complaint = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {complaint}");
        assert!(complaint.contains(said), "{said} in\n{complaint}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named() {
    let nowhere = ["http://127.0.0.1:1".to_owned()];
    let output = ended(bench(&nowhere, &["storm"])).await;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("no node answers (http://127.0.0.1:1"),
        "{said}"
    );
    assert!(said.contains("likewise serve"), "{said}");
}
