//! `dlt`: what consumer groups could not handle, and how it goes back.

mod edit;
mod letters;
mod list;
mod plan;
mod progress;
mod purge;
mod replay;
mod selection;
mod show;

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};

#[derive(Debug, Subcommand)]
pub enum DltCommand {
    /// Count dead letters by topic, group and error class, with the age of the oldest and the newest
    List(list::ListArgs),
    /// Show a dead letter: why and where it failed, its headers and its value
    Show(show::ShowArgs),
    /// Put dead letters back into their topics, for the groups that failed alone
    Replay(Box<replay::ReplayArgs>),
    /// Delete dead letters
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

/// How long ago that was, in the two largest units that tell: `3d4h`, `2m10s`.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).max(SignedDuration::ZERO).as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut parts = Vec::new();
    let mut left = seconds;
    for (name, length) in units {
        let count = left / length;
        left %= length;
        if count > 0 || !parts.is_empty() {
            parts.push(format!("{count}{name}"));
        }
    }
    match parts.is_empty() {
        true => "0s".to_owned(),
        false => parts.into_iter().take(2).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_two_units() {
        let table = [(0, "0s"), (59, "59s"), (130, "2m10s"), (3_600, "1h0m"), (273_700, "3d4h"), (-5, "0s")];
        for (seconds, told) in table {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            assert_eq!(age(Timestamp::UNIX_EPOCH, now), told);
        }
    }
}
