//! Many runs, each in a process of its own, as many at a time as there are cores.

use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

use crate::simulator::summary::RunReport;

/// How a run is started: one seed, one process, since a process has one clock and one source of chance.
#[derive(Clone)]
pub struct Child {
    program: PathBuf,
    file: PathBuf,
    plant: Option<String>,
    trace: Option<PathBuf>,
}

impl Child {
    pub fn new(file: &Path, plant: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self {
            program: std::env::current_exe().context("finding this very program")?,
            file: file.to_owned(),
            plant: plant.map(str::to_owned),
            trace: None,
        })
    }

    pub fn traced(mut self, trace: Option<&Path>) -> Self {
        self.trace = trace.map(Path::to_owned);
        self
    }

    /// Runs a seed to its end.
    pub fn run(&self, seed: u64) -> anyhow::Result<RunReport> {
        let mut command = Command::new(&self.program);
        command.arg(&self.file).arg("--child");
        command.arg("--seed").arg(seed.to_string());
        if let Some(plant) = &self.plant {
            command.arg("--plant").arg(plant);
        }
        if let Some(trace) = &self.trace {
            command.arg("--trace").arg(trace);
        }
        command.stdin(Stdio::null());
        // It is short and small: to give memory back to the system and take it again would cost more than the memory.
        command.env("MIMALLOC_PURGE_DELAY", "-1");
        let output = command.output().context("starting a run")?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            let told = said.lines().rev().take(12).collect::<Vec<_>>();
            let told: Vec<&str> = told.into_iter().rev().collect();
            format!(
                "seed {seed} ended with {} and no report:\n{}",
                output.status,
                told.join("\n")
            )
        })
    }
}

/// Real time: what this process has instead of a clock answers for simulations alone.
pub fn uptime() -> Duration {
    let read = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = read.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or_default())
}

/// Which seeds are run, and how.
pub struct Sweep {
    pub child: Child,
    pub seeds: Range<u64>,
    pub jobs: usize,
    /// Every so many-th seed is run twice.
    pub twice_every: Option<u64>,
}

/// What came of many runs.
pub struct Swept {
    /// By seed; those that ended without a report are in `broken`.
    pub reports: Vec<RunReport>,
    pub broken: Vec<(u64, String)>,
    /// Seeds whose two runs differed.
    pub unlike: Vec<u64>,
    pub run_twice: u64,
    pub took: Duration,
    pub jobs: usize,
}

impl Sweep {
    pub fn run(&self) -> anyhow::Result<Swept> {
        let began = uptime();
        let next = AtomicU64::new(self.seeds.start);
        let swept = Mutex::new(Swept {
            reports: Vec::new(),
            broken: Vec::new(),
            unlike: Vec::new(),
            run_twice: 0,
            took: Duration::ZERO,
            jobs: self.jobs,
        });
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.seeds.end {
                            return;
                        }
                        self.one(seed, &swept);
                        self.show(&swept.lock(), began);
                    }
                });
            }
        });
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        let mut swept = swept.into_inner();
        swept.reports.sort_by_key(|report| report.seed);
        swept.took = uptime().saturating_sub(began);
        Ok(swept)
    }

    fn one(&self, seed: u64, swept: &Mutex<Swept>) {
        let mut report = match self.child.run(seed) {
            Ok(report) => report,
            Err(error) => {
                swept.lock().broken.push((seed, format!("{error:#}")));
                return;
            }
        };
        let is_again = self
            .twice_every
            .is_some_and(|every| seed.is_multiple_of(every));
        if is_again {
            let again = self.child.run(seed);
            let is_like = again.is_ok_and(|again| again.hash == report.hash);
            let mut swept = swept.lock();
            swept.run_twice += 1;
            if !is_like {
                swept.unlike.push(seed);
            }
        }
        // Thousands of stories that nobody reads.
        if report.is_good() {
            report.story = Vec::new();
            report.samples = Vec::new();
            report.lags = Vec::new();
        }
        swept.lock().reports.push(report);
    }

    fn show(&self, swept: &Swept, began: Duration) {
        let mut stderr = std::io::stderr();
        if !stderr.is_terminal() {
            return;
        }
        let all = self.seeds.end - self.seeds.start;
        let done = (swept.reports.len() + swept.broken.len()) as u64;
        let bad = swept
            .reports
            .iter()
            .filter(|report| !report.is_good())
            .count()
            + swept.broken.len();
        let filled = (done * 30 / all) as usize;
        let bar = format!("{}{}", "█".repeat(filled), "░".repeat(30 - filled));
        let took = uptime().saturating_sub(began).as_secs();
        // A terminal that is gone shows nothing.
        let _ = write!(stderr, "\r{bar} {done}/{all} seeds, {bad} bad, {took} s ");
        let _ = stderr.flush();
    }
}
