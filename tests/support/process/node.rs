//! One `likewise serve`: how it is described, started, asked, signalled and ended.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use likewise::client::{Client, Read, RetryElsewhere};
use likewise::config::ENVIRONMENT_PREFIX;
use likewise::wire::v1::{GetStatusResponse, NodeState};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::eventually;

/// How long a node may take to start, to answer, or to end.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Small enough that nodes start and roll segments quickly.
const SEGMENT_BYTES: u64 = 12 << 20;

/// What a node is started with.
#[derive(Clone)]
pub struct Setup {
    pub region: String,
    pub folder: PathBuf,
    log: PathBuf,
    peers: Vec<(String, String)>,
    seeds: Vec<String>,
    settings: Vec<(String, String)>,
    config: Option<PathBuf>,
    flags: Vec<&'static str>,
}

/// How a node ended that did not come to serve.
#[derive(Debug)]
pub struct Refusal {
    pub code: Option<i32>,
    pub stderr: String,
}

impl Setup {
    /// A node with its data in `folder`, and its log beside that.
    pub fn new(region: &str, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let setup = Self {
            region: region.to_owned(),
            log: folder.with_extension("stderr"),
            folder,
            peers: Vec::new(),
            seeds: Vec::new(),
            settings: Vec::new(),
            config: None,
            flags: Vec::new(),
        };
        setup
            .set("CLUSTER__ID", "test")
            .set("LOG__SEGMENT_BYTES", SEGMENT_BYTES)
            .set("CHECKPOINT__SLED_CACHE_BYTES", 8 << 20)
            .set("ENGINE__SHARDS", 4)
    }

    /// A key of the configuration, as SECTION__KEY.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// All keys that another setup has set, beside this one's own.
    pub fn settings_of(self, other: &Self) -> Self {
        let settings = other.settings.iter();
        settings.fold(self, |setup, (key, value)| setup.set(key, value))
    }

    pub fn peer(mut self, region: &str, address: impl ToString) -> Self {
        self.peers.push((region.to_owned(), address.to_string()));
        self
    }

    pub fn seed(mut self, address: impl ToString) -> Self {
        self.seeds.push(address.to_string());
        self
    }

    pub fn config(mut self, file: impl Into<PathBuf>) -> Self {
        self.config = Some(file.into());
        self
    }

    pub fn flag(mut self, flag: &'static str) -> Self {
        self.flags.push(flag);
        self
    }

    /// What the nodes on this folder have said of themselves.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn spawn(&self) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log);
        let mut command = Command::new(env!("CARGO_BIN_EXE_likewise"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
                command.env_remove(name);
            }
        }
        let settings = self.settings.iter();
        command
            .envs(settings.map(|(key, value)| (format!("{ENVIRONMENT_PREFIX}{key}"), value)))
            .args([
                "serve",
                "--client-listen=127.0.0.1:0",
                "--peer-listen=127.0.0.1:0",
            ])
            .arg(format!("--region={}", self.region))
            .arg("--data-dir")
            .arg(&self.folder)
            .args(&self.flags);
        for (region, address) in &self.peers {
            command.arg(format!("--peer={region}={address}"));
        }
        for seed in &self.seeds {
            command.arg(format!("--seed={seed}"));
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("the log can be written"))
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts")
    }

    /// Starts the node and waits until it serves.
    pub async fn start(&self) -> Node {
        let mut child = self.spawn();
        let stdout = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            panic!(
                "{} does not serve: {line:?}\n{}",
                self.region,
                self.stderr()
            );
        };
        let value = |key: &str| {
            let words = line
                .strip_prefix("likewise ready ")
                .expect("the ready line");
            let mut pairs = words.split(' ').filter_map(|word| word.split_once('='));
            let found = pairs.find(|(name, _)| *name == key);
            found.expect("the ready line has it").1.to_owned()
        };
        assert_eq!(value("region"), self.region);
        let client_address: SocketAddr = value("client").parse().expect("an address");
        let client = Client::builder()
            .endpoints([client_address.to_string()])
            .retry_elsewhere(RetryElsewhere::Never)
            .deadline(PATIENCE)
            .connect_lazy();
        Node {
            setup: self.clone(),
            client: client.expect("an endpoint"),
            client_address,
            peer_address: value("peers").parse().expect("an address"),
            epoch: value("epoch"),
            child,
            _stdout: lines,
        }
    }

    /// Starts a node that must not come to serve, and waits until it has ended.
    pub async fn refused(&self) -> Refusal {
        let said_before = self.stderr().len();
        let child = self.spawn();
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.expect("it ends").expect("it can be waited for");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout, "", "it came to serve");
        let stderr = self.stderr()[said_before..].to_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Refusal {
            code: output.status.code(),
            stderr,
        }
    }
}

/// A running node; it is killed when this is dropped.
pub struct Node {
    pub setup: Setup,
    pub client: Client,
    pub client_address: SocketAddr,
    pub peer_address: SocketAddr,
    pub epoch: String,
    child: Child,
    /// Kept open, so that the node may write to it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// A client with other patience than the usual.
    pub fn client_with_deadline(&self, deadline: Duration) -> Client {
        let client = Client::builder()
            .endpoints([self.client_address.to_string()])
            .retry_elsewhere(RetryElsewhere::Never)
            .deadline(deadline)
            .connect_lazy();
        client.expect("an endpoint")
    }

    pub async fn status(&self) -> GetStatusResponse {
        let status = self.client.status().await;
        status.unwrap_or_else(|error| {
            panic!("{}: {error}\n{}", self.setup.region, self.setup.stderr())
        })
    }

    /// Waits until the status is as wanted.
    pub async fn status_where(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&GetStatusResponse) -> bool,
    ) -> GetStatusResponse {
        let what = format!("{}: {what}", self.setup.region);
        let wanted = &wanted;
        eventually(&what, within, || async move {
            let status = self.status().await;
            match wanted(&status) {
                true => Ok(status),
                false => Err(format!("{status:#?}")),
            }
        })
        .await
    }

    pub async fn ready(&self) -> GetStatusResponse {
        let is_ready = |status: &GetStatusResponse| status.state() == NodeState::Ready;
        self.status_where("ready", PATIENCE, is_ready).await
    }

    pub async fn count(&self, post: &str) -> u64 {
        self.likes(post, "nobody").await.0
    }

    /// The count of a post, and whether the user likes it.
    pub async fn likes(&self, post: &str, user: &str) -> (u64, bool) {
        let read = self.client.session();
        let likes = read.get_post(post, Some(user), Read::default()).await;
        let likes = likes.unwrap_or_else(|error| panic!("{}: {error}", self.setup.region));
        (likes.count, likes.viewer_likes)
    }

    /// Whether a checkpoint has cut the log, so that it no longer reaches back to its beginning.
    pub fn has_cut_its_log(&self) -> bool {
        let said = self.setup.stderr();
        let mut lines = said
            .lines()
            .filter(|line| line.contains("segments_removed="));
        lines.any(|line| !line.contains("segments_removed=0"))
    }

    /// Processor time that the process has used.
    pub fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id().expect("it runs"));
        let stat = std::fs::read_to_string(path).expect("it runs");
        // The name may hold blanks; what follows it does not.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("the kernel tells");
        // Linux tells it in hundredths of a second.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// The most memory that the process ever had.
    pub fn memory_peak_kb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().expect("it runs"));
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let figure = line.and_then(|line| line.split_whitespace().next());
        figure
            .and_then(|figure| figure.parse().ok())
            .expect("the kernel tells")
    }

    /// Ends the process at once, as a power cut would.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Sends SIGTERM.
    pub async fn terminate(&self) {
        let pid = self.child.id().expect("it runs");
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -TERM {pid}"))
            .status()
            .await;
        assert!(status.expect("a shell").success());
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends").expect("a child can be waited for")
    }

    /// Ends the process as a supervisor does.
    pub async fn stop(self) {
        self.terminate().await;
        let setup = self.setup.clone();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", setup.stderr());
    }
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => {
                std::fs::copy(entry.path(), target).expect("copied");
            }
        }
    }
}

/// Files with their bytes.
pub type Contents = Vec<(PathBuf, Vec<u8>)>;

/// Every file below the folder, the lock apart.
pub fn contents(folder: &Path) -> Contents {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false if path.ends_with("lock") => {}
            false => {
                let bytes = std::fs::read(&path).expect("readable");
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}
