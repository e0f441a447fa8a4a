//! Log lines. Text, for people who watch several services at once:
//!
//! ```text
//! 09:41:07.204  payment-service    charged               order=0198… event=order.created attempt=1
//! ```
//!
//! The second column is the field `service` of the nearest span that has one. Then the message, the event's own fields,
//! and the fields of the spans around it from the inside out, each name and each id once. Level and module are shown only where
//! they say something: the level from warnings up, the module below `info`. JSON has the same, flat.

#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::ParseError,
    layer::{Context, Filter},
    registry::LookupSpan,
};

use super::LogOutput;
use crate::config::LogFormat;

/// The span around everything a service does. It only carries the service's name and is no part of any trace.
pub(crate) const SERVICE_SPAN: &str = "service";

/// Filters events by what `RUST_LOG` says, and keeps the spans from `info` up even where their events are filtered out: a
/// warning without its order and service would help nobody.
pub(super) struct LogFilter {
    directives: EnvFilter,
    /// Libraries below us that are heard from warnings up, unless the directives name them.
    quiet: Vec<&'static str>,
}

const QUIET: &[&str] = &["sqlx", "rdkafka", "hyper", "reqwest", "h2", "tower", "opentelemetry"];

impl LogFilter {
    pub(super) fn new(directives: &str) -> Result<LogFilter, ParseError> {
        let quiet = QUIET.iter().copied().filter(|library| !directives.contains(library)).collect();
        Ok(LogFilter { directives: EnvFilter::try_new(directives)?, quiet })
    }

    fn is_noise(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() > Level::WARN && self.quiet.iter().any(|library| metadata.target().starts_with(library))
    }
}

impl<S> Filter<S> for LogFilter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        let lends_fields = metadata.is_span() && *metadata.level() <= Level::INFO;
        !self.is_noise(metadata) && (lends_fields || Filter::enabled(&self.directives, metadata, context))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        Filter::on_new_span(&self.directives, attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.directives, id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_enter(&self.directives, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_exit(&self.directives, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        Filter::on_close(&self.directives, id, context);
    }
}

/// Writes a line an event.
pub(super) struct Lines<W = Output> {
    format: LogFormat,
    /// The services seen so far, where lines are coloured: a service's colour is its position.
    colours: Option<Mutex<Vec<String>>>,
    write: W,
    now: fn() -> Timestamp,
}

/// Where lines go: whole ones, so that two threads never mix theirs.
pub(super) trait WriteLine: Send + Sync + 'static {
    fn write_line(&self, line: &str);
}

/// Standard output or standard error.
pub(super) struct Output(LogOutput);

impl WriteLine for Output {
    fn write_line(&self, line: &str) {
        // Nobody is left to tell when the log cannot be written.
        match self.0 {
            LogOutput::Stderr => std::io::stderr().lock().write_all(line.as_bytes()).ok(),
            LogOutput::Stdout => std::io::stdout().lock().write_all(line.as_bytes()).ok(),
        };
    }
}

impl Lines {
    pub(super) fn new(format: LogFormat, output: LogOutput, colour: bool) -> Lines {
        Lines { format, colours: colour.then(Mutex::default), write: Output(output), now: Timestamp::now }
    }
}

/// The fields of a span, as they were recorded.
#[derive(Default)]
struct Fields {
    message: Option<String>,
    named: Vec<(&'static str, Value)>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match name {
            "message" => self.message = Some(plain(&value)),
            // Instructions for the trace exporter, not for readers.
            _ if name.starts_with("otel.") => {}
            _ => match self.named.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.named.push((name, value)),
            },
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, crate::error::Chain(value).to_string().into());
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: WriteLine,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.named {
                    if !fields.named.iter().any(|(known, _)| known == name) {
                        fields.named.push((name, value.clone()));
                    }
                }
            }
        }
        let line = match self.format {
            LogFormat::Text => self.text(event.metadata(), fields),
            LogFormat::Json => self.json(event.metadata(), fields),
        };
        self.write.write_line(&line);
    }
}

/// Of a UUID as text.
const ID_LENGTH: usize = 36;
const DIM: &str = "\x1b[2m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";
/// Cyan, magenta, green, blue, and the bright ones of them: red and yellow mean trouble.
const PALETTE: [&str; 8] =
    ["\x1b[36m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[96m", "\x1b[95m", "\x1b[92m", "\x1b[94m"];

impl<W> Lines<W> {
    fn text(&self, metadata: &Metadata<'_>, mut fields: Fields) -> String {
        let service = take(&mut fields, "service").unwrap_or_default();
        let message = one_line(fields.message.take().unwrap_or_default());
        let mut line = String::with_capacity(160);
        let time = (self.now)().strftime("%H:%M:%S%.3f").to_string();
        self.push(&mut line, DIM, &time);
        line.push_str("  ");
        let colour = self.colour(&service);
        self.push(&mut line, colour, &format!("{service:<17}"));
        line.push_str("  ");
        let level = *metadata.level();
        match level {
            Level::ERROR => self.push(&mut line, RED, "ERROR "),
            Level::WARN => self.push(&mut line, YELLOW, "WARN  "),
            Level::INFO => {}
            below => self.push(&mut line, DIM, &format!("{below} {}: ", metadata.target())),
        }
        let width = if level <= Level::WARN { 16 } else { 22 };
        match fields.named.is_empty() {
            true => line.push_str(&message),
            false => write!(line, "{message:<width$}").expect("writing to a string cannot fail"),
        }
        let mut shown: Vec<String> = Vec::with_capacity(fields.named.len());
        for (name, value) in fields.named {
            let value = quoted(plain(&value));
            // An id under a second name (`order` of the event, `key` of the record) tells a reader nothing.
            let again = value.len() >= ID_LENGTH && shown.contains(&value);
            if !value.is_empty() && !again {
                line.push(' ');
                self.push(&mut line, DIM, &format!("{name}="));
                line.push_str(&value);
                shown.push(value);
            }
        }
        line.push('\n');
        line
    }

    fn json(&self, metadata: &Metadata<'_>, fields: Fields) -> String {
        let mut object = Map::new();
        object.insert("time".into(), (self.now)().to_string().into());
        object.insert("level".into(), metadata.level().as_str().to_ascii_lowercase().into());
        object.insert("message".into(), fields.message.unwrap_or_default().into());
        object.insert("target".into(), metadata.target().into());
        for (name, value) in fields.named {
            object.entry(name).or_insert(value);
        }
        let mut line = Value::Object(object).to_string();
        line.push('\n');
        line
    }

    fn push(&self, line: &mut String, colour: &str, text: &str) {
        match self.colours {
            Some(_) => line.extend([colour, text, RESET]),
            None => line.push_str(text),
        }
    }

    fn colour(&self, service: &str) -> &'static str {
        let Some(colours) = &self.colours else { return "" };
        let mut known = colours.lock().unwrap_or_else(PoisonError::into_inner);
        let position = known.iter().position(|name| name == service).unwrap_or_else(|| {
            known.push(service.to_owned());
            known.len() - 1
        });
        PALETTE[position % PALETTE.len()]
    }
}

fn take(fields: &mut Fields, name: &str) -> Option<String> {
    let position = fields.named.iter().position(|(known, _)| *known == name)?;
    Some(plain(&fields.named.remove(position).1))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A line break in a message would let what is logged forge lines of its own.
fn one_line(message: String) -> String {
    if message.contains(char::is_control) { message.escape_debug().to_string() } else { message }
}

/// In quotes where it would not read as one value; always one line.
fn quoted(value: String) -> String {
    let needs = value.contains(|character: char| character.is_whitespace() || character.is_control());
    if needs { format!("{value:?}") } else { value }
}
