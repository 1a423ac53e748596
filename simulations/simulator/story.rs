//! What happened, in words and simulated time; and what nodes say of themselves.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::history::Recorder;

/// The span in which turmoil runs a machine.
const MACHINE_SPAN: &str = "node";
/// Said of a snapshot that no honest peer sends; nobody forges them here.
const BAD_PART: &str = "the peer sent a bad part";
/// Longer stories are not read.
const LINES_MAX: usize = 2_000;

#[derive(Debug, Default)]
pub struct Story {
    pub lines: Vec<(Duration, String)>,
    /// What each node said already: a warning is told once.
    said: BTreeSet<(String, String)>,
}

impl Story {
    pub fn tell(&mut self, at: Duration, line: String) {
        match self.lines.len() {
            len if len < LINES_MAX => self.lines.push((at, line)),
            LINES_MAX => self
                .lines
                .push((at, "… and more, which is not told".to_owned())),
            _ => {}
        }
    }

    fn tell_once(&mut self, at: Duration, node: &str, message: &str, details: &str) {
        if self.said.insert((node.to_owned(), message.to_owned())) {
            self.tell(at, format!("{node} says: {message}{details}"));
        }
    }
}

/// A moment as the story shows it.
pub fn clock(at: Duration) -> String {
    format!("{:>8.3}s", at.as_secs_f64())
}

/// Hears what nodes say through `tracing`.
pub struct Listener(pub Recorder);

/// The name of the machine whose span it is.
struct Machine(String);

#[derive(Default)]
struct Said {
    message: String,
    details: String,
    name: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "name" => self.name = format!("{value:?}").trim_matches('"').to_owned(),
            name if name.starts_with("log.") => {}
            name => self.details.push_str(&format!(" {name}={value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.name() == MACHINE_SPAN || metadata.target().starts_with("likewise")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() != MACHINE_SPAN {
            return;
        }
        let mut said = Said::default();
        attributes.record(&mut said);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Machine(said.name));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut said = Said::default();
        event.record(&mut said);
        let node = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| {
                span.extensions()
                    .get::<Machine>()
                    .map(|machine| machine.0.clone())
            })
        });
        let node = node.unwrap_or_default();
        let now = self.0.now();
        let mut inner = self.0.lock();
        if said.details.contains(BAD_PART) {
            let problem = format!(
                "{node} was sent a snapshot against the rules:{}",
                said.details
            );
            inner.failures.push(problem);
        }
        *inner.said.entry(said.message.clone()).or_default() += 1;
        if *metadata.level() <= Level::WARN {
            inner
                .story
                .tell_once(now, &node, &said.message, &said.details);
        }
    }
}
