//! `--reprocess`: the group's inbox forgets the events of the records that are read again, so that they are handled again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use event_runtime::{Database, config::KafkaConfig, inbox, reader::Reader};
use shared_events::{EventId, Group};

use super::Move;

/// How long the broker may take to send the next record.
const PATIENCE: Duration = Duration::from_secs(30);

/// The events of the records that `moves` go back over. A record that is no event has none.
pub(super) fn events(kafka: &KafkaConfig, moves: &[Move]) -> anyhow::Result<BTreeSet<EventId>> {
    let back = moves.iter().filter(|step| step.again > 0);
    let ends: BTreeMap<_, _> =
        back.clone().map(|step| ((step.topic.clone(), step.partition), step.new_offset + step.again)).collect();
    if ends.is_empty() {
        return Ok(BTreeSet::new());
    }
    let begins = back.map(|step| ((step.topic.clone(), step.partition), step.new_offset)).collect();
    let mut reader = Reader::open_at(kafka, &begins)?;
    let mut events = BTreeSet::new();
    while let Some(record) = reader.next_kept(Instant::now() + PATIENCE)? {
        let origin = &record.origin;
        if ends.get(&(origin.topic.to_string(), origin.partition)).is_none_or(|end| origin.offset >= *end) {
            continue;
        }
        events.extend(record.envelope().ok().map(|envelope| envelope.id));
    }
    ensure!(
        reader.caught_up(),
        "the records to be handled again did not come within {PATIENCE:?}; nothing was changed"
    );
    Ok(events)
}

/// The database at `url`, once it has shown that it holds an inbox.
pub(super) async fn open(url: &str, group: Group) -> anyhow::Result<Database> {
    let database = Database::existing_lazy(url)?;
    let asked = async { inbox::seen(&mut database.begin().await?, group.name, EventId::new(), 0).await };
    asked.await.with_context(|| {
        format!("no inbox at {}; --database-url is where {} keeps its data", database.place(), group.name)
    })?;
    Ok(database)
}
