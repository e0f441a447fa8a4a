//! `dlt`: what consumer groups could not handle, and how it goes back.

mod edit;
mod letters;
mod list;
mod plan;
mod progress;
mod purge;
mod replay;
mod runs;
mod selection;
mod show;

use clap::Subcommand;

pub use self::letters::replayed;

#[derive(Debug, Subcommand)]
pub enum DltCommand {
    /// Count dead letters by topic, group and error class, with the age of the oldest and the newest
    List(list::ListArgs),
    /// Show a dead letter: why and where it failed, its headers and its value
    Show(show::ShowArgs),
    /// Put dead letters back into their topics, for the groups that failed alone
    ///
    /// Prints what it would do, and does it with --execute. A replay goes to the topic and partition that its record came
    /// from, with the same key, value, headers and event id. Only the group that failed handles it, and only if it has not
    /// handled the event after all; every other group skips it.
    ///
    /// How far replaying is, the consumer group eventctl.dlt-replay remembers: with --all, its lag is what is left. Its offset
    /// stays at the first letter that waits, so a selective replay loses nothing of what it did not select; what was replayed
    /// above that letter is noted beside the offset, as far as Kafka has room for it there. Beyond that, and after a kill, a
    /// few letters may be replayed twice: the inbox of the group that failed counts them as duplicates. The same command
    /// resumes a run that was killed.
    Replay(Box<replay::ReplayArgs>),
    /// Delete dead letters, from the oldest on
    ///
    /// Up to the newest there is now, or, with --replayed, up to the first that waits. Prints what it would do, and does it
    /// with --execute. Kafka deletes the beginning of a partition or nothing, so there is no selection by event.
    Purge(purge::PurgeArgs),
}

pub async fn run(command: DltCommand) -> anyhow::Result<u8> {
    match command {
        DltCommand::List(args) => list::run(&args),
        DltCommand::Show(args) => show::run(&args),
        DltCommand::Replay(args) => replay::run(&args).await,
        DltCommand::Purge(args) => purge::run(&args).await,
    }
}
