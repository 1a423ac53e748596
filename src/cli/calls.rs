//! `like`, `unlike`, `add`, `count` and `watch`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{NodeArgs, Output};
use crate::client::{Client, ClientError, Read};
use crate::display::figures::{counted, instant, since};
use crate::display::output;
use crate::display::table::{Align, Table};
use crate::wire::v1::{CounterValue, PostLikes};

/// How long a command tries before it gives up: a person waits.
pub const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct LikeArgs {
    /// The post's id
    post: String,
    /// The id of the user who likes it
    user: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Args)]
pub struct UnlikeArgs {
    /// The post's id
    post: String,
    /// The id of the user who likes it no longer
    user: String,
    /// Also remove what this like id names, whether the node has it or not
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    like_id: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// The post's id
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
    /// The posts' ids
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
    /// The posts' ids
    #[arg(required = true, value_name = "POST")]
    posts: Vec<String>,
    #[command(flatten)]
    nodes: NodeArgs,
}

pub async fn like(args: LikeArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let liked = client.like(&args.post, &args.user).await.map_err(advised)?;
    let verb = match liked.changed {
        true => "now likes",
        false => "likes again",
    };
    let headline = format!("{} {verb} {}{}", args.user, args.post, likes(liked.count));
    let value = json!({
        "changed": liked.changed, "like_id": liked.like_id, "count": liked.count,
        "replaced_like_ids": liked.replaced_like_ids, "token": liked.token,
    });
    let details = [("like id", liked.like_id), ("token", liked.token)];
    answer(&args.nodes, headline, &details, &value)
}

pub async fn unlike(args: UnlikeArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let unliked = client
        .unlike_by_id(&args.post, &args.user, &args.like_id)
        .await;
    let unliked = unliked.map_err(advised)?;
    let verb = match (unliked.changed, unliked.removed_like_ids.is_empty()) {
        (true, _) => "no longer likes",
        (false, true) => "did not like",
        (false, false) => "was not seen to like",
    };
    let headline = format!("{} {verb} {}{}", args.user, args.post, likes(unliked.count));
    let value = json!({
        "changed": unliked.changed, "removed_like_ids": unliked.removed_like_ids,
        "count": unliked.count, "token": unliked.token,
    });
    let removed = unliked.removed_like_ids.join(" ");
    let details = [("removed", removed), ("token", unliked.token)];
    answer(&args.nodes, headline, &details, &value)
}

pub async fn add(args: AddArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let added = client.add(&args.post, &args.counter, args.delta).await;
    let added = added.map_err(advised)?;
    let now = added.value.map_or_else(
        || "taken; this node is still rebuilding".to_owned(),
        |value| value.to_string(),
    );
    let headline = format!("{} of {}: {now}", args.counter, args.post);
    let value = json!({ "value": added.value, "token": added.token });
    answer(&args.nodes, headline, &[("token", added.token)], &value)
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
        Output::Json => output::line(count_json(&client, &posts, &counters))?,
        Output::Table => output::lines(&count_table(&posts, &counters, viewer).lines())?,
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
                Output::Json => output::line(post_json(likes, &watch.token()))?,
                Output::Table => {
                    let width = width.unwrap_or(0);
                    let count = counted(likes.count, "like");
                    output::line(format!("{:<width$}  {count}", likes.post))?;
                }
            }
        }
    }
}

/// How many like it now, where the node can tell.
fn likes(count: Option<u64>) -> String {
    count.map_or_else(String::new, |count| {
        format!(" ({})", counted(count, "like"))
    })
}

pub(super) fn answer(
    nodes: &NodeArgs,
    headline: String,
    details: &[(&str, String)],
    value: &Value,
) -> anyhow::Result<ExitCode> {
    if nodes.output == Output::Json {
        output::line(value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![headline];
    let width = details
        .iter()
        .map(|(label, _)| label.len())
        .max()
        .unwrap_or(0);
    let details = details.iter().filter(|(_, detail)| !detail.is_empty());
    lines.extend(details.map(|(label, detail)| format!("  {label:<width$}  {detail}")));
    output::lines(&lines)?;
    Ok(ExitCode::SUCCESS)
}

fn count_table(posts: &[PostLikes], counters: &[Vec<CounterValue>], viewer: Option<&str>) -> Table {
    let mut table = Table::new([
        ("POST", Align::Left),
        ("LIKES", Align::Right),
        ("VIEWER", Align::Left),
        ("UPDATED", Align::Right),
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
    table
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
pub(super) fn advised(error: ClientError) -> anyhow::Error {
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
