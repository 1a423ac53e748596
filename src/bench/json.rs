//! What a run has shown, for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::check::Wrong;
use super::latency::Percentiles;
use super::queues::Depth;
use super::report::{PhaseReport, Report, Times};

impl Report {
    /// The report as one value.
    pub fn json(&self) -> Value {
        let settings = &self.settings;
        let phases: Vec<Value> = self.phases.iter().map(PhaseReport::json).collect();
        let wrong: Vec<Value> = self.accuracy.wrong.iter().map(wrong_json).collect();
        json!({
            "bench": settings.kind.word(), "regions": self.regions, "name": self.name,
            "interrupted": self.interrupted,
            "posts": settings.posts, "zipf": settings.zipf, "users": settings.users,
            "clients": settings.clients, "batch": settings.batch, "in_flight": settings.in_flight,
            "unary": settings.unary, "rate": settings.rate, "dup_ratio": settings.dup_ratio,
            "duration_s": settings.duration.as_secs_f64(), "seed": settings.seed,
            "phases": phases,
            "accuracy": {
                "exact": self.is_accurate(), "posts": self.accuracy.posts,
                "likes": self.accuracy.likes, "posts_with_unknown": self.accuracy.inexact,
                "settled_after_ms": millis(self.accuracy.settled_after), "wrong": wrong,
            },
        })
    }
}

impl PhaseReport {
    fn json(&self) -> Value {
        json!({
            "phase": self.name, "seconds": self.elapsed.as_secs_f64(),
            "likes": self.acknowledged(), "likes_per_second": self.rate(self.acknowledged()),
            "liked": self.liked, "liked_again": self.liked_again,
            "repeated_share": self.repeated(), "repeats_sent": self.repeats_sent,
            "refused": self.refused, "unknown": self.unknown, "never_sent": self.never_sent,
            "reads": self.reads, "reads_per_second": self.rate(self.reads),
            "reads_failed": self.reads_failed, "streams_broken": self.streams_broken,
            "trouble": self.trouble,
            "queues": {
                "under_way": depth_json(&self.depths.under_way),
                "late": depth_json(&self.depths.late),
                "peers_behind": depth_json(&self.depths.behind),
                "lag_ms": depth_json(&self.depths.lag_ms),
            },
            "like_times": self.like_times.as_ref().map(Times::json),
            "read_times": self.read_times.as_ref().map(Times::json),
        })
    }
}

impl Times {
    fn json(&self) -> Value {
        let found = self.percentiles();
        let at = |of: fn(&Percentiles) -> Duration| found.map(|found| millis(of(&found)));
        json!({
            "timed": self.word(), "samples": found.map_or(0, |found| found.samples),
            "p50_ms": at(|found| found.p50), "p90_ms": at(|found| found.p90),
            "p99_ms": at(|found| found.p99), "p99_9_ms": at(|found| found.p999),
            "max_ms": at(|found| found.max),
        })
    }
}

fn depth_json(depth: &Depth) -> Value {
    let mean = depth.mean();
    json!({ "mean": mean, "max": mean.map(|_| depth.max) })
}

fn wrong_json(wrong: &Wrong) -> Value {
    json!({
        "region": wrong.region, "post": wrong.post, "count": wrong.count,
        "expected_least": wrong.expected.least, "expected_most": wrong.expected.most,
    })
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
