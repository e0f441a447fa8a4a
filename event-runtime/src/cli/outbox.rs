//! `SERVICE outbox`: the events that its relay could not publish and set aside, and the way back for them.

use anyhow::Context;

use super::{DatabaseArgs, Format, Output, Paint, exit, one_line};
use crate::{
    Clock,
    outbox::{self, SetAside},
};

/// What `outbox` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct OutboxArgs {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum OutboxCommand {
    /// List the events that were set aside, and why
    List(ListArgs),
    /// Put events back that were set aside, once the topic is there or the row is mended
    Requeue(RequeueArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = true, args = ["event", "topic", "all"])]
struct RequeueArgs {
    /// The event of this id; may be given several times
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    event: Vec<String>,

    /// Those that were to go to this topic
    #[arg(long, value_name = "TOPIC", conflicts_with = "all")]
    topic: Option<String>,

    /// All of them
    #[arg(long)]
    all: bool,

    /// Do it
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    database: DatabaseArgs,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Lists what was set aside, or puts it back.
///
/// # Errors
/// When the database cannot be used, or stdout not be written.
pub async fn outbox(args: &OutboxArgs) -> anyhow::Result<u8> {
    match &args.command {
        OutboxCommand::List(args) => list(args).await,
        OutboxCommand::Requeue(args) => requeue(args).await,
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let (rows, _) = set_aside(&args.database).await?;
    write(&output, &rows)?;
    if rows.is_empty() {
        output.note("nothing was set aside");
    }
    Ok(exit::OK)
}

async fn requeue(args: &RequeueArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let (mut rows, database) = set_aside(&args.database).await?;
    rows.retain(|row| args.selects(row));
    write(&output, &rows)?;
    let (rows, unreadable): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.unreadable.is_none());
    if !unreadable.is_empty() {
        let count = unreadable.len();
        output.note_painted(
            Some(Paint::Open),
            format_args!("{count} cannot be read and stay: mend the column that UNREADABLE names in outbox_poison"),
        );
    }
    if !args.execute {
        let next = if rows.is_empty() { "there is nothing to do" } else { "--execute puts them back" };
        output.note(format_args!("this is the plan for {} events; {next}", rows.len()));
        return Ok(exit::OK);
    }
    let mut done = 0;
    // One by one, in their order: what an interruption leaves is where it was.
    for row in &rows {
        let moved = outbox::requeue(&database, row, Clock::system().now()).await;
        done += usize::from(moved.with_context(|| format!("event {} was not put back", row.event_id))?);
    }
    output.note(format_args!("{done} of {} put back; the relay publishes them", rows.len()));
    Ok(if unreadable.is_empty() { exit::OK } else { exit::FAILURE })
}

impl RequeueArgs {
    fn selects(&self, row: &SetAside) -> bool {
        self.all
            || ((self.event.is_empty() || self.event.contains(&row.event_id))
                && self.topic.as_ref().is_none_or(|topic| *topic == row.topic))
    }
}

async fn set_aside(args: &DatabaseArgs) -> anyhow::Result<(Vec<SetAside>, crate::Database)> {
    let database = args.existing()?;
    let rows = outbox::set_aside(&database).await;
    let rows = rows.with_context(|| {
        format!("the outbox at {} cannot be read; has the service ever started on it?", database.place())
    })?;
    Ok((rows, database))
}

fn write(output: &Output, rows: &[SetAside]) -> std::io::Result<()> {
    if !output.is_table() {
        return output.rows(rows);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let cells = vec![
                one_line(&row.event_id),
                one_line(&row.topic),
                one_line(&row.key),
                row.bytes.to_string(),
                row.set_aside_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                row.unreadable.unwrap_or("-").to_owned(),
                one_line(&row.reason),
            ];
            (row.unreadable.map(|_| Paint::Bad), cells)
        })
        .collect();
    output.table(&["EVENT", "TOPIC", "KEY", "BYTES", "SET ASIDE", "UNREADABLE", "REASON"], &lines)
}
