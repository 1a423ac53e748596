//! Log lines: where they go, and whose they are. Each carries the region and the epoch of the node that
//! wrote it, once they are known, so that lines of several nodes can be read together.

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, Logging};
use crate::ids::Replica;

static NODE: OnceLock<Replica> = OnceLock::new();

/// Starts logging for this process, to the standard error stream; a second call is refused.
pub fn init(logging: &Logging) -> anyhow::Result<()> {
    // A peer's message makes chitchat write up to hundreds of lines. What matters is said by this crate.
    let quiet = format!("chitchat=error,{}", logging.level);
    let filter = EnvFilter::builder()
        .parse(quiet)
        .with_context(|| format!("logging.level = {:?}", logging.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match logging.format {
        LogFormat::Human => lines.event_format(ForPeople::default()).try_init(),
        LogFormat::Json => lines.event_format(ForPrograms).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging is started already: {error}"))
}

/// From here on each line names this replica. The first call counts: a process is one node.
pub fn name_node(replica: &Replica) {
    NODE.get_or_init(|| replica.clone());
}

/// A line of text behind the node's name.
#[derive(Default)]
struct ForPeople {
    rest: Format<Full>,
}

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if let Some(node) = NODE.get() {
            write!(writer, "{node} ")?;
        }
        self.rest.format_event(context, writer, event)
    }
}

/// One JSON object a line.
struct ForPrograms;

impl<S, N> FormatEvent<S, N> for ForPrograms
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(writer, "{}", line(event, fields.0, NODE.get()))
    }
}

fn line(event: &Event<'_>, fields: Map<String, Value>, node: Option<&Replica>) -> Value {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let time_ms = since.unwrap_or(Duration::ZERO).as_millis() as u64;
    let mut line = Map::new();
    line.insert("time_ms".to_owned(), time_ms.into());
    line.insert("level".to_owned(), event.metadata().level().as_str().into());
    line.insert("target".to_owned(), event.metadata().target().into());
    if let Some(node) = node {
        line.insert("region".to_owned(), node.region.as_str().into());
        line.insert("epoch".to_owned(), node.epoch.to_string().into());
    }
    line.extend(fields);
    Value::Object(line)
}

/// The fields of an event as JSON values.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}
