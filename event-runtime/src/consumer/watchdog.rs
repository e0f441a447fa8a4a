//! Finds out that nothing comes although something should, and has the Kafka client replaced.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

use super::commands::Commands;
use crate::{
    config::KafkaConfig,
    error::Chain,
    reader::{ReadError, Reader},
    scheduler::{Partition, Scheduler, Stall},
};

/// How long another client looks for the record that does not come.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Watchdog {
    group: &'static str,
    kafka: KafkaConfig,
    /// How long nothing may come.
    patience: Duration,
    commands: Arc<Commands>,
    looking: Option<JoinHandle<Vec<(Stall, Found)>>>,
    stalled: watch::Sender<Option<Stall>>,
}

/// What another client finds where this one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Record,
    /// Offsets without a record: a transaction's end mark, or what compaction left.
    Nothing,
    /// Nobody answered: it is Kafka, and the poll thread says so.
    Unknown,
}

impl Watchdog {
    pub(super) fn new(
        group: &'static str,
        kafka: KafkaConfig,
        patience: Duration,
        commands: Arc<Commands>,
    ) -> (Watchdog, watch::Receiver<Option<Stall>>) {
        let (stalled, told) = watch::channel(None);
        (Watchdog { group, kafka, patience, commands, looking: None, stalled }, told)
    }

    /// Looks after the consumer. `assigned` says whether this member has an assignment at all.
    pub(super) async fn look<T: Clone>(&mut self, scheduler: &mut Scheduler<T>, now: Duration, assigned: bool) {
        self.note_progress(scheduler, assigned);
        let stalls = scheduler.stalls(now, self.patience);
        match self.looking.take_if(|looking| looking.is_finished()) {
            // It has nothing to say if it panicked; the next look follows.
            Some(finished) => self.judge(scheduler, &stalls, finished.await.unwrap_or_default()),
            None if self.looking.is_none() && !stalls.is_empty() => {
                let kafka = self.kafka.clone();
                let look = move || stalls.into_iter().map(|stall| (stall.clone(), found(&kafka, &stall))).collect();
                self.looking = Some(spawn_blocking(look));
            }
            None => {}
        }
    }

    fn judge<T: Clone>(&self, scheduler: &mut Scheduler<T>, stalls: &[Stall], found: Vec<(Stall, Found)>) {
        let mut waiting = Vec::new();
        for (stall, found) in found {
            match found {
                Found::Nothing => scheduler.note_empty(&stall),
                // Not if it has come meanwhile.
                Found::Record if stalls.iter().any(|still| still.is_same_as(&stall)) => waiting.push(stall),
                Found::Record | Found::Unknown => {}
            }
        }
        let Some(stall) = waiting.into_iter().max_by_key(Stall::lag) else { return };
        tracing::error!(
            group = self.group,
            partition = %stall.partition,
            offset = stall.position,
            lag = stall.lag(),
            "nothing has been read for {:?} although another client finds a record there: the Kafka client is replaced",
            self.patience
        );
        self.stalled.send_replace(Some(stall));
        self.commands.replace_client();
    }

    /// A stall is over when its partition has moved, or is somebody else's.
    fn note_progress<T: Clone>(&self, scheduler: &Scheduler<T>, assigned: bool) {
        let Some(stall) = self.stalled.borrow().clone() else { return };
        let over = match scheduler.next_to_come(&stall.partition) {
            Some(next) => next.is_some_and(|next| next > stall.position),
            None => assigned,
        };
        if over {
            tracing::info!(group = self.group, partition = %stall.partition, "the partition is read again");
            self.stalled.send_replace(None);
        }
    }
}

fn found(kafka: &KafkaConfig, stall: &Stall) -> Found {
    let Partition { topic, number } = &stall.partition;
    let place = BTreeMap::from([((topic.to_string(), *number), stall.position)]);
    let read = || -> Result<Found, ReadError> {
        let mut reader = Reader::open_at(kafka, &place)?;
        Ok(match reader.next_kept(Instant::now() + LOOK_WITHIN)? {
            Some(_) => Found::Record,
            None if reader.caught_up() => Found::Nothing,
            None => Found::Unknown,
        })
    };
    read().unwrap_or_else(|error| {
        tracing::debug!(partition = %stall.partition, error = %Chain(&error), "another client finds out nothing");
        Found::Unknown
    })
}
