//! Figures for people.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

const KIB: f64 = 1024.0;

/// Bytes with a unit, such as `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < KIB {
            let places = usize::from(unit != "B");
            return format!("{value:.places$} {unit}");
        }
        value /= KIB;
    }
    format!("{value:.1} TiB")
}

/// A length of time in its two leading units at most.
pub fn span(span: Duration) -> String {
    let (millis, seconds) = (span.as_millis(), span.as_secs());
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A short length of time with three figures.
pub fn precise(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        ..999.5 => return format!("{micros:.0} µs"),
        ..999_500.0 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let places = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.places$} {unit}")
}

/// How long ago an instant was; `-` when there was none or its clock is ahead of ours.
pub fn since(instant: Option<Timestamp>) -> String {
    elapsed(instant).map_or_else(|| "-".to_owned(), span)
}

fn elapsed(instant: Option<Timestamp>) -> Option<Duration> {
    let then = SystemTime::try_from(instant?).ok()?;
    SystemTime::now().duration_since(then).ok()
}

/// An instant for programs, in RFC 3339; `null` when there was none.
pub fn instant(instant: Option<Timestamp>) -> serde_json::Value {
    instant.map_or(serde_json::Value::Null, |instant| {
        instant.to_string().into()
    })
}

/// One of something, or several.
pub fn counted(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{} {one}s", grouped(number)),
    }
}

/// A number with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_fitting_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(span(Duration::from_millis(12)), "12 ms");
        assert_eq!(span(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(span(Duration::from_secs(3_700)), "1 h 1 min");
        for (micros, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (9_994, "9.99 ms"),
            (12_345, "12.3 ms"),
            (120_000, "120 ms"),
            (999_600, "1.00 s"),
            (61_000_000, "61.0 s"),
        ] {
            assert_eq!(precise(Duration::from_micros(micros)), text);
        }
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "like"), "1 like");
        assert_eq!(counted(2_000, "like"), "2,000 likes");
    }
}
