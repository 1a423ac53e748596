//! Commands to a Redis server over its own protocol: closed loops of pipelines, or reads at a steady rate.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::figures;
use crate::measure::latencies;
use crate::measure::machine::Watch;
use crate::users::{Order, Users};

const LIKERS: &str = "likes:hot";
const COUNT: &str = "count:hot";
/// Is the user in the set? If not, add and count.
const SCRIPT: &str = "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 0 end \
    redis.call('SADD', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[2])";

/// What is asked of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The script, once a like.
    Script,
    /// SADD and SCARD, a pair a like.
    SaddScard,
    /// GET of the count, at a steady rate.
    Get,
}

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long, value_enum)]
    kind: Kind,
    /// The server's process
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, default_value_t = 64)]
    pipeline: usize,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    #[arg(long, default_value_t = 10_000_000)]
    users: u64,
    #[arg(long, value_enum, default_value = "random")]
    order: Order,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after so many likes
    #[arg(long, default_value_t = u64::MAX)]
    items: u64,
    /// Ends after so many seconds
    #[arg(long, default_value_t = 1e6)]
    seconds: f64,
    /// Reads a second
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    if arguments.kind == Kind::Get {
        return Ok(figures::latency(&get(&arguments).await?));
    }
    let script = load(arguments.port).await?;
    let watch = Watch::start(arguments.pid)?;
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut connections = JoinSet::new();
    for number in 0..arguments.connections as u64 {
        let share = arguments.items / arguments.connections as u64;
        let more = u64::from(number < arguments.items % arguments.connections as u64);
        let pipelines = Pipelines {
            connection: Connection::open(arguments.port).await?,
            kind: arguments.kind,
            script: script.clone(),
            depth: arguments.pipeline as u64,
            left: share + more,
            end,
            users: Users {
                order: arguments.order,
                among: arguments.users,
                at: number * share + number.min(arguments.items % arguments.connections as u64),
                rng: SmallRng::seed_from_u64(arguments.seed << 16 | number),
            },
        };
        connections.spawn(pipelines.run());
    }
    let mut latency_us = latencies()?;
    let mut items = 0;
    while let Some(connection) = connections.join_next().await {
        let (done, times) = connection??;
        items += done;
        latency_us.add(times)?;
    }
    let rate = figures::rate(items, watch.stop()?);
    Ok(figures::joined(rate, figures::latency(&latency_us)))
}

/// The script's name, once the server has it.
async fn load(port: u16) -> anyhow::Result<String> {
    let mut connection = Connection::open(port).await?;
    let mut command = String::new();
    push(&mut command, &["SCRIPT", "LOAD", SCRIPT]);
    connection.send(command.as_bytes()).await?;
    connection.reply().await?.context("the script's name")
}

struct Connection {
    replies: BufReader<OwnedReadHalf>,
    commands: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Connection {
    async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (replies, commands) = stream.into_split();
        Ok(Self {
            replies: BufReader::with_capacity(64 << 10, replies),
            commands,
            line: Vec::new(),
        })
    }

    async fn send(&mut self, commands: &[u8]) -> anyhow::Result<()> {
        Ok(self.commands.write_all(commands).await?)
    }

    async fn reply(&mut self) -> anyhow::Result<Option<String>> {
        reply(&mut self.replies, &mut self.line).await
    }
}

/// Reads one reply: an integer gives nothing, a string its text; an error is one here too.
async fn reply(
    replies: &mut BufReader<OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> anyhow::Result<Option<String>> {
    line.clear();
    replies.read_until(b'\n', line).await?;
    match line.first() {
        Some(b':') => Ok(None),
        Some(b'$') => {
            if line.starts_with(b"$-1") {
                return Ok(None);
            }
            line.clear();
            replies.read_until(b'\n', line).await?;
            Ok(Some(String::from_utf8_lossy(line).trim_end().to_owned()))
        }
        _ => bail!("Redis said {:?}", String::from_utf8_lossy(line)),
    }
}

fn push(commands: &mut String, words: &[&str]) {
    // Writing to a string cannot fail.
    let _ = write!(commands, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(commands, "${}\r\n{word}\r\n", word.len());
    }
}

/// One connection's closed loop.
struct Pipelines {
    connection: Connection,
    kind: Kind,
    script: String,
    depth: u64,
    left: u64,
    end: Instant,
    users: Users,
}

impl Pipelines {
    async fn run(mut self) -> anyhow::Result<(u64, Histogram<u64>)> {
        let mut latency_us = latencies()?;
        let mut items = 0;
        let mut commands = String::new();
        while self.left > 0 && Instant::now() < self.end {
            let size = self.depth.min(self.left);
            self.left -= size;
            commands.clear();
            for _ in 0..size {
                let user = self.users.next();
                self.like(&mut commands, &format!("u{user}"));
            }
            let since = Instant::now();
            self.connection.send(commands.as_bytes()).await?;
            let replies = if self.kind == Kind::SaddScard {
                2 * size
            } else {
                size
            };
            for _ in 0..replies {
                self.connection.reply().await?;
            }
            latency_us.record(since.elapsed().as_micros() as u64)?;
            items += size;
        }
        Ok((items, latency_us))
    }

    fn like(&self, commands: &mut String, user: &str) {
        match self.kind {
            Kind::SaddScard => {
                push(commands, &["SADD", LIKERS, user]);
                push(commands, &["SCARD", LIKERS]);
            }
            Kind::Script | Kind::Get => {
                push(
                    commands,
                    &["EVALSHA", &self.script, "2", LIKERS, COUNT, user],
                );
            }
        }
    }
}

/// A read's latency counts from when it was due, whether or not earlier ones are answered.
async fn get(arguments: &Arguments) -> anyhow::Result<Histogram<u64>> {
    let mut readers = JoinSet::new();
    let begun = Instant::now();
    let each = arguments.rate / arguments.connections as f64;
    for number in 0..arguments.connections {
        let connection = Connection::open(arguments.port).await?;
        // Connections take turns.
        let first = begun + Duration::from_secs_f64(number as f64 / arguments.rate);
        readers.spawn(steady(connection, first, each, arguments.seconds));
    }
    let mut latency_us = latencies()?;
    while let Some(reader) = readers.join_next().await {
        latency_us.add(reader??)?;
    }
    Ok(latency_us)
}

async fn steady(
    connection: Connection,
    first: Instant,
    rate: f64,
    seconds: f64,
) -> anyhow::Result<Histogram<u64>> {
    let Connection {
        mut replies,
        mut commands,
        mut line,
    } = connection;
    let (tx, mut under_way) = mpsc::unbounded_channel();
    let mut command = String::new();
    push(&mut command, &["GET", COUNT]);
    let sending = tokio::spawn(async move {
        for number in 0..(rate * seconds) as u64 {
            let due = first + Duration::from_secs_f64(number as f64 / rate);
            sleep_until(due.into()).await;
            if tx.send(due).is_err() {
                break;
            }
            commands.write_all(command.as_bytes()).await?;
        }
        anyhow::Ok(commands)
    });
    let mut latency_us = latencies()?;
    while let Some(due) = under_way.recv().await {
        reply(&mut replies, &mut line).await?;
        let took: Duration = Instant::elapsed(&due);
        latency_us.record(took.as_micros() as u64)?;
    }
    sending.await??;
    Ok(latency_us)
}
