//! What librdkafka can do: its batch call, which rdkafka does not wrap. No group and no commit: this is a limit to compare
//! with, not something to copy.
#![expect(unsafe_code, reason = "librdkafka's batch call has no safe interface")]

use std::{hint::black_box, ptr, slice, time::Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    bindings::{
        rd_kafka_consume_batch_queue, rd_kafka_message_destroy, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer,
    },
    consumer::{BaseConsumer, Consumer},
    types::RDKafkaRespErr,
};
use shared_events::Event as _;

use super::Order;
use crate::{measure::Count, site::PATIENCE};

const BATCH: usize = 1000;
const WAIT_MS: i32 = 100;

/// Reads until everything is counted.
///
/// # Errors
/// When Kafka or a record is not as it should be.
pub fn read(client: ClientConfig, count: &Count, parse: bool) -> anyhow::Result<()> {
    let consumer: BaseConsumer = client.create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..Order::TOPIC.partitions {
        partitions.add_partition_offset(Order::TOPIC.name, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    // SAFETY: the client lives until the end of this function, and the queue is given back before.
    let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let mut messages = [ptr::null_mut(); BATCH];
    let (mut outcome, mut heard) = (Ok(()), Instant::now());
    loop {
        // SAFETY: the array has room for as many as are asked for.
        let read = unsafe { rd_kafka_consume_batch_queue(queue, WAIT_MS, messages.as_mut_ptr(), BATCH) };
        let read = usize::try_from(read).unwrap_or(0);
        if read > 0 {
            count.begin();
        }
        let mut good = 0;
        for &message in &messages[..read] {
            // SAFETY: librdkafka filled this many, each is ours until it is destroyed, and its payload lives as long.
            let (error, payload) = unsafe {
                let message = &*message;
                let payload = match message.payload.is_null() {
                    true => &[][..],
                    false => slice::from_raw_parts(message.payload.cast::<u8>(), message.len),
                };
                (message.err, payload)
            };
            if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                good += 1;
                match parse.then(|| serde_json::from_slice::<Order>(payload)) {
                    Some(Ok(order)) => drop(black_box(order)),
                    Some(Err(error)) => outcome = Err(error.into()),
                    None => {
                        black_box(payload);
                    }
                }
            }
            // SAFETY: it is destroyed once, and its payload is not used any more.
            unsafe { rd_kafka_message_destroy(message) };
        }
        if good > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            outcome = Err(anyhow::anyhow!("nothing came for {PATIENCE:?}"));
        }
        if count.some(good) || outcome.is_err() {
            break;
        }
    }
    // SAFETY: as above; nothing uses it any more.
    unsafe { rd_kafka_queue_destroy(queue) };
    outcome
}
