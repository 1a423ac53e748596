//! The machine, and who used its CPUs meanwhile.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

/// Linux reports CPU time in hundredths of a second, whatever its own ticks are.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds that were used until now.
#[derive(Clone, Copy)]
struct Used {
    server: f64,
    client: f64,
    machine: f64,
}

impl Used {
    fn now(server: Option<u32>) -> anyhow::Result<Self> {
        Ok(Self {
            server: server.map_or(Ok(0.0), |pid| of_process(&pid.to_string()))?,
            client: of_process("self")?,
            machine: of_machine()?,
        })
    }
}

/// Times a measurement.
pub struct Watch {
    server: Option<u32>,
    since: Instant,
    before: Used,
}

/// What a measurement took.
#[derive(Clone, Copy)]
pub struct Took {
    pub wall: Duration,
    /// CPU seconds of the node's process; none where there was none.
    pub server: Option<f64>,
    /// CPU seconds of this process.
    pub client: f64,
    /// CPU seconds of everything else on the machine: what made the figures noisy.
    pub others: f64,
}

impl Watch {
    pub fn start(server: Option<u32>) -> anyhow::Result<Self> {
        let before = Used::now(server)?;
        let since = Instant::now();
        Ok(Self {
            server,
            since,
            before,
        })
    }

    pub fn stop(self) -> anyhow::Result<Took> {
        let wall = self.since.elapsed();
        let after = Used::now(self.server)?;
        let server = after.server - self.before.server;
        let client = after.client - self.before.client;
        let machine = after.machine - self.before.machine;
        Ok(Took {
            wall,
            server: self.server.map(|_| server),
            client,
            others: (machine - server - client).max(0.0),
        })
    }
}

fn of_process(pid: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold blanks; what follows it does not.
    let (_, fields) = text.rsplit_once(')').context("a process without a name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [user, system] = [fields.get(11), fields.get(12)];
    let ticks: u64 = user.context("no user time")?.parse::<u64>()?
        + system.context("no system time")?.parse::<u64>()?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Time in which a CPU was neither idle nor waiting, without what the host took.
fn of_machine() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("an empty /proc/stat")?;
    let fields: Result<Vec<u64>, _> = line.split_whitespace().skip(1).map(str::parse).collect();
    let fields = fields?;
    let busy: u64 = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|at| fields.get(*at))
        .sum();
    Ok(busy as f64 / TICKS_PER_SECOND)
}

/// What to say of the machine beside its figures.
pub fn description() -> anyhow::Result<Value> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':'));
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().next().and_then(|line| line.split_once(':'));
    Ok(json!({
        "cores": std::thread::available_parallelism()?.get(),
        "cpu": model.map(|(_, name)| name.trim()),
        "memory": memory.map(|(_, size)| size.trim()),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    }))
}
