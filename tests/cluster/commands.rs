//! `likers` and `explain` against a running node.

use serde_json::Value;
use tokio::process::Command;

use crate::process::node::{Node, Setup};

async fn said(node: &Node, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_likewise"))
        .args(arguments)
        .arg(format!("--node=http://{}", node.client_address))
        .output()
        .await
        .expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test]
async fn likers_and_explanations_are_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Setup::new("eu", folder.path().join("eu")).start().await;
    for number in 0..12 {
        let user = format!("u{number}");
        node.client.like("p", &user).await.expect("taken");
    }
    node.client.add("p", "views", 3).await.expect("taken");

    let (code, stdout, _) = said(&node, &["likers", "p", "--limit", "5"]).await;
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!((lines[0], lines.len()), ("USER", 8), "{stdout}");
    let (counts, next) = lines[7]
        .split_once("; go on with --page ")
        .expect("more follow");
    assert_eq!(counts, "5 of 12 likers");
    let arguments = ["likers", "p", "--page", next, "-o", "json"];
    let (_, stdout, _) = said(&node, &arguments).await;
    let rest: Value = serde_json::from_str(&stdout).expect("JSON");
    let rest: Vec<&str> = rest["users"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(rest.len(), 7);
    assert!(lines[1..6].iter().all(|user| !rest.contains(user)));

    let (code, stdout, _) = said(&node, &["explain", "p", "--user", "u3"]).await;
    assert_eq!(code, Some(0));
    for part in ["p: 12 likes", "(likes)  eu", "views    eu", "LIKE ID"] {
        assert!(stdout.contains(part), "{part} in\n{stdout}");
    }
    let (_, stdout, _) = said(&node, &["explain", "p", "-o", "json"]).await;
    let explained: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(explained["count"], 12);
    assert_eq!(explained["counters"]["views"][0]["increments"], 3);
    assert_eq!(explained["fingerprint"].as_str().map(str::len), Some(32));

    let (code, _, stderr) = said(&node, &["likers", "p", "--page", "x"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("page_token"), "{stderr}");
    node.stop().await;
}
