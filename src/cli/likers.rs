//! `likers`: who likes a post, page by page.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::calls::advised;
use super::{NodeArgs, Output};
use crate::client::Read;
use crate::display::figures::grouped;
use crate::display::output;
use crate::limits::PAGE_LIKERS_MAX;
use crate::wire::v1::ListLikersResponse;

#[derive(Debug, Args)]
pub struct LikersArgs {
    /// The post's id
    post: String,
    /// How many users at most
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Go on where an earlier list ended, on this node or another
    #[arg(
        long = "page",
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    page: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

pub async fn run(args: LikersArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let (mut listed, mut page_token) = (0, args.page.clone());
    if args.nodes.output == Output::Table {
        output::line("USER")?;
    }
    loop {
        let size = (args.limit - listed).min(PAGE_LIKERS_MAX as u64) as u32;
        let pages = client.list_likers(&args.post, Read::default());
        let mut pages = pages.page_size(size).from_page(page_token);
        let page = pages.next_page().await.map_err(advised)?;
        let page = page.unwrap_or_default();
        listed += page.users.len() as u64;
        let is_end = page.next_page_token.is_empty() || listed >= args.limit;
        match args.nodes.output {
            Output::Json => output::line(page_json(&args.post, &page))?,
            Output::Table => output::lines(&page.users)?,
        }
        if is_end {
            if args.nodes.output == Output::Table {
                output::line(summary(listed, &page))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        page_token = page.next_page_token;
    }
}

fn page_json(post: &str, page: &ListLikersResponse) -> serde_json::Value {
    json!({
        "post": post, "users": page.users, "count": page.count,
        "next_page_token": page.next_page_token, "token": page.token,
    })
}

fn summary(listed: u64, page: &ListLikersResponse) -> String {
    let counts = format!("{} of {} likers", grouped(listed), grouped(page.count));
    match page.next_page_token.as_str() {
        "" => format!("\n{counts}; no more follow"),
        next => format!("\n{counts}; go on with --page {next}"),
    }
}
