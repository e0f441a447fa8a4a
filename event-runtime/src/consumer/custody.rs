//! What of the assigned partitions is kept in the database, so that a record which ends the process is found out: see
//! [`Assignments`]. One statement after the other, and the dispatcher waits for none: a revoke and a later assignment
//! of the same partition must not overtake each other.
//!
//! Without a database (a consumer with plain handlers only) there is nothing to keep it in.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    mem,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::RwLock,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    attempt::{Runner, not_noted},
    router::Job,
};
use crate::{
    Database, HandlerError,
    assignments::Assignments,
    error::Chain,
    scheduler::{CrashedError, Generation, Legacy, Outcome, Partition, Task},
};

/// Between two attempts to take partitions over while the database is away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a consumer waits for its rows to go. They may stay: that counts as a death.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Who runs alone keeps this to itself. A process dies as a whole, so this is one for all of its consumers: else a record
/// of another one could end it, and what runs alone here would be blamed.
static PROCESS: RwLock<()> = RwLock::const_new(());

/// `attempt`, beside others.
pub(super) async fn beside<T>(attempt: impl Future<Output = T>) -> T {
    let _others_run = PROCESS.read().await;
    attempt.await
}

pub(super) struct Custody {
    rows: Option<Arc<Assignments>>,
    queue: VecDeque<Request>,
    running: Option<JoinHandle<Option<Taken>>>,
    /// What could not be taken, and is to be tried again then.
    again: Vec<Request>,
    again_at: Instant,
    /// Our partitions whose last owner died, and how far they had to be handled for that to be forgotten.
    unproven: HashMap<Partition, i64>,
    /// Whether the log says that partitions wait.
    complained: bool,
}

enum Request {
    Take(Vec<Partition>, Generation),
    Outlive(Partition, i64),
    GiveBack(Vec<Partition>),
}

/// Partitions were taken over, or not.
pub(super) struct Taken {
    pub(super) partitions: Vec<Partition>,
    pub(super) generation: Generation,
    pub(super) outcome: Result<Vec<Legacy>, sqlx::Error>,
}

impl Custody {
    pub(super) fn new(database: Option<Database>, group: &'static str) -> Custody {
        let owner = uuid::Uuid::now_v7().to_string();
        let rows = database.map(|database| Arc::new(Assignments { database, group, owner }));
        Custody {
            rows,
            queue: VecDeque::new(),
            running: None,
            again: Vec::new(),
            again_at: Instant::now(),
            unproven: HashMap::new(),
            complained: false,
        }
    }

    /// Whether partitions have to be taken before they may start.
    pub(super) fn holds(&self) -> bool {
        self.rows.is_some()
    }

    pub(super) fn take(&mut self, partitions: Vec<Partition>, generation: Generation) {
        if self.holds() && !partitions.is_empty() {
            self.queue.push_back(Request::Take(partitions, generation));
        }
    }

    /// One of our partitions is now handled up to `offset`: if that is further than ever, its owner's death is past.
    pub(super) fn got_to(&mut self, partition: &Partition, offset: i64) {
        if self.unproven.get(partition).is_some_and(|reached| *reached < offset) {
            self.unproven.remove(partition);
            self.queue.push_back(Request::Outlive(partition.clone(), offset));
        }
    }

    pub(super) fn give_back(&mut self, partitions: Vec<Partition>) {
        for partition in &partitions {
            self.unproven.remove(partition);
        }
        if self.holds() && !partitions.is_empty() {
            self.queue.push_back(Request::GiveBack(partitions));
        }
    }

    /// Whether something is still to be written.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some() || !self.queue.is_empty()
    }

    /// Tries again later what failed.
    pub(super) fn take_again(&mut self, partitions: Vec<Partition>, generation: Generation) {
        if self.again.is_empty() {
            self.again_at = Instant::now() + RETRY_PAUSE;
        }
        if !partitions.is_empty() {
            self.again.push(Request::Take(partitions, generation));
        }
    }

    /// Says that partitions wait, once, and that it is over.
    pub(super) fn note(&mut self, group: &str, outcome: Result<(), &sqlx::Error>) {
        if mem::replace(&mut self.complained, outcome.is_err()) == outcome.is_err() {
            return;
        }
        match outcome {
            Err(error) => tracing::warn!(
                group,
                error = %Chain(error),
                "assigned partitions wait for the database: before it is known how their last owner left them, \
                 nothing of them is handled"
            ),
            Ok(()) => tracing::info!(group, "the database answers: assigned partitions are handled"),
        }
    }

    /// Works on what is to be written; resolves when partitions were taken, or could not be. May be dropped at any time.
    pub(super) async fn next(&mut self, now: Timestamp) -> Option<Taken> {
        loop {
            if let Some(running) = &mut self.running {
                let ended = running.await;
                self.running = None;
                // Nothing in there panics, and nobody aborts it.
                let taken = ended.ok().flatten();
                if let Some(Taken { partitions, outcome: Ok(legacies), .. }) = &taken {
                    let died = partitions.iter().zip(legacies).filter(|(_, legacy)| legacy.deaths > 0);
                    self.unproven.extend(died.map(|(partition, legacy)| (partition.clone(), legacy.reached)));
                }
                return taken;
            }
            if let Some(request) = self.queue.pop_front() {
                self.start(request, now);
            } else if !self.again.is_empty() {
                sleep_until(self.again_at).await;
                self.queue.extend(self.again.drain(..));
            } else {
                pending::<()>().await;
            }
        }
    }

    fn start(&mut self, request: Request, now: Timestamp) {
        let Some(rows) = self.rows.clone() else { return };
        self.running = Some(tokio::spawn(async move {
            match request {
                Request::Take(partitions, generation) => {
                    let outcome = rows.take(&partitions, now).await;
                    Some(Taken { partitions, generation, outcome })
                }
                Request::Outlive(partition, offset) => {
                    if let Err(error) = rows.outlive(&partition, offset).await {
                        tracing::debug!(group = rows.group, %partition, offset, error = %Chain(&error), "a death is not forgotten");
                    }
                    None
                }
                Request::GiveBack(partitions) => {
                    if let Err(error) = rows.give_back(&partitions).await {
                        left(rows.group, &error);
                    }
                    None
                }
            }
        }));
    }

    /// Gives everything back, at the end of the consumer.
    pub(super) async fn close(mut self) {
        let Some(rows) = self.rows.take() else { return };
        let ended = timeout(CLOSE_PATIENCE, async {
            if let Some(running) = self.running.take() {
                running.await.ok();
            }
            rows.give_back_all().await
        });
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => left(rows.group, &error),
            Err(_) => left(rows.group, &sqlx::Error::PoolTimedOut),
        }
    }

    /// Runs `task` for `job`, with a note beforehand that it is this record which runs alone.
    pub(super) fn alone(
        &self,
        runner: Arc<Runner>,
        job: Arc<Job>,
        task: Task,
        number: u32,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let rows = self.rows.clone();
        let origin = &job.record.origin;
        let (partition, offset) = (Partition { topic: origin.topic.clone(), number: origin.partition }, origin.offset);
        async move {
            let run = runner.clone().run(job.clone(), task.clone(), number);
            let Some(rows) = rows else { return beside(run).await };
            let _nobody_else_runs = PROCESS.write().await;
            if let Err(error) = rows.begin_alone(&partition, offset).await {
                // Without the note nobody would know what ended the process.
                let bury = matches!(task, Task::Bury(_));
                return if bury { Outcome::BuryFailed } else { Outcome::Failed(HandlerError::from(error)) };
            }
            // It asks the inbox, not the handler, so its deadline says nothing.
            let attempt = runner.attempt(&job, number, true, Instant::now());
            let outcome = match task {
                Task::Handle { .. } => match attempt.is_done(&rows.database).await {
                    // A plain handler does not look there itself: for records beside others that would cost too much. So
                    // after a kill from outside, which nobody is blamed for, such a record may end one process more.
                    Ok(true) => runner.duplicate(&job, number),
                    Ok(false) => run.await,
                    Err(error) => Outcome::Failed(HandlerError::from(error)),
                },
                Task::Bury(error) => match run.await {
                    // Before its offset is committed the process may end once more, because of another record: this one
                    // must not be handled again then, whether or not its handler was told.
                    Outcome::Buried if error.source_error().is::<CrashedError>() => {
                        match attempt.note_dead(&rows.database).await {
                            Ok(()) => Outcome::Buried,
                            Err(failure) => not_noted(&job, &HandlerError::from(failure)),
                        }
                    }
                    outcome => outcome,
                },
            };
            let done = matches!(outcome, Outcome::Handled { .. } | Outcome::Buried);
            if let Err(error) = rows.end_alone(&partition, offset, done).await {
                // The next attempt alone replaces the note; it is wrong if the process is killed before that.
                tracing::debug!(group = rows.group, %partition, offset, error = %Chain(&error), "a note was not removed");
            }
            outcome
        }
    }
}

fn left(group: &str, error: &sqlx::Error) {
    tracing::warn!(
        group,
        error = %Chain(error),
        "the database does not know that partitions were given back: their next owner takes us for dead"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "notes-service";

    fn partitions(numbers: std::ops::Range<i32>) -> Vec<Partition> {
        numbers.map(|number| Partition { topic: "orders".into(), number }).collect()
    }

    async fn database() -> (Database, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        database.migrate(&[]).await.unwrap();
        (database, folder)
    }

    async fn next(custody: &mut Custody) -> Option<Taken> {
        timeout(Duration::from_secs(20), custody.next(Timestamp::UNIX_EPOCH)).await.unwrap()
    }

    /// Takes these; how many deaths there were of each.
    async fn take(custody: &mut Custody, numbers: std::ops::Range<i32>) -> Vec<u32> {
        custody.take(partitions(numbers), 1);
        assert!(custody.is_busy());
        let taken = next(custody).await.unwrap();
        assert!(!custody.is_busy());
        taken.outcome.unwrap().iter().map(|legacy| legacy.deaths).collect()
    }

    #[tokio::test]
    async fn who_gives_partitions_back_has_not_died() {
        let (database, _folder) = database().await;
        let mut first = Custody::new(Some(database.clone()), GROUP);
        assert_eq!(take(&mut first, 0..3).await, [0, 0, 0]);
        first.give_back(partitions(0..1));
        assert!(first.is_busy());
        assert!(next(&mut first).await.is_none() && !first.is_busy());

        let mut second = Custody::new(Some(database.clone()), GROUP);
        assert_eq!(take(&mut second, 0..3).await, [0, 1, 1]);
        // What its owners died of is behind a partition that was handled further than ever.
        second.got_to(&partitions(0..1)[0], 5);
        second.got_to(&partitions(1..2)[0], 0);
        assert!(!second.is_busy(), "there is nothing to prove of the one, and nothing proven of the other");
        second.got_to(&partitions(1..2)[0], 1);
        assert!(second.is_busy());
        assert!(next(&mut second).await.is_none());
        second.give_back(partitions(2..3));
        second.got_to(&partitions(2..3)[0], 9);
        assert!(next(&mut second).await.is_none());
        assert!(!second.is_busy(), "that one is no longer ours");
        let mut third = Custody::new(Some(database), GROUP);
        assert_eq!(take(&mut third, 0..3).await, [1, 1, 0]);
    }

    #[tokio::test]
    async fn where_there_is_nothing_to_write_nothing_is_written() {
        let (database, _folder) = database().await;
        let mut without = Custody::new(None, GROUP);
        assert!(!without.holds());
        without.take(partitions(0..1), 1);
        without.give_back(partitions(0..1));
        assert!(!without.is_busy());
        let mut with = Custody::new(Some(database), GROUP);
        assert!(with.holds());
        with.take(Vec::new(), 1);
        with.give_back(Vec::new());
        assert!(!with.is_busy());
    }

    #[tokio::test]
    async fn what_could_not_be_taken_is_tried_again_a_second_later() {
        let (database, _folder) = database().await;
        let mut custody = Custody::new(Some(database), GROUP);
        let before = Instant::now();
        custody.take_again(partitions(0..2), 1);
        assert!(custody.again_at >= before + RETRY_PAUSE);
        let again_at = custody.again_at;
        custody.take_again(partitions(2..3), 1);
        assert_eq!(custody.again_at, again_at, "what waits already does not wait for longer");
        assert!(!custody.is_busy());
        assert_eq!(next(&mut custody).await.unwrap().partitions, partitions(0..2));
        assert!(Instant::now() >= again_at && custody.is_busy());
        assert_eq!(next(&mut custody).await.unwrap().partitions, partitions(2..3));
    }

    #[tokio::test]
    async fn that_the_database_does_not_know_of_partitions_is_said_once() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(log.reopen().unwrap())).finish();
        let _default = tracing::subscriber::set_default(lines);
        let said = || std::fs::read_to_string(log.path()).unwrap();
        let (database, _folder) = database().await;
        let mut custody = Custody::new(Some(database.clone()), GROUP);
        custody.note(GROUP, Ok(()));
        assert!(!said().contains("the database answers"));
        for _ in 0..2 {
            custody.note(GROUP, Err(&sqlx::Error::PoolTimedOut));
            assert_eq!(said().matches("assigned partitions wait for the database").count(), 1);
        }
        for _ in 0..2 {
            custody.note(GROUP, Ok(()));
            assert_eq!(said().matches("the database answers").count(), 1);
        }
        database.close().await;
        custody.close().await;
        assert_eq!(said().matches("their next owner takes us for dead").count(), 1);
    }
}
