//! What somebody writes who wants speed and at-least-once: one thread, the poll call, and a commit once a second.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use shared_events::Event as _;

use crate::{measure::Count, site::PATIENCE, topics::Bought};

const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks at the time.
const LOOK_EVERY: u32 = 256;

/// Reads until everything is counted.
///
/// # Errors
/// When Kafka or a record is not as it should be.
pub fn read<const TOPIC: usize>(client: ClientConfig, count: &Count, parse: bool) -> anyhow::Result<()> {
    let topic = Bought::<TOPIC>::TOPIC;
    let consumer: BaseConsumer = client.create()?;
    consumer.subscribe(&[topic.name])?;
    let mut next = vec![None; topic.partitions.unsigned_abs() as usize];
    let (mut committed, mut heard, mut polls) = (Instant::now(), Instant::now(), 0_u32);
    loop {
        polls = polls.wrapping_add(1);
        if polls.is_multiple_of(LOOK_EVERY) && committed.elapsed() >= COMMIT_INTERVAL {
            committed = Instant::now();
            heard = committed;
            commit(&consumer, topic.name, &next, CommitMode::Async)?;
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            anyhow::ensure!(heard.elapsed() < PATIENCE, "nothing came for {PATIENCE:?}");
            continue;
        };
        let message = message?;
        if parse {
            black_box(serde_json::from_slice::<Bought<TOPIC>>(message.payload().unwrap_or_default())?);
        } else {
            black_box(message.payload());
        }
        next[message.partition().unsigned_abs() as usize] = Some(message.offset() + 1);
        if count.one() {
            return commit(&consumer, topic.name, &next, CommitMode::Sync);
        }
    }
}

fn commit(consumer: &BaseConsumer, topic: &str, next: &[Option<i64>], mode: CommitMode) -> anyhow::Result<()> {
    let mut offsets = TopicPartitionList::new();
    for (partition, next) in next.iter().enumerate() {
        if let Some(next) = next {
            offsets.add_partition_offset(topic, partition as i32, Offset::Offset(*next))?;
        }
    }
    if offsets.count() > 0 {
        consumer.commit(&offsets, mode)?;
    }
    Ok(())
}
