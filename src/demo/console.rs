//! The console: commands for the cluster, typed under a live table or read line by line.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use super::cluster::Cluster;
use super::links::Links;
use super::proxy::Switch;
use super::{Place, table};
use crate::causes;
use crate::client::Batch;
use crate::display::figures::{counted, grouped};
use crate::display::output::{self, OutputError};
use crate::limits::READ_POSTS_MAX;

const HELP: &str = "\
like POST USER REGION     a user likes a post in a region (us, eu, ap)
unlike POST USER REGION   and takes it back
load [N]                  N likes and unlikes in the regions that run (10000)
cut eu us                 cut the link between two regions
heal [eu us]              heal it, or all
kill eu                   end a node by SIGKILL
start eu                  start it again on its folder
status                    the table
quit                      end the demo";

const REDRAW_EVERY: Duration = Duration::from_millis(500);
/// Lines typed ahead; the terminal waits beyond.
const LINES_AHEAD: usize = 64;
const LOAD: u64 = 10_000;
const LOAD_MAX: u64 = 10_000_000;
const LOAD_POSTS: u32 = 20;
const LOAD_USERS: u32 = 100_000;
const BATCH_WRITES: u64 = 500;
/// Lines of the table with the empty one below it.
const TABLE_LINES: usize = 5;

struct Console {
    cluster: Arc<Cluster>,
    chance: StdRng,
    /// Posts that were written to from here; no more than one read may ask for.
    posts: BTreeSet<String>,
}

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Command {
    Like(String, String, Place),
    Unlike(String, String, Place),
    Load(u64),
    Cut(Place, Place),
    Heal(Option<(Place, Place)>),
    Kill(Place),
    Start(Place),
    Status,
    Help,
    Quit,
    Nothing,
}

/// Reads commands under a table that is drawn again and again.
pub async fn live(cluster: &Arc<Cluster>, seed: u64) -> anyhow::Result<ExitCode> {
    let screen = Screen::open()?;
    let mut console = Console::new(cluster, seed);
    let mut lines = lines_of_stdin();
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    screen.say("type help for the commands, quit to end")?;
    screen.prompt()?;
    loop {
        tokio::select! {
            biased;
            line = lines.recv() => {
                let Some(line) = line else { return Ok(ExitCode::SUCCESS) };
                match console.run(&line).await {
                    Ok(Some(answer)) => screen.say(&answer)?,
                    Ok(None) => return Ok(ExitCode::SUCCESS),
                    Err(error) => screen.say(&causes::told(error.as_ref()))?,
                }
                screen.prompt()?;
            }
            _ = redraw.tick() => screen.draw(&console.table().await)?,
        }
    }
}

/// Reads commands to their end, for scripts; the exit code is that of the last failure.
pub async fn by_line(cluster: &Arc<Cluster>, seed: u64) -> anyhow::Result<ExitCode> {
    let mut console = Console::new(cluster, seed);
    let mut lines = lines_of_stdin();
    let mut code = ExitCode::SUCCESS;
    while let Some(line) = lines.recv().await {
        match console.run(&line).await {
            Ok(Some(answer)) if answer.is_empty() => {}
            Ok(Some(answer)) => output::line(answer)?,
            Ok(None) => break,
            Err(error) => {
                output::line(causes::told(error.as_ref()))?;
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// A thread of its own, for a terminal that says nothing must not keep the process from ending.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

impl Console {
    fn new(cluster: &Arc<Cluster>, seed: u64) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            chance: StdRng::seed_from_u64(seed),
            posts: BTreeSet::new(),
        }
    }

    /// Does what a line says; `None` when it says to quit.
    async fn run(&mut self, line: &str) -> anyhow::Result<Option<String>> {
        let cluster = Arc::clone(&self.cluster);
        let answer = match parse(line)? {
            Command::Like(post, user, place) => {
                let answer = cluster.client(place)?.like(&post, &user).await?;
                self.know(&post);
                format!("{post}: {} in {place}", likes(answer.count))
            }
            Command::Unlike(post, user, place) => {
                let answer = cluster.client(place)?.unlike(&post, &user).await?;
                self.know(&post);
                format!("{post}: {} in {place}", likes(answer.count))
            }
            Command::Load(writes) => self.load(writes).await?,
            Command::Cut(one, other) => {
                cluster.links.turn(one, other, Switch::Off);
                format!("{one} and {other} do not hear each other")
            }
            Command::Heal(which) => heal(&cluster.links, which),
            Command::Kill(place) => {
                cluster.kill_node(place).await?;
                format!("{place} is gone")
            }
            Command::Start(place) => {
                cluster.start_node(place).await?;
                format!("{place} is back")
            }
            Command::Status => self.table().await.join("\n"),
            Command::Help => HELP.to_owned(),
            Command::Nothing => String::new(),
            Command::Quit => return Ok(None),
        };
        Ok(Some(answer))
    }

    async fn table(&self) -> Vec<String> {
        let posts: Vec<String> = self.posts.iter().cloned().collect();
        table::look(&self.cluster, &posts).await
    }

    fn know(&mut self, post: &str) {
        if self.posts.len() < READ_POSTS_MAX {
            self.posts.insert(post.to_owned());
        }
    }

    async fn load(&mut self, writes: u64) -> anyhow::Result<String> {
        let places = Place::ALL
            .into_iter()
            .filter(|place| self.cluster.runs(*place));
        let places: Vec<Place> = places.collect();
        if places.is_empty() {
            bail!("no region runs");
        }
        let began = Instant::now();
        let mut left = writes;
        for place in places.iter().cycle() {
            let size = left.min(BATCH_WRITES);
            if size == 0 {
                break;
            }
            let batch = self.batch(size);
            self.cluster.client(*place)?.batch_write(batch).await?;
            left -= size;
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(format!("{} writes in {seconds:.1} s", grouped(writes)))
    }

    fn batch(&mut self, size: u64) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..size {
            let post = format!("post-{}", self.chance.random_range(0..LOAD_POSTS));
            let user = format!("user-{}", self.chance.random_range(0..LOAD_USERS));
            match self.chance.random_bool(0.8) {
                true => batch.like(&post, &user),
                false => batch.unlike(&post, &user),
            }
            self.know(&post);
        }
        batch
    }
}

fn likes(count: Option<u64>) -> String {
    match count {
        Some(count) => counted(count, "like"),
        None => "taken".to_owned(),
    }
}

fn heal(links: &Links, which: Option<(Place, Place)>) -> String {
    match which {
        Some((one, other)) => {
            links.turn(one, other, Switch::On);
            format!("{one} and {other} hear each other again")
        }
        None => {
            links.heal();
            "all links are whole".to_owned()
        }
    }
}

fn parse(line: &str) -> anyhow::Result<Command> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = |text: &str| text.parse::<Place>().map_err(anyhow::Error::msg);
    let pair = |one: &str, other: &str| {
        let (one, other) = (place(one)?, place(other)?);
        anyhow::ensure!(one != other, "a link has two ends");
        Ok((one, other))
    };
    Ok(match words[..] {
        [] => Command::Nothing,
        ["like", post, user, at] => Command::Like(post.to_owned(), user.to_owned(), place(at)?),
        ["unlike", post, user, at] => Command::Unlike(post.to_owned(), user.to_owned(), place(at)?),
        ["load"] => Command::Load(LOAD),
        ["load", number] => match number.parse() {
            Ok(number) if number <= LOAD_MAX => Command::Load(number),
            _ => bail!("give a number of writes up to {LOAD_MAX}"),
        },
        ["cut", one, other] => pair(one, other).map(|(one, other)| Command::Cut(one, other))?,
        ["heal"] => Command::Heal(None),
        ["heal", one, other] => Command::Heal(Some(pair(one, other)?)),
        ["kill", at] => Command::Kill(place(at)?),
        ["start", at] => Command::Start(place(at)?),
        ["status"] => Command::Status,
        ["help" | "?"] => Command::Help,
        ["quit" | "exit"] => Command::Quit,
        _ => bail!("{line:?} is no command; type help"),
    })
}

/// A terminal whose first lines hold the table, while the rest scrolls.
struct Screen;

impl Screen {
    fn open() -> Result<Self, OutputError> {
        // Clear, let only the lines below the table scroll, and go there.
        let below = TABLE_LINES + 1;
        output::raw(&format!("\x1b[2J\x1b[{below}r\x1b[{below};1H"))?;
        Ok(Self)
    }

    fn say(&self, text: &str) -> Result<(), OutputError> {
        match text {
            "" => Ok(()),
            text => output::line(text),
        }
    }

    fn prompt(&self) -> Result<(), OutputError> {
        output::raw("> ")
    }

    /// Draws the table and puts the cursor back, so that typing is not disturbed.
    fn draw(&self, table: &[String]) -> Result<(), OutputError> {
        let lines = table.iter().map(|line| format!("{line}\x1b[K\r\n"));
        output::raw(&format!("\x1b7\x1b[H{}\x1b8", lines.collect::<String>()))
    }
}

/// Also after an interrupt the whole terminal scrolls again.
impl Drop for Screen {
    fn drop(&mut self) {
        if let Err(error) = output::raw("\x1b7\x1b[r\x1b8\n") {
            output::complain(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood() {
        let like = Command::Like("p".to_owned(), "u".to_owned(), Place::Eu);
        assert_eq!(parse("like p u eu").unwrap(), like);
        assert_eq!(
            parse(" cut eu us ").unwrap(),
            Command::Cut(Place::Eu, Place::Us)
        );
        assert_eq!(parse("heal").unwrap(), Command::Heal(None));
        assert_eq!(parse("load 5").unwrap(), Command::Load(5));
        assert_eq!(parse("").unwrap(), Command::Nothing);
    }

    #[test]
    fn what_is_no_command_is_refused_in_words() {
        for (line, part) in [
            ("dance", "type help"),
            ("kill mars", "us, eu and ap"),
            ("cut eu eu", "two ends"),
            ("load much", "a number"),
        ] {
            let message = parse(line).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
