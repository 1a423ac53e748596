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
    for command in ["like", "unlike", "add", "count", "watch", "wait", "retire"] {
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
