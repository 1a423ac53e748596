//! How far something has come: one line that is drawn again and again on a terminal, plain lines elsewhere.
//!
//! It goes to the standard error stream: the standard output is for what comes of it.

use std::io::IsTerminal;
use std::time::Duration;

use super::output;

const REDRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR_WIDTH: usize = 24;

pub struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub fn on_stderr() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// How often there should be something new.
    pub fn every(&self) -> Duration {
        match self.is_terminal {
            true => REDRAW_EVERY,
            false => LINE_EVERY,
        }
    }

    /// Shows how much of the whole is done, from 0 to 1, with some words.
    pub fn show(&mut self, what: &str, done: f64, words: &str) {
        match self.is_terminal {
            true => output::aside(&format!("\r{what} {} {words}\x1b[K", bar(done))),
            false => output::complain(format!("{what} {}  {words}", percent(done))),
        }
    }

    /// Shows words alone.
    pub fn say(&mut self, words: &str) {
        match self.is_terminal {
            true => output::aside(&format!("\r{words}\x1b[K")),
            false => output::complain(words),
        }
    }

    /// Leaves a terminal as it was.
    pub fn close(self) {
        if self.is_terminal {
            output::aside("\r\x1b[K");
        }
    }
}

fn percent(done: f64) -> String {
    format!("{:3.0} %", done.clamp(0.0, 1.0) * 100.0)
}

fn bar(done: f64) -> String {
    let filled = (done.clamp(0.0, 1.0) * BAR_WIDTH as f64) as usize;
    let (full, empty) = ("█".repeat(filled), "░".repeat(BAR_WIDTH - filled));
    format!("{full}{empty} {}", percent(done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(bar(0.0), format!("{}   0 %", "░".repeat(24)));
        let half = format!("{}{}  50 %", "█".repeat(12), "░".repeat(12));
        assert_eq!(bar(0.5), half);
        let full = format!("{} 100 %", "█".repeat(24));
        assert_eq!((bar(1.0), bar(7.0)), (full.clone(), full));
        assert_eq!(bar(f64::NAN).chars().filter(|c| *c == '█').count(), 0);
    }
}
