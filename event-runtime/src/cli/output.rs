use std::{
    fmt::{self, Display},
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use super::exit;
use crate::error::Chain;

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// One document, indented
    Json,
    /// One JSON object a line
    Jsonl,
}

/// Writes data to stdout and notes to stderr.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
    colour: bool,
    stderr_colour: bool,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// It went well.
    Good,
    /// It went badly.
    Bad,
    /// It is under way, or wants attention.
    Open,
    /// It matters least.
    Dim,
    /// It matters most.
    Strong,
}

impl Output {
    /// Writes data as `format`.
    pub fn new(format: Format) -> Output {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output {
            format,
            colour: wanted && io::stdout().is_terminal(),
            stderr_colour: wanted && io::stderr().is_terminal(),
        }
    }

    /// How data is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether data is written for people.
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// One line on stdout, at once.
    ///
    /// # Errors
    /// When stdout cannot be written, such as a closed pipe.
    pub fn line(&self, text: impl Display) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }

    /// `value` as JSON: indented for [`Format::Json`], else on one line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn value<T: Serialize + ?Sized>(&self, value: &T) -> io::Result<()> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value)?,
            Format::Table | Format::Jsonl => serde_json::to_string(value)?,
        };
        self.line(text)
    }

    /// Rows as JSON: one array for [`Format::Json`], else one row a line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn rows<T: Serialize>(&self, rows: &[T]) -> io::Result<()> {
        match self.format {
            Format::Json => self.value(rows),
            Format::Table | Format::Jsonl => rows.iter().try_for_each(|row| self.value(row)),
        }
    }

    /// Rows in columns, as wide as their contents, below `header`. The first painted word of a row colours it whole.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn table(&self, header: &[&str], rows: &[(Option<Paint>, Vec<String>)]) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().copied());
        for (_, row) in rows {
            table.add_row(row.iter().map(|cell| one_line(cell)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let paints = std::iter::once(Some(Paint::Strong)).chain(rows.iter().map(|(paint, _)| *paint));
        for (line, paint) in table.lines().zip(paints) {
            self.line(self.painted(paint, line.trim_end()))?;
        }
        Ok(())
    }

    /// `text` for stdout, coloured where a terminal shows it.
    pub fn painted<T: Display>(&self, paint: Option<Paint>, text: T) -> String {
        coloured(paint.filter(|_| self.colour), text)
    }

    /// A line for the person, on stderr.
    pub fn note(&self, text: impl Display) {
        self.note_painted(None, text);
    }

    /// A coloured line for the person, on stderr.
    pub fn note_painted(&self, paint: Option<Paint>, text: impl Display) {
        // Nobody is left to tell when stderr is closed.
        writeln!(io::stderr().lock(), "{}", coloured(paint.filter(|_| self.stderr_colour), text)).ok();
    }
}

impl Paint {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Paint::Good => colour(AnsiColor::Green),
            Paint::Bad => colour(AnsiColor::Red),
            Paint::Open => colour(AnsiColor::Yellow),
            Paint::Dim => Style::new().dimmed(),
            Paint::Strong => Style::new().bold(),
        }
    }
}

/// Ends a command: an error is said on stderr with its causes on one line; a reader that went away (`| head`) is no
/// error.
pub fn finish(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::from(exit::OK),
        Err(error) => {
            Output::new(Format::Table).note(format_args!("error: {}", with_causes(error.as_ref())));
            ExitCode::from(exit::FAILURE)
        }
    }
}

/// An error with its causes on one line, each said once: the clients of Kafka and of the databases repeat their cause in
/// their own words.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn coloured(paint: Option<Paint>, text: impl Display) -> String {
    match paint {
        Some(paint) => Coloured(paint.style(), text).to_string(),
        None => text.to_string(),
    }
}

struct Coloured<T>(Style, T);

impl<T: Display> Display for Coloured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.0.render(), self.1, self.0.render_reset())
    }
}

/// Events come from others: what would move the cursor or start a second row is made visible instead.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '·' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};

    use super::*;
    use crate::reader::ReadError;

    #[test]
    fn a_cause_that_a_library_repeats_is_said_once() {
        let source = KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure);
        let away = ReadError::Unreachable { brokers: "127.0.0.1:9092".to_owned(), source };
        let said = with_causes(anyhow::Error::new(away).context("looking for lag").as_ref());
        assert_eq!(said.matches("BrokerTransportFailure").count(), 1, "{said}");
        assert!(said.starts_with("looking for lag: no Kafka broker answers at 127.0.0.1:9092: "), "{said}");
    }
}
