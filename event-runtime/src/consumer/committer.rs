//! Commits offsets one after the other, on a thread of its own, and says what became of each.
//!
//! Asynchronous commits would need no thread, but of them nobody hears: rdkafka 0.39 asks librdkafka for commit events
//! and librdkafka 2.12 makes none without a callback. A commit that the broker answers late in a rebalance fails with
//! "generation id is not valid", and its offsets would stay uncommitted until a later record of their partitions.

use std::{
    sync::{
        Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

use rdkafka::consumer::{CommitMode, Consumer as _};

use super::{poll::Client, rebalance::offset_list};
use crate::{error::Chain, scheduler::Partition};

/// How many may wait behind the one under way: the last one of a revoke, and a regular one where that took too long.
const COMMITS: usize = 2;
/// What is said where the thread has gone.
const ENDED: &str = "the committing thread has ended";

/// Offsets to read next.
pub(super) type Offsets = Vec<(Partition, i64)>;

/// The way to the thread. What is committed first is sent first, so the last word on a partition is the last one said here.
pub(super) struct Committer(SyncSender<Job>);

struct Job {
    offsets: Offsets,
    answer: SyncSender<Result<(), String>>,
}

/// A commit that is under way.
pub(super) struct Commit {
    pub(super) offsets: Offsets,
    outcome: Receiver<Result<(), String>>,
}

impl Committer {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(group: &str, client: Weak<Client>) -> std::io::Result<Committer> {
        Committer::with(group, move |offsets| commit(&client, offsets))
    }

    pub(super) fn with(
        group: &str,
        commit: impl Fn(&Offsets) -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<Committer> {
        let (jobs, todo) = sync_channel::<Job>(COMMITS);
        let run = move || {
            while let Ok(Job { offsets, answer }) = todo.recv() {
                // Nobody waits any more for one that took too long.
                answer.send(commit(&offsets)).ok();
            }
        };
        thread::Builder::new().name(format!("{group}-commit")).spawn(run)?;
        Ok(Committer(jobs))
    }

    /// Hands offsets over.
    ///
    /// # Errors
    /// When earlier ones are not done: then these are not committed, and the reason is given.
    pub(super) fn commit(&self, offsets: Offsets) -> Result<Commit, String> {
        let (answer, outcome) = sync_channel(1);
        let job = Job { offsets: offsets.clone(), answer };
        self.0.try_send(job).map_err(|_| "earlier offsets are not acknowledged yet".to_owned())?;
        Ok(Commit { offsets, outcome })
    }
}

impl Commit {
    /// What became of it; none while it is under way.
    pub(super) fn done(&self) -> Option<Result<(), String>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(ENDED.to_owned())),
        }
    }

    /// Waits for what becomes of it, but not longer than that.
    pub(super) fn wait(self, patience: Duration) -> Result<(), String> {
        match self.outcome.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(format!("not acknowledged within {patience:?}")),
            Err(RecvTimeoutError::Disconnected) => Err(ENDED.to_owned()),
        }
    }
}

/// The client is let go before the answer: whoever waits for that may want to be the one that closes the client.
fn commit(client: &Weak<Client>, offsets: &Offsets) -> Result<(), String> {
    let client = client.upgrade().ok_or(ENDED)?;
    client.commit(&offset_list(offsets), CommitMode::Sync).map_err(|error| Chain(&error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under_way() -> (SyncSender<Result<(), String>>, Commit) {
        let (answer, outcome) = sync_channel(1);
        (answer, Commit { offsets: Vec::new(), outcome })
    }

    fn answered(answer: Result<(), String>) -> Commit {
        let (sender, commit) = under_way();
        sender.send(answer).unwrap();
        commit
    }

    #[test]
    fn what_became_of_a_commit_is_known_once_it_is_answered() {
        let refused = Err("generation id is not valid".to_owned());
        let (answer, commit) = under_way();
        assert_eq!(commit.done(), None);
        drop(answer);
        assert_eq!(commit.done(), Some(Err(ENDED.to_owned())));
        assert_eq!(answered(refused.clone()).done(), Some(refused));
        assert_eq!(answered(Ok(())).done(), Some(Ok(())));
    }

    #[test]
    fn a_commit_is_waited_for_but_not_for_ever() {
        let refused = Err("generation id is not valid".to_owned());
        let (answer, commit) = under_way();
        assert_eq!(commit.wait(Duration::ZERO), Err("not acknowledged within 0ns".to_owned()));
        drop(answer);
        let (_, commit) = under_way();
        assert_eq!(commit.wait(Duration::from_secs(20)), Err(ENDED.to_owned()));
        assert_eq!(answered(refused.clone()).wait(Duration::ZERO), refused);
        assert_eq!(answered(Ok(())).wait(Duration::ZERO), Ok(()));
    }

    #[test]
    fn no_more_is_taken_on_than_can_wait() {
        let (jobs, todo) = sync_channel(COMMITS);
        let committer = Committer(jobs);
        for _ in 0..COMMITS {
            committer.commit(Vec::new()).map(drop).unwrap();
        }
        committer.commit(Vec::new()).map(drop).unwrap_err();
        drop(todo);
    }
}
