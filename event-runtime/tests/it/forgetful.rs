//! A broker that starts or stops may list no brokers at all beside its topics. librdkafka then forgets every broker it
//! knew and is silent for ever (its issue 5301): only a new client helps, and is made.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Cursor},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use event_runtime::{
    config::KafkaConfig,
    producer::{OutgoingRecord, Producer},
    reader::{Position, ReadError, Reader},
};
use jiff::Timestamp;
use test_support::eventually;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use crate::{
    consumer::scene::Scene,
    stage::{TOPIC, TestKafka},
};

/// For clients that are replaced and find their group anew, which takes up to 20 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Of the Kafka protocol: <https://kafka.apache.org/protocol>.
const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;

/// Stands between clients and a broker, and can make its answers forget that it is there.
struct Forgetful {
    broker: String,
    port: i32,
    forgets: AtomicBool,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    accepted: usize,
    /// By their numbers.
    open: BTreeSet<usize>,
}

impl Forgetful {
    async fn before(broker: String) -> Arc<Forgetful> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().into();
        let (forgets, connections) = Default::default();
        let forgetful = Arc::new(Forgetful { broker, port, forgets, connections });
        let accepting = forgetful.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(client));
            }
        });
        forgetful
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Until all clients have heard it, and left. New ones may come meanwhile.
    async fn forget(&self) {
        self.forgets.store(true, Ordering::SeqCst);
        let before = self.connections.lock().unwrap().accepted;
        eventually(PATIENCE, "end of all connections", async || {
            let open: Vec<_> = self.connections.lock().unwrap().open.range(..before).copied().collect();
            if open.is_empty() { Ok(()) } else { Err(open) }
        })
        .await;
        self.forgets.store(false, Ordering::SeqCst);
    }

    async fn serve(self: Arc<Self>, client: TcpStream) {
        let number = {
            let mut connections = self.connections.lock().unwrap();
            connections.accepted += 1;
            let number = connections.accepted - 1;
            connections.open.insert(number);
            number
        };
        // Ends with an error when either side has gone.
        self.pass(client).await.ok();
        self.connections.lock().unwrap().open.remove(&number);
    }

    async fn pass(&self, client: TcpStream) -> io::Result<()> {
        let broker = TcpStream::connect(&self.broker).await?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_broker, mut to_broker) = broker.into_split();
        // What was asked, by correlation id.
        let asked: Arc<Mutex<HashMap<[u8; 4], i16>>> = Arc::default();
        let asking = asked.clone();
        tokio::spawn(async move {
            while let Ok(request) = frame(&mut from_client).await {
                let api = i16::from_be_bytes([request[0], request[1]]);
                asking.lock().unwrap().insert(request[4..8].try_into().unwrap(), api);
                pass_on(&mut to_broker, &request).await?;
            }
            // Then the broker ends its side as well.
            to_broker.shutdown().await
        });
        loop {
            let mut answer = frame(&mut from_broker).await?;
            let api = asked.lock().unwrap().remove(&answer[..4]);
            match api {
                Some(METADATA) => self.rewrite_metadata(&mut answer).await?,
                // Its last field is the coordinator's port.
                Some(FIND_COORDINATOR) => {
                    let port = answer.len() - 4;
                    answer[port..].copy_from_slice(&self.port.to_be_bytes());
                }
                _ => {}
            }
            pass_on(&mut to_client, &answer).await?;
        }
    }

    /// In the flexible versions, from 9: a correlation id, tags, the throttle time, and the brokers.
    async fn rewrite_metadata(&self, answer: &mut Vec<u8>) -> io::Result<()> {
        let brokers_at = 4 + 1 + 4;
        let mut rest = Cursor::new(&answer[brokers_at..]);
        assert_eq!(rest.read_u8().await?, 2, "one broker, in a list of which the length is one more");
        rest.read_i32().await?;
        skip_text(&mut rest).await?;
        let port_at = brokers_at + rest.position() as usize;
        rest.read_i32().await?;
        skip_text(&mut rest).await?;
        assert_eq!(rest.read_u8().await?, 0, "a broker has no tags");
        let topics_at = brokers_at + rest.position() as usize;
        if self.forgets.load(Ordering::SeqCst) {
            answer.splice(brokers_at..topics_at, [1]);
        } else {
            answer[port_at..port_at + 4].copy_from_slice(&self.port.to_be_bytes());
        }
        Ok(())
    }
}

/// A text of less than 127 bytes or none, whose length is one more.
async fn skip_text(bytes: &mut Cursor<&[u8]>) -> io::Result<()> {
    let length = bytes.read_u8().await?;
    bytes.set_position(bytes.position() + u64::from(length.saturating_sub(1)));
    Ok(())
}

async fn frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; from.read_u32().await? as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn pass_on(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = (frame.len() as u32).to_be_bytes();
    to.write_all(&[&length, frame].concat()).await
}

/// A way to the broker, for clients that ask often and do not go back to their first addresses: that would race with
/// the end of the broker's handle, and helps only if it comes later.
async fn forgetful(kafka: &KafkaConfig) -> (Arc<Forgetful>, KafkaConfig) {
    let forgetful = Forgetful::before(kafka.brokers.clone()).await;
    let mut through = KafkaConfig { brokers: forgetful.address(), ..kafka.clone() };
    let settings =
        ["topic.metadata.refresh.interval.ms=500", "metadata.recovery.strategy=none", "statistics.interval.ms=200"];
    through.settings.extend(settings.map(str::to_owned));
    (forgetful, through)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_told_of_no_brokers_reads_on() {
    let mut scene = Scene::embedded().await;
    let (broker, through) = forgetful(&scene.kafka).await;
    scene.kafka = through;
    // The embedded broker waits long for a member of the new protocol that is gone.
    scene.kafka.settings.extend(["group.protocol=classic", "session.timeout.ms=6000"].map(str::to_owned));
    let consumer = scene.start(scene.transactional());
    scene.publish("a", "before").await;
    scene.script.wait_for(1).await;
    broker.forget().await;
    scene.publish("a", "after").await;
    eventually(PATIENCE, "handling of what came after", async || match scene.script.handled() {
        handled if handled.len() == 2 => Ok(()),
        handled => Err(handled),
    })
    .await;
    assert_eq!(scene.script.of_key("a"), ["before", "after"]);
    consumer.ready().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_was_told_of_no_brokers_goes_on() {
    let kafka = TestKafka::embedded();
    let (broker, through) = forgetful(&kafka.config()).await;
    let producer = Producer::new(&through).unwrap();
    let record = || OutgoingRecord { topic: TOPIC.name.to_owned(), ..OutgoingRecord::default() };
    producer.send(record()).await.unwrap();
    broker.forget().await;
    let sent = async || producer.send(record()).await.map_err(|error| error.to_string());
    eventually(PATIENCE, "record by a new client", sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_was_told_of_no_brokers_goes_on_where_it_stood() {
    let kafka = TestKafka::embedded();
    let (broker, through) = forgetful(&kafka.config()).await;
    let producer = Producer::new(&kafka.config()).unwrap();
    let publish = async |key: &str| {
        let (topic, partition) = (TOPIC.name.to_owned(), Some(0));
        let record = OutgoingRecord { topic, partition, key: Some(key.into()), ..OutgoingRecord::default() };
        producer.send(record).await.unwrap();
    };
    publish("before").await;
    let (read, mut records) = mpsc::channel(10);
    let reading = move || {
        let topics = [TOPIC.name.to_owned()];
        let mut reader = Reader::open(&through, &topics, Position::Start, Timestamp::now()).unwrap();
        while !read.is_closed() {
            match reader.next(Duration::from_millis(100)) {
                Ok(Some(record)) => read.blocking_send(record.key.unwrap()).unwrap(),
                Ok(None) | Err(ReadError::Disturbed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let reading = tokio::task::spawn_blocking(reading);
    let mut next = async || timeout(PATIENCE, records.recv()).await.unwrap().unwrap();
    assert_eq!(next().await, b"before");
    broker.forget().await;
    publish("after").await;
    assert_eq!(next().await, b"after");
    drop(records);
    reading.await.unwrap();
}
