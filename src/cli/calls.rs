//! `like`, `unlike`, `add`, `count` and `watch`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{NodeArgs, Output};
use crate::client::{Client, ClientError, Read};
use crate::display::figures::{counted, instant, since};
use crate::display::table::{Align, Table};
use crate::wire::v1::{CounterValue, PostLikes};

/// How long a command tries before it gives up: a person waits.
pub const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct LikeArgs {
    post: String,
    user: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Args)]
pub struct UnlikeArgs {
    post: String,
    user: String,
    /// Also remove what this like id names, whether the node has it or not
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    like_id: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    post: String,
    /// The counter, such as views
    counter: String,
    /// How much; may be negative
    #[arg(allow_negative_numbers = true)]
    delta: i64,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Args)]
pub struct CountArgs {
    #[arg(required = true, value_name = "POST")]
    posts: Vec<String>,
    /// A user: show which of the posts they like
    #[arg(long, value_name = "USER")]
    viewer: Option<String>,
    /// Show the other counters too
    #[arg(long)]
    counters: bool,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    #[arg(required = true, value_name = "POST")]
    posts: Vec<String>,
    #[command(flatten)]
    nodes: NodeArgs,
}

pub async fn like(args: LikeArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let answer = client.like(&args.post, &args.user).await.map_err(advised)?;
    let verb = match answer.changed {
        true => "now likes",
        false => "likes again",
    };
    let headline = format!("{} {verb} {}{}", args.user, args.post, likes(answer.count));
    let value = json!({
        "changed": answer.changed, "like_id": answer.like_id, "count": answer.count,
        "replaced_like_ids": answer.replaced_like_ids, "token": answer.token,
    });
    let details = [("like id", answer.like_id), ("token", answer.token)];
    print(args.nodes.output, &headline, &details, &value);
    Ok(ExitCode::SUCCESS)
}

pub async fn unlike(args: UnlikeArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let answer = client
        .unlike_by_id(&args.post, &args.user, &args.like_id)
        .await;
    let answer = answer.map_err(advised)?;
    let verb = match (answer.changed, answer.removed_like_ids.is_empty()) {
        (true, _) => "no longer likes",
        (false, true) => "did not like",
        (false, false) => "was not seen to like",
    };
    let headline = format!("{} {verb} {}{}", args.user, args.post, likes(answer.count));
    let value = json!({
        "changed": answer.changed, "removed_like_ids": answer.removed_like_ids,
        "count": answer.count, "token": answer.token,
    });
    let removed = answer.removed_like_ids.join(" ");
    let details = [("removed", removed), ("token", answer.token)];
    print(args.nodes.output, &headline, &details, &value);
    Ok(ExitCode::SUCCESS)
}

pub async fn add(args: AddArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let answer = client.add(&args.post, &args.counter, args.delta).await;
    let answer = answer.map_err(advised)?;
    let now = answer.value.map_or_else(
        || "taken; this node is still rebuilding".to_owned(),
        |value| value.to_string(),
    );
    let headline = format!("{} of {}: {now}", args.counter, args.post);
    let value = json!({ "value": answer.value, "token": answer.token });
    print(
        args.nodes.output,
        &headline,
        &[("token", answer.token)],
        &value,
    );
    Ok(ExitCode::SUCCESS)
}

pub async fn count(args: CountArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let viewer = args.viewer.as_deref();
    let read = client.batch_get_posts(&args.posts, viewer, Read::default());
    let posts = read.await.map_err(advised)?;
    let mut counters = Vec::new();
    if args.counters {
        for post in &args.posts {
            let read = client.get_counters(post, &[], Read::default());
            counters.push(read.await.map_err(advised)?);
        }
    }
    match args.nodes.output {
        Output::Json => println!("{}", count_json(&client, &posts, &counters)),
        Output::Table => count_table(&posts, &counters, viewer),
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let width = args.posts.iter().map(|post| post.chars().count()).max();
    let mut watch = client.watch(args.posts);
    loop {
        let changed = tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot wait for an interrupt")?;
                return Ok(ExitCode::SUCCESS);
            }
            changed = watch.next() => changed.map_err(advised)?,
        };
        for likes in &changed {
            match args.nodes.output {
                Output::Json => println!("{}", post_json(likes, &watch.token())),
                Output::Table => {
                    let width = width.unwrap_or(0);
                    let count = counted(likes.count, "like");
                    println!("{:<width$}  {count}", likes.post);
                }
            }
        }
    }
}

fn likes(count: Option<u64>) -> String {
    count.map_or_else(String::new, |count| {
        format!(" ({})", counted(count, "like"))
    })
}

fn print(output: Output, headline: &str, details: &[(&str, String)], value: &Value) {
    if output == Output::Json {
        println!("{value}");
        return;
    }
    println!("{headline}");
    let width = details
        .iter()
        .map(|(label, _)| label.len())
        .max()
        .unwrap_or(0);
    for (label, detail) in details.iter().filter(|(_, detail)| !detail.is_empty()) {
        println!("  {label:<width$}  {detail}");
    }
}

fn count_table(posts: &[PostLikes], counters: &[Vec<CounterValue>], viewer: Option<&str>) {
    let mut table = Table::new([
        ("POST", Align::Left),
        ("LIKES", Align::Right),
        ("VIEWER", Align::Left),
        ("CHANGED", Align::Right),
        ("COUNTERS", Align::Left),
    ]);
    for (at, likes) in posts.iter().enumerate() {
        let viewer = match (viewer, likes.viewer_likes) {
            (None, _) => String::new(),
            (Some(user), true) => format!("{user} likes it"),
            (Some(user), false) => format!("{user} does not"),
        };
        let values = counters.get(at).into_iter().flatten();
        let values = values.map(|value| format!("{} {}", value.counter, value.value));
        table.row([
            likes.post.clone(),
            likes.count.to_string(),
            viewer,
            since(likes.updated_at),
            values.collect::<Vec<_>>().join(", "),
        ]);
    }
    for line in table.lines() {
        println!("{line}");
    }
}

fn count_json(client: &Client, posts: &[PostLikes], counters: &[Vec<CounterValue>]) -> Value {
    let token = client.token();
    let post = |(at, likes): (usize, &PostLikes)| {
        let mut value = post_json(likes, &token);
        if let Some(counters) = counters.get(at) {
            let pairs = counters
                .iter()
                .map(|c| (c.counter.clone(), Value::from(c.value)));
            value["counters"] = Value::Object(pairs.collect());
        }
        value
    };
    posts.iter().enumerate().map(post).collect()
}

fn post_json(likes: &PostLikes, token: &str) -> Value {
    json!({
        "post": likes.post, "count": likes.count, "viewer_likes": likes.viewer_likes,
        "viewer_like_id": likes.viewer_like_id, "updated_at": instant(likes.updated_at),
        "token": token,
    })
}

/// The error with what to do about it.
fn advised(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Unreachable { .. } => anyhow::anyhow!(
            "{error}; start a node with `likewise serve`, or name another with --node"
        ),
        ClientError::OutcomeUnknown { .. } => {
            anyhow::anyhow!("{error}; look with `likewise count` whether it happened")
        }
        error => error.into(),
    }
}
