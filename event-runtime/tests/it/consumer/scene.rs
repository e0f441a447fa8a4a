//! A broker, a database and a handler that writes down what it is given.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use event_runtime::{
    Clock, Consumer, ConsumerBuilder, ConsumerContext, Database, Delivery, HandlerError, Outbox, TransactionalHandler,
    Tx, config::KafkaConfig, producer::Producer,
};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use serde::{Deserialize, Serialize};
use shared_events::{Envelope, Event, Topic};
use test_support::{MockKafka, TempDatabase, eventually, records};

pub const GROUP: &str = "notes-service";
const TOPIC: Topic = Topic { name: "notes", partitions: 1, retention: Duration::from_secs(3600) };

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    pub key: String,
    pub text: String,
}

impl Note {
    pub fn new(key: &str, text: &str) -> Note {
        Note { key: key.to_owned(), text: text.to_owned() }
    }
}

impl Event for Note {
    const TYPE: &'static str = "note.written";
    const TOPIC: Topic = TOPIC;

    fn key(&self) -> String {
        self.key.clone()
    }
}

pub struct Scene {
    pub kafka: KafkaConfig,
    pub database: Database,
    log: Log,
    _broker: MockKafka,
    _folder: TempDatabase,
}

/// What was handled, by key.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<HashMap<String, Vec<String>>>>);

impl Log {
    pub fn note(&self, note: &Note) {
        self.0.lock().unwrap().entry(note.key.clone()).or_default().push(note.text.clone());
    }
}

impl Scene {
    pub async fn new() -> Scene {
        let broker = MockKafka::empty(1);
        broker.create(TOPIC.name, TOPIC.partitions);
        broker.create(&format!("notes.{GROUP}.dlt"), 1);
        let folder = TempDatabase::new();
        let database = Database::connect_lazy(&folder.url()).unwrap();
        database.migrate(&[]).await.unwrap();
        Scene { kafka: broker.config(), database, log: Log::default(), _broker: broker, _folder: folder }
    }

    pub fn builder(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(GROUP)
    }

    pub fn start(&self, builder: ConsumerBuilder) -> Consumer {
        let context = ConsumerContext {
            kafka: self.kafka.clone(),
            producer: Producer::new(&self.kafka).unwrap(),
            clock: Clock::system(),
            metrics: Default::default(),
        };
        builder.start(context).unwrap()
    }

    pub fn recorder(&self) -> Recorder {
        Recorder(self.log.clone())
    }

    pub async fn publish(&self, note: &Note) -> Envelope {
        records::publish(&self.kafka, note).await
    }

    pub fn handled(&self, key: &str) -> Vec<String> {
        self.log.0.lock().unwrap().get(key).cloned().unwrap_or_default()
    }

    pub async fn wait_for(&self, count: usize) {
        eventually(Duration::from_secs(20), "handling of everything", async || {
            let handled: usize = self.log.0.lock().unwrap().values().map(Vec::len).sum();
            if handled >= count { Ok(()) } else { Err(handled) }
        })
        .await;
    }

    /// The group's committed offset of the one partition.
    pub fn committed(&self) -> i64 {
        let mut config = self.kafka.client().unwrap();
        config.set("group.id", GROUP);
        let client: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(TOPIC.name, 0);
        let committed = client.committed_offsets(list, Duration::from_secs(5)).unwrap();
        committed.elements()[0].offset().to_raw().unwrap()
    }
}

pub struct Recorder(Log);

impl TransactionalHandler for Recorder {
    type Event = Note;

    async fn handle(&self, _tx: &mut Tx, _outbox: &mut Outbox, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        self.0.note(&delivery.event);
        Ok(())
    }
}
