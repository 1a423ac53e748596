//! Figures of all rounds → medians, as a table and as JSON.

use std::io::Write;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::measure::machine::{Took, description};

/// One measurement of one round.
pub struct Measured {
    /// Items a second.
    pub rate: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU time of the node for an item.
    pub server_us: Option<f64>,
    pub client_us: f64,
    /// CPUs that others kept busy.
    pub others: f64,
}

impl Measured {
    pub fn new(items: u64, latency: Histogram<u64>, took: Took) -> anyhow::Result<Self> {
        anyhow::ensure!(items > 0, "nothing was measured");
        let (items, seconds) = (items as f64, took.wall.as_secs_f64());
        Ok(Self {
            rate: items / seconds,
            p50_us: latency.value_at_quantile(0.5) as f64,
            p99_us: latency.value_at_quantile(0.99) as f64,
            server_us: took.server.map(|used| used * 1e6 / items),
            client_us: took.client * 1e6 / items,
            others: took.others / seconds,
        })
    }
}

/// All measurements by name, in the order in which they were first made.
pub struct Report {
    only: String,
    rows: Vec<(&'static str, Vec<Measured>)>,
}

impl Report {
    pub fn new(only: String) -> Self {
        let rows = Vec::new();
        Self { only, rows }
    }

    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    pub fn add(&mut self, name: &'static str, measured: Measured) {
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rounds)) => rounds.push(measured),
            None => self.rows.push((name, vec![measured])),
        }
    }

    pub fn print(&self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(out, "{}", description()?)?;
        writeln!(
            out,
            "{:24} {:>10} {:>21} {:>9} {:>9} {:>9} {:>9} {:>7}",
            "medians",
            "rate/s",
            "lowest..highest",
            "p50 µs",
            "p99 µs",
            "node µs",
            "client µs",
            "others"
        )?;
        for (name, rounds) in &self.rows {
            let rates = sorted(rounds, |round| round.rate);
            let range = format!("{:.0}..{:.0}", rates[0], rates[rates.len() - 1]);
            let node = rounds[0].server_us.is_some();
            let node = node.then(|| median(rounds, |round| round.server_us.unwrap_or(0.0)));
            writeln!(
                out,
                "{:24} {:>10.0} {:>21} {:>9.0} {:>9.0} {:>9} {:>9.2} {:>7.2}",
                name,
                median(rounds, |round| round.rate),
                range,
                median(rounds, |round| round.p50_us),
                median(rounds, |round| round.p99_us),
                node.map_or("-".to_owned(), |used| format!("{used:.2}")),
                median(rounds, |round| round.client_us),
                median(rounds, |round| round.others),
            )?;
        }
        Ok(())
    }

    pub fn json(&self) -> anyhow::Result<String> {
        let rows = self.rows.iter().map(|(name, rounds)| {
            let rounds: Vec<Value> = rounds.iter().map(round_json).collect();
            json!({ "name": name, "rounds": rounds })
        });
        let rows: Vec<Value> = rows.collect();
        let all = json!({ "machine": description()?, "measurements": rows });
        Ok(serde_json::to_string_pretty(&all)?)
    }
}

fn round_json(round: &Measured) -> Value {
    json!({
        "rate": round.rate,
        "p50_us": round.p50_us,
        "p99_us": round.p99_us,
        "server_cpu_us": round.server_us,
        "client_cpu_us": round.client_us,
        "cpus_busy_for_others": round.others,
    })
}

fn sorted(rounds: &[Measured], figure: impl Fn(&Measured) -> f64) -> Vec<f64> {
    let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// Of an even number of rounds the upper of the two in the middle.
fn median(rounds: &[Measured], figure: impl Fn(&Measured) -> f64) -> f64 {
    let figures = sorted(rounds, figure);
    figures[figures.len() / 2]
}
