//! Plots as inline SVG.

use std::fmt::Write as _;

/// A line of a plot: its name, and its points.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A span of time, shaded.
pub struct Band {
    pub from: f64,
    pub to: f64,
    pub label: String,
}

/// What a plot shows, over seconds.
pub struct Plot<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub series: Vec<Series>,
    pub bands: Vec<Band>,
    pub seconds: f64,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
/// Room for the names at the ends of the lines.
const RIGHT: f64 = 110.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;
const ROW: f64 = 20.0;
/// Lines whose ends are nearer than this have their names moved apart.
const NAME_HEIGHT: f64 = 14.0;
/// Told apart with any kind of colour vision (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c8c00",
];

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Some 5 to 8 round steps up to a value.
fn step(most: f64) -> f64 {
    let rough = (most / 6.0).max(f64::MIN_POSITIVE);
    let magnitude = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = steps.into_iter().find(|step| step * magnitude >= rough);
    found.unwrap_or(10.0) * magnitude
}

impl Plot<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.seconds.max(1e-9) * (WIDTH - LEFT - RIGHT)
    }

    /// The seconds beneath a plot.
    fn write_seconds(&self, svg: &mut String, y: f64) {
        let every = step(self.seconds);
        let mut tick = 0.0;
        while tick <= self.seconds + 1e-9 {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{} s</text>",
                self.x(tick),
                trimmed(tick)
            );
            tick += every;
        }
    }

    /// The plot, with a figure's caption.
    pub fn svg(&self) -> String {
        let values = self.series.iter().flat_map(|series| &series.points);
        let most = values.map(|(_, y)| *y).fold(1.0, f64::max);
        let y_step = step(most).max(if most >= 5.0 { 1.0 } else { 0.0 });
        let top = (most / y_step).ceil() * y_step;
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
        let mut svg = begin(self.title, HEIGHT);
        for band in &self.bands {
            let (from, to) = (self.x(band.from), self.x(band.to));
            let _ = write!(
                svg,
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                (to - from).max(1.0),
                HEIGHT - TOP - BOTTOM,
                escape(&band.label)
            );
        }
        let mut tick = 0.0;
        while tick <= top + y_step / 2.0 {
            let at = y(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                trimmed(tick)
            );
            tick += y_step;
        }
        self.write_seconds(&mut svg, HEIGHT - BOTTOM + 18.0);
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"14\" y=\"{:.1}\" transform=\"rotate(-90 14 {:.1})\" text-anchor=\"middle\">{}</text>",
            HEIGHT / 2.0,
            HEIGHT / 2.0,
            escape(self.unit)
        );
        let mut ends = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let mut path = String::new();
            for (seconds, value) in &series.points {
                let letter = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", self.x(*seconds), y(*value));
            }
            let _ = write!(
                svg,
                "<path class=\"line\" stroke=\"{colour}\" d=\"{path}\"><title>{}</title></path>",
                escape(&series.name)
            );
            if let Some((seconds, value)) = series.points.last() {
                ends.push((y(*value), self.x(*seconds), colour, &series.name));
            }
        }
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (at, (_, x, colour, name)) in apart(&ends).into_iter().zip(&ends) {
            let _ = write!(
                svg,
                "<text class=\"name\" fill=\"{colour}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 6.0,
                at + 4.0,
                escape(name)
            );
        }
        svg.push_str("</svg></figure>");
        svg
    }

    /// The bands alone, a row each, over the same time.
    pub fn rows(&self) -> String {
        let height = ROW * self.bands.len() as f64 + BOTTOM;
        let mut svg = begin(self.title, height);
        for (row, band) in self.bands.iter().enumerate() {
            let top = row as f64 * ROW;
            let (from, to) = (self.x(band.from), self.x(band.to));
            // On the side where there is room for it.
            let (at, anchor) = match from > WIDTH * 0.55 {
                true => (from - 6.0, "end"),
                false => (to.max(from + 3.0) + 6.0, "start"),
            };
            let _ = write!(
                svg,
                "<rect class=\"fault\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/><text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                top + 3.0,
                (to - from).max(3.0),
                ROW - 6.0,
                top + ROW / 2.0 + 4.0,
                escape(&band.label)
            );
        }
        self.write_seconds(&mut svg, height - 8.0);
        svg.push_str("</svg></figure>");
        svg
    }
}

/// Where names stand, from the top: near their lines' ends, none over another, none below the axis.
fn apart(ends: &[(f64, f64, &str, &String)]) -> Vec<f64> {
    let mut places = Vec::new();
    let mut lowest = f64::MIN;
    for (at, ..) in ends {
        lowest = at.max(lowest + NAME_HEIGHT);
        places.push(lowest);
    }
    let mut highest = HEIGHT - BOTTOM;
    for place in places.iter_mut().rev() {
        *place = place.min(highest);
        highest = *place - NAME_HEIGHT;
    }
    places
}

/// A figure with its caption, so high.
fn begin(title: &str, height: f64) -> String {
    let title = escape(title);
    format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"
    )
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How many values fall into each of some equal parts, as bars.
pub fn histogram(title: &str, unit: &str, values: &[f64]) -> String {
    const BARS: usize = 40;
    let most = values.iter().copied().fold(0.0, f64::max).max(1e-9);
    let width = step(most) / 5.0;
    let bars = ((most / width).floor() as usize + 1).clamp(1, BARS * 2);
    let mut counts = vec![0usize; bars];
    for value in values {
        counts[((value / width) as usize).min(bars - 1)] += 1;
    }
    let highest = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let bar = (WIDTH - LEFT - RIGHT) / bars as f64;
    let mut svg = begin(title, HEIGHT);
    for (index, count) in counts.iter().enumerate() {
        let height = *count as f64 / highest * (HEIGHT - TOP - BOTTOM - 16.0);
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{} to {} {unit}: {count} runs</title></rect>",
            LEFT + index as f64 * bar,
            HEIGHT - BOTTOM - height,
            (bar - 1.0).max(1.0),
            trimmed(index as f64 * width),
            trimmed((index + 1) as f64 * width)
        );
    }
    let tick_every = (bars / 8).max(1);
    for index in (0..=bars).step_by(tick_every) {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} {unit}</text>",
            LEFT + index as f64 * bar,
            HEIGHT - BOTTOM + 18.0,
            trimmed(index as f64 * width)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{LEFT}\" y=\"{TOP}\">at most {highest} runs in one bar</text></svg></figure>"
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for (most, wanted) in [
            (10.0, 2.0),
            (60.0, 10.0),
            (7.0, 2.0),
            (1234.0, 500.0),
            (0.6, 0.1),
        ] {
            assert!((step(most) - wanted).abs() < 1e-9, "{most}: {}", step(most));
        }
    }

    #[test]
    fn names_stand_apart_and_within_the_plot() {
        let name = "x".to_owned();
        let ends: Vec<(f64, f64, &str, &String)> =
            (0..12).map(|_| (HEIGHT - BOTTOM, 0.0, "", &name)).collect();
        let places = apart(&ends);
        assert!(places.is_sorted_by(|a, b| b - a >= NAME_HEIGHT - 1e-9));
        assert!(
            places
                .iter()
                .all(|place| (0.0..=HEIGHT - BOTTOM).contains(place))
        );
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("<a \"b\" & c>"), "&lt;a &quot;b&quot; &amp; c&gt;");
    }
}
