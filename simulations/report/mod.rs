//! The report: one page that needs no network, for people who did not write the scenario.

mod plot;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::cli::again;
use crate::simulator::story::clock;
use crate::simulator::summary::RunReport;
use crate::sweep::Swept;
use plot::{Band, Plot, Series, escape, histogram};

const STYLE: &str = include_str!("page.css");
/// Lines of one plot.
const LINES_MAX: usize = 10;
/// Bad runs whose stories are on the page of a sweep.
const STORIES_MAX: usize = 5;

/// Where a report goes. Whether it can be written is known before anything is run.
pub struct Folder(PathBuf);

impl Folder {
    pub fn prepare(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("the report's folder {} cannot be written", path.display());
        std::fs::create_dir_all(path).with_context(cannot)?;
        let unfinished = path.join("index.html.unfinished");
        std::fs::write(&unfinished, "").with_context(cannot)?;
        std::fs::remove_file(&unfinished).with_context(cannot)?;
        Ok(Self(path.to_owned()))
    }

    /// The page is there wholly or not at all.
    fn write(&self, page: &str) -> anyhow::Result<()> {
        let unfinished = self.0.join("index.html.unfinished");
        let path = self.0.join("index.html");
        std::fs::write(&unfinished, page)
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .with_context(|| format!("writing {}", path.display()))?;
        println!("report: {}", path.display());
        Ok(())
    }

    pub fn of_run(&self, file: &Path, report: &RunReport) -> anyhow::Result<()> {
        let mut page = begin(&report.title);
        let _ = write!(
            page,
            "<p class=\"under\">Seed {} · {} regions: {} · again: <code>{}</code></p>",
            report.seed,
            report.regions.len(),
            escape(&report.regions.join(", ")),
            escape(&again(file, report.seed))
        );
        let converged = match report.converged_after {
            Some(after) => format!("{:.2} s", after.as_secs_f64()),
            None => "never".to_owned(),
        };
        tiles(
            &mut page,
            &[
                (verdict_word(report.is_good()), "verdict".to_owned()),
                (
                    report.acknowledged.to_string(),
                    format!("of {} operations acknowledged", report.operations),
                ),
                (
                    report.unknown.to_string(),
                    "with an unknown outcome".to_owned(),
                ),
                (
                    converged,
                    "from the last heal until all were equal".to_owned(),
                ),
                (
                    report.likers.to_string(),
                    "likers in the end, in every region".to_owned(),
                ),
            ],
        );
        page.push_str("<h2>What happened</h2>");
        plots(&mut page, report);
        page.push_str("<h2>Verdicts</h2>");
        verdicts(&mut page, std::slice::from_ref(report));
        page.push_str("<h2>The story</h2>");
        story(&mut page, report);
        let _ = write!(
            page,
            "<p class=\"under\">trace hash: <code>{}</code></p>",
            report.hash
        );
        self.write(&page)
    }

    pub fn of_sweep(&self, file: &Path, swept: &Swept) -> anyhow::Result<()> {
        let reports = &swept.reports;
        let title = reports
            .first()
            .map_or("Nothing was run", |report| &report.title);
        let mut page = begin(title);
        let simulated: Duration = reports.iter().map(|report| report.simulated).sum();
        let operations: u64 = reports.iter().map(|report| report.operations).sum();
        let bad = reports.iter().filter(|report| !report.is_good()).count() + swept.broken.len();
        let _ = write!(
            page,
            "<p class=\"under\">{} seeds of {}</p>",
            reports.len(),
            escape(&file.display().to_string())
        );
        tiles(
            &mut page,
            &[
                (verdict_word(bad == 0), format!("{bad} bad runs")),
                (reports.len().to_string(), "seeds".to_owned()),
                (
                    format!("{:.1}", simulated.as_secs_f64() / 3_600.0),
                    "simulated hours".to_owned(),
                ),
                (operations.to_string(), "operations".to_owned()),
            ],
        );
        let times = reports.iter().filter_map(|report| report.converged_after);
        let times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
        page.push_str(&histogram(
            "From the last heal until all regions were equal",
            "s",
            &times,
        ));
        page.push_str("<h2>Verdicts</h2>");
        verdicts(&mut page, reports);
        page.push_str("<div class=\"two\"><div><h2>Faults</h2>");
        counts(
            &mut page,
            "fault",
            reports.iter().map(|report| &report.faults),
        );
        page.push_str("</div><div><h2>Reached</h2>");
        counts(
            &mut page,
            "what",
            reports.iter().map(|report| &report.reached),
        );
        page.push_str("</div></div>");
        let bad = reports.iter().filter(|report| !report.is_good());
        for report in bad.take(STORIES_MAX) {
            let _ = write!(
                page,
                "<h2 class=\"bad\">Seed {}</h2><p>again: <code>{}</code></p>",
                report.seed,
                escape(&again(file, report.seed))
            );
            plots(&mut page, report);
            verdicts(&mut page, std::slice::from_ref(report));
            story(&mut page, report);
        }
        self.write(&page)
    }
}

fn begin(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style><h1>{}</h1>",
        escape(title),
        escape(title)
    )
}

fn verdict_word(is_good: bool) -> String {
    match is_good {
        true => "<span class=\"good\">good</span>".to_owned(),
        false => "<span class=\"bad\">BAD</span>".to_owned(),
    }
}

/// Figures with what they mean; both are ours and hold no foreign text.
fn tiles(page: &mut String, tiles: &[(String, String)]) {
    page.push_str("<div class=\"tiles\">");
    for (figure, meaning) in tiles {
        let _ = write!(
            page,
            "<div class=\"tile\"><b>{figure}</b><span>{meaning}</span></div>"
        );
    }
    page.push_str("</div>");
}

fn plots(page: &mut String, report: &RunReport) {
    let seconds = report.simulated.as_secs_f64();
    let band = |(from, until, label): &(Duration, Duration, String)| Band {
        from: from.as_secs_f64(),
        to: until.as_secs_f64().min(seconds),
        label: label.clone(),
    };
    let cuts = report
        .spans
        .iter()
        .filter(|(_, _, label)| label.starts_with("cut"));
    let counts = Plot {
        title: "Likers over all posts, as each node sees them; cuts are shaded",
        unit: "likers",
        series: series(
            report
                .samples
                .iter()
                .map(|(at, machine, count)| (*machine, *at, *count)),
            |machine| report.machines[*machine].clone(),
        ),
        bands: cuts.map(band).collect(),
        seconds,
    };
    page.push_str(&counts.svg());
    let lags = report
        .lags
        .iter()
        .map(|(at, from, to, events)| ((*from, *to), *at, *events));
    let lags = Plot {
        title: "What each node lacks of another one's region; the ten largest",
        unit: "events",
        series: series(lags, |(from, to)| {
            format!("{} ← {}", report.machines[*from], report.machines[*to])
        }),
        bands: report
            .spans
            .iter()
            .filter(|(_, _, label)| label.starts_with("cut"))
            .map(band)
            .collect(),
        seconds,
    };
    page.push_str(&lags.svg());
    let rows = Plot {
        title: "Faults",
        unit: "",
        series: Vec::new(),
        bands: report.spans.iter().map(band).collect(),
        seconds,
    };
    if !rows.bands.is_empty() {
        page.push_str(&rows.rows());
    }
}

/// Lines by what they are of: those that rise highest, where there are many.
fn series<K: Ord + Copy>(
    samples: impl Iterator<Item = (K, Duration, u64)>,
    name: impl Fn(&K) -> String,
) -> Vec<Series> {
    let mut lines: BTreeMap<K, Vec<(f64, f64)>> = BTreeMap::new();
    for (key, at, value) in samples {
        lines
            .entry(key)
            .or_default()
            .push((at.as_secs_f64(), value as f64));
    }
    let height = |points: &[(f64, f64)]| points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut highest: Vec<(f64, K)> = lines
        .iter()
        .map(|(key, points)| (height(points), *key))
        .collect();
    highest.sort_by(|a, b| b.0.total_cmp(&a.0));
    let shown: BTreeSet<K> = highest
        .into_iter()
        .take(LINES_MAX)
        .map(|(_, key)| key)
        .collect();
    lines
        .into_iter()
        .filter(|(key, _)| shown.contains(key))
        .map(|(key, points)| Series {
            name: name(&key),
            points,
        })
        .collect()
}

fn verdicts(page: &mut String, reports: &[RunReport]) {
    let mut checkers: BTreeMap<&str, (u64, u64, Vec<&str>)> = BTreeMap::new();
    for verdict in reports.iter().flat_map(|report| &report.verdicts) {
        let (checks, bad, problems) = checkers.entry(&verdict.checker).or_default();
        *checks += verdict.checks;
        *bad += u64::from(!verdict.is_good());
        problems.extend(verdict.problems.iter().take(3).map(String::as_str));
    }
    page.push_str("<table><tr><th>checker<th class=\"n\">checks<th>verdict");
    for (checker, (checks, bad, problems)) in checkers {
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"n\">{checks}<td>{}",
            escape(checker),
            verdict_word(bad == 0)
        );
        for problem in problems.iter().take(3) {
            let _ = write!(page, "<br>{}", escape(problem));
        }
    }
    page.push_str("</table>");
}

fn counts<'a>(
    page: &mut String,
    what: &str,
    counts: impl Iterator<Item = &'a BTreeMap<String, u64>>,
) {
    let mut all: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (name, count) in counts.flatten() {
        let (times, runs) = all.entry(name).or_default();
        *times += count;
        *runs += u64::from(*count > 0);
    }
    let _ = write!(
        page,
        "<table><tr><th>{what}<th class=\"n\">times<th class=\"n\">in runs"
    );
    for (name, (times, runs)) in all {
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"n\">{times}<td class=\"n\">{runs}",
            escape(name)
        );
    }
    page.push_str("</table>");
}

fn story(page: &mut String, report: &RunReport) {
    page.push_str("<pre>");
    for (at, line) in &report.story {
        let _ = writeln!(page, "{}  {}", clock(*at), escape(line));
    }
    page.push_str("</pre>");
}
