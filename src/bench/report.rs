//! What a run has shown, and how it looks to people.

use std::time::Duration;

use super::check::Accuracy;
use super::latency::Percentiles;
use super::queues::{Depth, Depths};
use super::settings::Settings;
use crate::display::figures::{counted, grouped, precise, span};
use crate::display::table::{Align, Table};

/// Counts that are wrong and told one by one; the others are counted.
const WRONG_TOLD: usize = 5;

/// A run and what came of it.
pub struct Report {
    pub settings: Settings,
    /// Of the nodes that were asked.
    pub regions: Vec<String>,
    /// What the posts' names begin with.
    pub name: String,
    pub interrupted: bool,
    pub phases: Vec<PhaseReport>,
    pub accuracy: Accuracy,
}

/// A phase and its figures.
#[derive(Default)]
pub struct PhaseReport {
    pub name: &'static str,
    /// Until the last answer.
    pub elapsed: Duration,
    pub liked: u64,
    pub liked_again: u64,
    pub repeats_sent: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Likes that were due and never sent.
    pub never_sent: u64,
    pub reads: u64,
    pub reads_failed: u64,
    pub streams_broken: u64,
    /// What first went wrong.
    pub trouble: Option<String>,
    pub depths: Depths,
    pub like_times: Option<Times>,
    pub read_times: Option<Times>,
}

/// How long answers took; none where there were none.
#[derive(Debug, Clone, Copy)]
pub enum Times {
    /// From when the request was due, by the rate.
    SinceDue(Option<Percentiles>),
    /// From when it was sent, with those added that a stall held up.
    Corrected(Option<Percentiles>),
}

impl Report {
    /// Whether every count was what it had to be.
    pub fn is_accurate(&self) -> bool {
        self.accuracy.wrong.is_empty()
    }

    /// The report as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.headline(), String::new()];
        lines.extend(self.phase_table().lines());
        for table in [self.queue_table(), self.time_table()] {
            lines.push(String::new());
            lines.extend(table.lines());
        }
        lines.push(String::new());
        for phase in &self.phases {
            lines.extend(phase.remark());
        }
        if self.interrupted {
            lines.push("interrupted; the figures are of what was done until then".to_owned());
        }
        lines.extend(self.verdict());
        lines
    }

    fn headline(&self) -> String {
        let settings = &self.settings;
        let sent = match (settings.unary, settings.batch) {
            (true, _) => "one like a call".to_owned(),
            (false, batch) => format!("batches of {}", grouped(batch as u64)),
        };
        format!(
            "{} at {}: {}, {sent}; {} named {}-…, Zipf {}; {}",
            settings.kind.word(),
            self.regions.join(", "),
            counted(settings.clients as u64, "client"),
            counted(settings.posts.into(), "post"),
            self.name,
            settings.zipf,
            counted(settings.users.into(), "user"),
        )
    }

    fn phase_table(&self) -> Table {
        let mut table = Table::new([
            ("PHASE", Align::Left),
            ("SECONDS", Align::Right),
            ("LIKES/S", Align::Right),
            ("LIKES", Align::Right),
            ("REPEATED", Align::Right),
            ("REFUSED", Align::Right),
            ("UNKNOWN", Align::Right),
            ("NEVER SENT", Align::Right),
            ("READS/S", Align::Right),
        ]);
        for phase in &self.phases {
            let likes = phase.like_times.is_some();
            let figure = |figure: u64| told(likes.then_some(figure));
            table.row([
                phase.name.to_owned(),
                format!("{:.1}", phase.elapsed.as_secs_f64()),
                figure(phase.rate(phase.acknowledged())),
                figure(phase.acknowledged()),
                phase
                    .repeated()
                    .map_or_else(dash, |share| format!("{:.1} %", share * 100.0)),
                figure(phase.refused),
                figure(phase.unknown),
                figure(phase.never_sent),
                told(phase.read_times.map(|_| phase.rate(phase.reads))),
            ]);
        }
        table
    }

    fn queue_table(&self) -> Table {
        let mut table = Table::new([
            ("QUEUES", Align::Left),
            ("UNDER WAY", Align::Right),
            ("MOST", Align::Right),
            ("LATE", Align::Right),
            ("MOST", Align::Right),
            ("PEERS BEHIND", Align::Right),
            ("MOST", Align::Right),
            ("LAG", Align::Right),
            ("MOST", Align::Right),
        ]);
        let most = |depth: &Depth| told(depth.mean().map(|_| depth.max));
        let lag = |lag: Option<u64>| lag.map_or_else(dash, |ms| span(Duration::from_millis(ms)));
        for phase in &self.phases {
            let Depths {
                under_way,
                late,
                behind,
                lag_ms,
            } = &phase.depths;
            table.row([
                phase.name.to_owned(),
                told(under_way.mean()),
                most(under_way),
                told(late.mean()),
                most(late),
                told(behind.mean()),
                most(behind),
                lag(lag_ms.mean()),
                lag(lag_ms.mean().map(|_| lag_ms.max)),
            ]);
        }
        table
    }

    fn time_table(&self) -> Table {
        let mut table = Table::new([
            ("ANSWERS", Align::Left),
            ("TO", Align::Left),
            ("TIMED", Align::Left),
            ("SAMPLES", Align::Right),
            ("P50", Align::Right),
            ("P90", Align::Right),
            ("P99", Align::Right),
            ("P99.9", Align::Right),
            ("LONGEST", Align::Right),
        ]);
        for phase in &self.phases {
            for (what, times) in [("likes", phase.like_times), ("reads", phase.read_times)] {
                let Some(times) = times else { continue };
                let at = |of: fn(&Percentiles) -> Duration| {
                    let found = times.percentiles();
                    found.map_or_else(dash, |found| precise(of(&found)))
                };
                table.row([
                    phase.name.to_owned(),
                    what.to_owned(),
                    times.word().to_owned(),
                    told(times.percentiles().map(|found| found.samples)),
                    at(|found| found.p50),
                    at(|found| found.p90),
                    at(|found| found.p99),
                    at(|found| found.p999),
                    at(|found| found.max),
                ]);
            }
        }
        table
    }

    fn verdict(&self) -> Vec<String> {
        let Accuracy {
            posts,
            likes,
            inexact,
            ref wrong,
            settled_after,
        } = self.accuracy;
        let nodes = match self.regions.len() {
            1 => "one node".to_owned(),
            nodes => format!(
                "each of {nodes} nodes, {} after the last answer",
                span(settled_after)
            ),
        };
        if wrong.is_empty() {
            let unknown = match inexact {
                0 => String::new(),
                inexact => format!(
                    " (as far as can be known: {} had likes of unknown outcome)",
                    counted(inexact, "post")
                ),
            };
            let (posts, likers) = (counted(posts, "post"), counted(likes, "liker"));
            return vec![format!("exact: {posts} with {likers} at {nodes}{unknown}")];
        }
        let mut lines = vec![format!(
            "WRONG: {} at {nodes}",
            counted(wrong.len() as u64, "count")
        )];
        lines.extend(wrong.iter().take(WRONG_TOLD).map(|wrong| {
            format!(
                "  {} at {}: {} in place of {}",
                wrong.post, wrong.region, wrong.count, wrong.expected
            )
        }));
        if wrong.len() > WRONG_TOLD {
            lines.push(format!("  and {} more", wrong.len() - WRONG_TOLD));
        }
        lines
    }
}

impl PhaseReport {
    pub(super) fn acknowledged(&self) -> u64 {
        self.liked + self.liked_again
    }

    pub(super) fn rate(&self, number: u64) -> u64 {
        let seconds = self.elapsed.as_secs_f64();
        match seconds > 0.0 {
            true => (number as f64 / seconds) as u64,
            false => 0,
        }
    }

    /// The share of likes that were answered as repeated.
    pub(super) fn repeated(&self) -> Option<f64> {
        let all = self.acknowledged();
        (all > 0).then(|| self.liked_again as f64 / all as f64)
    }

    fn remark(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let mut what = Vec::new();
        for (number, one) in [
            (self.refused, "like refused"),
            (self.unknown, "like of unknown outcome"),
            (self.reads_failed, "read failed"),
            (self.streams_broken, "stream broken"),
        ] {
            if number > 0 {
                what.push(format!("{one}: {}", grouped(number)));
            }
        }
        Some(format!(
            "{}: {}; first: {trouble}",
            self.name,
            what.join(", ")
        ))
    }
}

impl Times {
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        match self {
            Self::SinceDue(found) | Self::Corrected(found) => *found,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::SinceDue(_) => "since due",
            Self::Corrected(_) => "corrected",
        }
    }
}

fn told(figure: Option<u64>) -> String {
    figure.map_or_else(dash, grouped)
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::check::Wrong;
    use super::super::ledger::Expected;
    use super::super::settings::{Kind, Wanted};
    use super::*;

    fn report() -> Report {
        let found = Percentiles {
            samples: 10,
            p50: Duration::from_micros(420),
            p90: Duration::from_micros(1_500),
            p99: Duration::from_millis(12),
            p999: Duration::from_millis(120),
            max: Duration::from_millis(1_200),
        };
        Report {
            settings: Settings::new(Kind::Like, Wanted::default()).expect("sound"),
            regions: vec!["us".to_owned()],
            name: "t".to_owned(),
            interrupted: false,
            phases: vec![PhaseReport {
                name: "like",
                elapsed: Duration::from_secs(2),
                liked: 1_500,
                liked_again: 500,
                like_times: Some(Times::Corrected(Some(found))),
                ..PhaseReport::default()
            }],
            accuracy: Accuracy {
                posts: 3,
                likes: 1_500,
                ..Accuracy::default()
            },
        }
    }

    fn wrong(number: usize) -> Wrong {
        Wrong {
            region: "us".to_owned(),
            post: format!("t-{number}"),
            count: 8,
            expected: Expected { least: 7, most: 7 },
        }
    }

    #[test]
    fn an_exact_run_says_so_in_its_last_line() {
        let lines = report().lines();
        let row: Vec<&str> = lines[3].split_whitespace().collect();
        let expected = [
            "like", "2.0", "1,000", "2,000", "25.0", "%", "0", "0", "0", "-",
        ];
        assert_eq!(row, expected);
        let times = lines.iter().find(|line| line.contains("corrected"));
        let times: Vec<&str> = times.expect("times").split_whitespace().collect();
        assert_eq!(times[4..8], ["420", "µs", "1.50", "ms"]);
        assert_eq!(
            lines.last().unwrap(),
            "exact: 3 posts with 1,500 likers at one node"
        );
        assert_eq!(report().json()["accuracy"]["exact"], true);
    }

    #[test]
    fn wrong_counts_are_told() {
        let mut report = report();
        report.accuracy.wrong = (0..7).map(wrong).collect();
        assert!(!report.is_accurate());
        let lines = report.lines();
        let from = lines
            .iter()
            .position(|line| line == "WRONG: 7 counts at one node");
        let from = from.expect("told");
        assert_eq!(lines[from + 1], "  t-0 at us: 8 in place of 7");
        assert_eq!(lines.last().unwrap(), "  and 2 more");
        let json = report.json();
        assert_eq!(json["accuracy"]["exact"], false);
        assert_eq!(json["accuracy"]["wrong"][6]["expected_most"], 7);
    }

    #[test]
    fn trouble_is_told_with_how_often() {
        let mut report = report();
        report.phases[0].refused = 1_000;
        report.phases[0].trouble = Some("the node is full".to_owned());
        let lines = report.lines();
        let told = "like: like refused: 1,000; first: the node is full";
        assert!(lines.iter().any(|line| line == told), "{lines:?}");
    }

    #[test]
    fn a_phase_without_answers_has_no_shares_and_no_times() {
        let mut report = report();
        report.phases[0] = PhaseReport {
            name: "like",
            like_times: Some(Times::SinceDue(None)),
            ..PhaseReport::default()
        };
        let json = report.json();
        assert!(json["phases"][0]["repeated_share"].is_null());
        assert!(json["phases"][0]["like_times"]["p99_ms"].is_null());
        assert!(report.lines()[3].contains("-"));
    }
}
