//! The command line as a process: what it says and where, and its exit codes.

use std::io;
use std::process::{Command, Output, Stdio};

/// What a command does whose output nobody reads.
fn unread(arguments: &[&str]) -> Output {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let command = Command::new(env!("CARGO_BIN_EXE_likewise"))
        .args(arguments)
        .env_remove("LIKEWISE_NODE")
        .stdin(Stdio::null())
        .stdout(writer)
        .output();
    command.expect("the command runs")
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    for arguments in [
        &["status", "--node", "nowhere"][..],
        &["status", "--node", "nowhere", "--output", "json"],
        &["status", "--help"],
        &["--version"],
        &["demo"],
    ] {
        let output = unread(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(141), "{arguments:?}");
    }
}

#[test]
fn a_cause_is_told_once() {
    let arguments = ["serve", "--config", "/nowhere/node.toml"];
    let output = unread(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
}

#[test]
fn arguments_are_explained() {
    for command in [
        "like", "unlike", "add", "count", "watch", "likers", "explain", "wait", "retire",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_likewise"))
            .args([command, "-h"])
            .output()
            .expect("the command runs");
        let help = String::from_utf8_lossy(&output.stdout);
        let arguments = help.lines().skip_while(|line| *line != "Arguments:");
        let arguments: Vec<_> = arguments
            .skip(1)
            .take_while(|line| !line.is_empty())
            .collect();
        assert!(!arguments.is_empty(), "{help}");
        for argument in arguments {
            let name_and_words = argument.trim().split_once("  ");
            assert!(name_and_words.is_some(), "{command}: {argument}");
        }
    }
}

/// What a command says, without this process's configuration.
fn said(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_likewise"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LIKEWISE") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), stdout, stderr)
}

#[test]
fn a_configuration_is_written_once_and_is_sound() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.toml");
    let file = path.to_str().expect("a text");
    let (code, stdout, _) = said(&["config", "init", file], &[]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains(file), "{stdout}");
    let written = std::fs::read_to_string(&path).expect("written");
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/config/node.toml");
    assert_eq!(
        written,
        std::fs::read_to_string(kept).expect("in the repository")
    );
    let (code, stdout, _) = said(&["config", "check", "--config", file], &[]);
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "the configuration is sound\n")
    );

    std::fs::write(&path, "mine").expect("written");
    let (code, _, stderr) = said(&["config", "init", file], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("is there already"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&path).expect("readable"), "mine");
    let (code, ..) = said(&["config", "init", "/nowhere/node.toml"], &[]);
    assert_eq!(code, Some(1));
}

#[test]
fn a_check_names_every_problem_with_key_value_limit_and_origin() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.toml");
    std::fs::write(&path, "[engine]\nshards = 3\n[log]\nnoise = 1\n").expect("written");
    let file = path.to_str().expect("a text");
    let environment = [("LIKEWISE__REPLICATION__SILENCE_MS", "1500")];
    let arguments = ["config", "check", "--config", file, "--region", "EU"];
    let (code, stdout, stderr) = said(&arguments, &environment);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    for part in [
        &format!("unknown key log.noise (from {file})"),
        &format!("engine.shards = 3 (from {file}) must be a power of two from 1 to 256"),
        "replication.silence_ms = 1500 (from the environment variable \
         LIKEWISE__REPLICATION__SILENCE_MS) must be above twice replication.heartbeat_ms = 1000",
        "node.region (from the flag --region)",
    ] {
        assert!(stderr.contains(part), "{part} in\n{stderr}");
    }
    let (code, ..) = said(&["config", "check"], &[]);
    assert_eq!(code, Some(0));
}

#[test]
fn what_holds_is_shown_with_its_origin() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.toml");
    std::fs::write(&path, "[engine]\nshards = 2\n").expect("written");
    let file = path.to_str().expect("a text");
    let environment = [("LIKEWISE__LOGGING__LEVEL", "warn")];
    let arguments = [
        "config",
        "show",
        "--config",
        file,
        "--peer",
        "us=us.example:7401",
    ];
    let (code, stdout, _) = said(&arguments, &environment);
    assert_eq!(code, Some(0));
    let line = |key: &str| {
        let found = stdout
            .lines()
            .find(|line| line.split(' ').next() == Some(key));
        let found = found.unwrap_or_else(|| panic!("{key} in\n{stdout}"));
        found
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(line("engine.shards"), ["engine.shards", "2", file]);
    let variable = "the environment variable LIKEWISE__LOGGING__LEVEL";
    assert_eq!(
        line("logging.level"),
        ["logging.level", "\"warn\"", variable]
    );
    let peers = "[{ address = \"us.example:7401\", region = \"us\" }]";
    assert_eq!(
        line("peers.static"),
        ["peers.static", peers, "the flag --peer"]
    );
    assert_eq!(
        line("cluster.id"),
        ["cluster.id", "\"likewise\"", "the default"]
    );

    let (code, stdout, _) = said(
        &["config", "show", "-o", "json"],
        &[("LIKEWISE__ENGINE__SHARDS", "4")],
    );
    assert_eq!((code, stdout.lines().count()), (Some(0), 1));
    let values: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let shards = values.as_array().expect("a list").iter();
    let shards = shards.filter(|value| value["key"] == "engine.shards");
    let expected = serde_json::json!({
        "key": "engine.shards", "value": 4,
        "origin": "the environment variable LIKEWISE__ENGINE__SHARDS",
    });
    assert_eq!(shards.collect::<Vec<_>>(), [&expected]);
    let (code, _, stderr) = said(&["config", "show", "--region", "EU"], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the flag --region"), "{stderr}");
}
