//! What every record passes, without broker, database or clock: `scripts/instructions.sh` runs each of these paths under
//! callgrind and counts the instructions a record. Those are nearly the same on a busy machine as on an idle one, so that
//! what a change costs can be told where time cannot be measured.
//!
//! Left out: what waits for something (librdkafka, sockets, databases, tokio). That is what the workloads measure.

mod codec;
mod scheduler;

use clap::{Parser, ValueEnum};

use self::scheduler::Flow;

/// Runs one of the paths that every record passes, for an instruction counter
#[derive(Parser)]
#[command(name = "hot-paths", version)]
pub struct Cli {
    /// Which; all are listed without one
    #[arg(value_enum)]
    path: Option<Path>,

    /// How many records pass it
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Path {
    /// Taken in, started and finished: 1,000 keys in 6 partitions
    Scheduler,
    /// The same in 600 partitions
    #[value(name = "scheduler-600-partitions")]
    Scheduler600Partitions,
    /// The same where every tenth record is of one key and fails nine times
    SchedulerRetries,
    /// The same where what is ready together shares a transaction
    SchedulerBatches,
    /// Headers to an envelope
    EnvelopeFromHeaders,
    /// An envelope to headers
    EnvelopeToHeaders,
    /// A value to a typed event
    EventDecode,
}

/// Runs the path and says how many records passed, or lists all paths: the lines to print.
pub fn run(cli: &Cli) -> Vec<String> {
    let Some(path) = cli.path else {
        return Path::value_variants()
            .iter()
            .filter_map(Path::to_possible_value)
            .map(|it| it.get_name().into())
            .collect();
    };
    vec![path.run(cli.records).to_string()]
}

impl Path {
    /// How many records passed: all of them.
    fn run(self, records: u32) -> u32 {
        match self {
            Path::Scheduler => Flow::of(6).run(records),
            Path::Scheduler600Partitions => Flow::of(600).run(records),
            Path::SchedulerRetries => Flow::of(6).failing().run(records),
            Path::SchedulerBatches => Flow::of(6).sharing().run(records),
            Path::EnvelopeFromHeaders => codec::from_headers(records),
            Path::EnvelopeToHeaders => codec::to_headers(records),
            Path::EventDecode => codec::decode(records),
        }
    }
}

/// Where instructions are counted: the script names this function to callgrind. What is prepared before it, and thrown away
/// after it, does not count.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_passes_every_path() {
        for path in Path::value_variants() {
            assert_eq!(path.run(1234), 1234, "{path:?}");
        }
    }
}
