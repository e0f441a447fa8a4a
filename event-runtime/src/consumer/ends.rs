//! Where the owned partitions end, asked of the brokers once a second by a thread of its own: the poll thread must not
//! wait for an answer, and what librdkafka has cached is old for a partition that is paused or no longer fetched.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{self, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, KafkaResult},
};

use super::poll::Client;
use crate::scheduler::{Extent, Generation, Partition};

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long brokers may take to answer. A consumer that closes waits for an open question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What was last answered. Answers for a generation that has passed are to be ignored.
#[derive(Default)]
pub(super) struct Ends(Mutex<HashMap<Partition, (Generation, Extent)>>);

impl Ends {
    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<Partition, (Generation, Extent)>> {
        // It is replaced as a whole: a thread that panicked has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The asking thread of one client.
pub(super) struct Lookout {
    /// Dropped to stop it.
    running: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Lookout {
    pub(super) fn start(client: &Arc<Client>, ends: Arc<Ends>, from_latest: bool) -> io::Result<Lookout> {
        let (running, stopped) = sync_channel(0);
        let asking = Asking { client: Arc::downgrade(client), ends, from_latest, starts: HashMap::new() };
        let thread = thread::Builder::new()
            .name(format!("{}-ends", client.context().group))
            .spawn(move || asking.run(&stopped))?;
        Ok(Lookout { running, thread })
    }

    /// Waits for an open question, so that the client is not closed by whoever asked last.
    pub(super) fn stop(self) {
        drop(self.running);
        // It has nothing to say, not even if it panicked.
        self.thread.join().ok();
    }
}

struct Asking {
    client: Weak<Client>,
    ends: Arc<Ends>,
    /// Where a group begins that has committed nothing.
    from_latest: bool,
    /// Where reading began, of the partitions that are owned now.
    starts: HashMap<Partition, (Generation, i64)>,
}

impl Asking {
    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        loop {
            let Some(client) = self.client.upgrade() else { return };
            match self.ask(&client) {
                Ok(known) => *self.ends.known() = known,
                // The poll thread says it when Kafka is away.
                Err(error) => tracing::debug!(group = client.context().group, %error, "the ends are not known"),
            }
            drop(client);
            if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn ask(&mut self, client: &Client) -> KafkaResult<HashMap<Partition, (Generation, Extent)>> {
        let owned: HashMap<_, _> =
            client.context().owned().iter_mut().map(|(partition, owned)| (partition, owned.generation)).collect();
        if owned.is_empty() {
            return Ok(HashMap::new());
        }
        let ends = look_up(client, owned.keys(), Offset::End)?;
        self.starts.retain(|partition, (generation, _)| owned.get(partition) == Some(generation));
        self.find_starts(client, &owned, &ends)?;
        let known = owned.into_iter().filter_map(|(partition, generation)| {
            let extent = Extent { start: self.starts.get(&partition)?.1, end: *ends.get(&partition)? };
            Some((partition, (generation, extent)))
        });
        Ok(known.collect())
    }

    /// Once an assignment: from then on the scheduler knows how far it is.
    fn find_starts(
        &mut self,
        client: &Client,
        owned: &HashMap<Partition, Generation>,
        ends: &HashMap<Partition, i64>,
    ) -> Result<(), KafkaError> {
        let new: Vec<_> = owned.keys().filter(|partition| !self.starts.contains_key(partition)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let firsts = look_up(client, new.iter().copied(), Offset::Beginning)?;
        let committed = offsets(&client.committed_offsets(list(new.iter().copied(), Offset::Invalid)?, ANSWER_WITHIN)?);
        for partition in new {
            let (Some(&first), Some(&end)) = (firsts.get(partition), ends.get(partition)) else { continue };
            let start = match committed.get(partition) {
                // Retention may have passed what was committed.
                Some(&committed) => committed.max(first),
                None if self.from_latest => end,
                None => first,
            };
            self.starts.insert(partition.clone(), (owned[partition], start));
        }
        Ok(())
    }
}

/// One request a broker, for all of them.
fn look_up<'a>(
    client: &Client,
    partitions: impl Iterator<Item = &'a Partition>,
    which: Offset,
) -> KafkaResult<HashMap<Partition, i64>> {
    Ok(offsets(&client.offsets_for_times(list(partitions, which)?, ANSWER_WITHIN)?))
}

fn list<'a>(partitions: impl Iterator<Item = &'a Partition>, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(&partition.topic, partition.number, offset)?;
    }
    Ok(list)
}

fn offsets(list: &TopicPartitionList) -> HashMap<Partition, i64> {
    let found = list.elements().into_iter().filter_map(|element| match (element.error(), element.offset()) {
        (Ok(()), Offset::Offset(offset)) => {
            Some((Partition { topic: element.topic().into(), number: element.partition() }, offset))
        }
        _ => None,
    });
    found.collect()
}
