//! What goes into the scheduler and what comes out of it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{HandlerError, RetryPolicy};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub number: i32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.number)
    }
}

/// Numbers the assignments of a consumer, ascending.
pub type Generation = u64;

/// What keeps order: a key, or one record without a key (by its offset).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// All records of this key.
    Key(Arc<[u8]>),
    /// The one record at this offset.
    Record(i64),
}

/// How much may be in hand at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts that run at the same time; those that share a transaction count as one.
    pub concurrency: usize,
    /// Records in memory, shared out evenly among the partitions.
    pub records: usize,
    /// Bytes in memory, shared out evenly among the partitions.
    pub bytes: usize,
}

/// A record that came in.
#[derive(Clone, Debug)]
pub struct Offer<T> {
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<Arc<[u8]>>,
    /// What it takes in memory.
    pub bytes: usize,
    /// When it was written, for its age.
    pub written: Option<Timestamp>,
    /// Which handler it is for. Outages are told apart by handler.
    pub handler: usize,
    /// How its failures are tried again.
    pub retry: RetryPolicy,
    /// Whether it may share a transaction with others that may.
    pub shares: bool,
    /// What [`Start`] hands back.
    pub payload: T,
}

/// Where a partition began for this assignment, and where it ends: one above its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What was committed at the assignment, or where the group begins without that.
    pub start: i64,
    /// One above the last record.
    pub end: i64,
}

/// How far behind a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// From the first record that is not handled to the end, if that is known.
    pub records: Option<i64>,
    /// When the first record in hand that is not handled was written.
    pub oldest: Option<Timestamp>,
    /// Where the first record stands that is not handled, if nothing of the partition is in hand.
    pub unread: Option<i64>,
}

/// A partition that gives nothing although it has not ended and is not paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The partition.
    pub partition: Partition,
    /// In which generation.
    pub generation: Generation,
    /// The offset that does not come.
    pub position: i64,
    /// Where the partition ends.
    pub end: i64,
}

impl Stall {
    /// How many offsets wait.
    pub fn lag(&self) -> i64 {
        self.end - self.position
    }

    /// Whether `other` tells of the same, sooner or later.
    pub fn is_same_as(&self, other: &Stall) -> bool {
        (&self.partition, self.generation, self.position) == (&other.partition, other.generation, other.position)
    }
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It will be started in its turn.
    Queued,
    /// A record at this offset or above came in before.
    Repeated,
    /// The partition is not assigned in that generation, or is being given back.
    NotAssigned,
}

/// Names a running attempt. Later attempts have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// An attempt to be run now. Every start must be answered by one [`Scheduler::finish`](super::Scheduler::finish).
#[derive(Clone, Debug)]
pub struct Start<T> {
    /// Names the attempt.
    pub ticket: Ticket,
    /// The offer's payload.
    pub payload: T,
    /// What to do.
    pub task: Task,
    /// Which attempt at handling this is (or was, for [`Task::Bury`]), from 1.
    pub attempt: u32,
    /// Whether this attempt may end the process: nothing runs beside it, and which record it is at has to be noted
    /// durably before it begins.
    pub careful: bool,
}

/// What to do with a record.
#[derive(Clone, Debug)]
pub enum Task {
    /// Give it to its handler.
    Handle {
        /// Whether a failure would be final.
        last_attempt: bool,
    },
    /// Write it to its dead-letter topic, for this reason.
    Bury(Arc<HandlerError>),
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// The handler succeeded.
    Handled {
        /// Whether that shows that the handler's dependency works: not so for duplicates.
        proves_dependency: bool,
    },
    /// The handler failed.
    Failed(HandlerError),
    /// The dead letter is written.
    Buried,
    /// The dead letter could not be written.
    BuryFailed,
    /// The transaction it shared was rolled back, whichever record was to blame.
    RolledBack,
}

/// What follows from an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The record is done.
    Handled {
        /// How long the outage lasted that this success ended.
        outage_ended: Option<Duration>,
    },
    /// The record is tried again after this pause.
    Retry {
        /// How long its lane waits.
        pause: Duration,
    },
    /// The record goes to its dead-letter topic.
    Bury,
    /// The dependency is away: the handler's records are held until a probe succeeds. No attempt is used up.
    Unavailable {
        /// Whether this failure began the outage.
        began: bool,
    },
    /// The record runs again, alone. No attempt is used up.
    Alone,
    /// The partition was given back meanwhile: the outcome counts for nothing.
    Stale,
}

/// Where a record in hand stands, for [`Scheduler::inspect`](super::Scheduler::inspect).
#[derive(Clone, Debug)]
pub struct InHand<T> {
    /// The offer's payload.
    pub payload: T,
    /// The attempt that runs, or is next.
    pub attempt: u32,
    /// What it is doing.
    pub state: State,
    /// Why the last attempt failed.
    pub last_error: Option<Arc<HandlerError>>,
}

/// What a record in hand is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// An attempt runs.
    Running,
    /// It waits for its next attempt, until then.
    Waiting(Duration),
    /// It waits for its turn or for an earlier record of its key.
    Queued,
    /// It waits for a dependency.
    Paused,
}
