//! Retries, outages, panics and hangs.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use event_runtime::{
    ConsumerBuilder, HandlerError, RawHandler, Record,
    consumer::NotReady,
    scheduler::{Flood, FloodLimits},
};
use rdkafka::types::RDKafkaRespErr;
use test_support::eventually;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::scene::{GROUP, PATIENCE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_holds_only_its_key() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.transactional());
    scene.publish("stuck", "fail 2 times").await;
    scene.publish("stuck", "behind").await;
    for number in 0..10 {
        scene.publish(&format!("free-{number}"), "ok").await;
    }
    scene.script.wait_for(12).await;
    let handled = scene.script.handled();
    assert_eq!(handled[10..], ["stuck:fail 2 times", "stuck:behind"], "the others went first: {handled:?}");
    assert_eq!(scene.script.attempts()[10..], [3, 1]);
    assert_eq!(scene.metric("consumer_records_retried_total"), 2.0);
    scene.wait_for_commit(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_and_a_hang_are_failures_of_their_records_only() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.plain().handler_timeout(Duration::from_secs(1)));
    scene.publish("a", "panic").await;
    scene.publish("b", "hang").await;
    scene.publish("c", "ok").await;
    scene.script.wait_for(3).await;
    assert_eq!(scene.script.of_key("a"), ["panic"], "handled at its second attempt");
    assert_eq!(scene.script.of_key("b"), ["hang"], "handled at its second attempt");
    scene.wait_for_commit(3).await;
    assert_eq!(scene.metric("consumer_records_retried_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_pauses_and_uses_up_no_attempts() {
    let scene = Scene::new().await;
    scene.script.away.store(true, Ordering::SeqCst);
    let consumer = scene.start(scene.transactional());
    for key in ["a", "b", "c"] {
        scene.publish(key, "ok").await;
    }
    eventually(PATIENCE, "three held keys", async || match scene.metric("consumer_blocked_keys") {
        3.0 => Ok(()),
        other => Err(other),
    })
    .await;
    // Long enough for more probes than a record has attempts.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(scene.metric("consumer_outages_total"), 1.0);
    assert_eq!(scene.metric("consumer_dead_letters_total"), 0.0);
    let in_flight = consumer.inspect("a").await;
    assert_eq!(in_flight[0].attempt, 1);
    scene.script.away.store(false, Ordering::SeqCst);
    scene.script.wait_for(3).await;
    assert_eq!(scene.script.attempts(), [1, 1, 1]);
    scene.wait_for_commit(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_its_handler_takes_for_failures_of_its_records_is_one_all_the_same() {
    let scene = Scene::new().await;
    scene.script.refused.store(true, Ordering::SeqCst);
    for number in 0..40 {
        scene.publish(&format!("key-{}", number % 20), "ok").await;
    }
    let consumer = scene.start(scene.plain());
    eventually(PATIENCE, "open breaker", async || match scene.metric("consumer_breaker_openings_total") {
        1.0 => Ok(()),
        other => Err(other),
    })
    .await;
    let begun = scene.script.begun.load(Ordering::SeqCst);
    eventually(PATIENCE, "more probes", async || match scene.script.begun.load(Ordering::SeqCst) {
        now if now >= begun + 5 => Ok(()),
        now => Err(now),
    })
    .await;
    assert_eq!(scene.metric("consumer_outages_total"), 1.0);
    consumer.ready().unwrap();
    scene.script.refused.store(false, Ordering::SeqCst);
    scene.script.wait_for(40).await;
    scene.wait_for_commit(40).await;
    assert_eq!(scene.metric("consumer_dead_letters_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_breaker_failures_of_all_keys_are_dead_letters() {
    let scene = Scene::new().await;
    scene.script.refused.store(true, Ordering::SeqCst);
    let _consumer = scene.start(scene.plain().breaker(None));
    for number in 0..20 {
        scene.publish(&format!("key-{number}"), "ok").await;
    }
    assert_eq!(scene.dead_letters(20).await.len(), 20);
    assert_eq!(scene.metric("consumer_outages_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_is_read_again() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.transactional());
    scene.publish("a", "before").await;
    scene.script.wait_for(1).await;
    scene.interrupt_broker().await;
    scene.publish("a", "after").await;
    scene.script.wait_for(2).await;
    assert_eq!(scene.script.of_key("a"), ["before", "after"]);
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// A way to the broker that breaks off every connection until it is opened.
async fn gate(broker: String) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let open = Arc::new(AtomicBool::new(false));
    let is_open = open.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            if is_open.load(Ordering::SeqCst) {
                let mut server = TcpStream::connect(&broker).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (address, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_an_outage_does_not_wait_behind_the_errors_of_it() {
    let mut scene = Scene::embedded().await;
    scene.publish("a", "ok").await;
    let broker = scene.kafka.brokers.split(',').next().unwrap().to_owned();
    let (address, open) = gate(broker).await;
    scene.kafka.brokers = address;
    // Hundreds of failed connections a second.
    scene.kafka.settings.extend(["reconnect.backoff.ms=1", "reconnect.backoff.max.ms=2"].map(str::to_owned));
    let _consumer = scene.start(scene.plain());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let back = Instant::now();
    open.store(true, Ordering::SeqCst);
    scene.script.wait_for(1).await;
    println!("read after {:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_dead_letters_stops_the_consumer_until_a_record_can_be_handled() {
    let scene = Scene::new().await;
    let limits = FloodLimits { per_minute: 100, percent: 50, at_least: 3, cool_down: Duration::from_secs(2) };
    let consumer = scene.start(scene.transactional().concurrency(1).flood_limits(Some(limits)));
    let began = Instant::now();
    for key in ["a", "b", "c", "d"] {
        scene.publish(key, "reject").await;
    }
    let flood = Flood { dead_letters: 3, records: 3, failed_probes: 0 };
    eventually(PATIENCE, "stop", async || match consumer.ready() {
        Err(NotReady::DeadLetterFlood { group: GROUP, flood: seen }) if seen == flood => Ok(()),
        other => Err(other),
    })
    .await;
    let told = consumer.ready().unwrap_err().to_string();
    assert!(told.contains("3 of the 3 records of a minute") && told.contains("mend the cause"), "{told}");
    assert_eq!(scene.metric("consumer_stopped_by_flood"), 1.0);
    scene.publish("a", "ok").await;
    eventually(PATIENCE, "pause", async || match scene.metric("consumer_paused_partitions") {
        1.0 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(scene.metric("consumer_dead_letters_total"), 3.0, "the fourth waits");

    // The fourth is tried first and fails. Where this one has come before the fourth is written to its dead-letter topic,
    // it is the next to be tried; otherwise the cool-down begins again, and is longer.
    scene.script.wait_for(1).await;
    assert!(began.elapsed() > limits.cool_down, "after {:?}", began.elapsed());
    assert_eq!(scene.script.attempts(), [1]);
    scene.wait_for_commit(5).await;
    consumer.ready().unwrap();
    assert_eq!(scene.metric("consumer_dead_letters_total"), 4.0);
    assert_eq!(scene.metric("consumer_dead_letter_floods_total"), 1.0);
    assert_eq!(scene.metric("consumer_stopped_by_flood") + scene.metric("consumer_paused_partitions"), 0.0);
}

/// The log lines of this process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn with(&self, group: &str) -> Vec<String> {
        let written = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        written.lines().filter(|line| line.contains(group)).map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Ignore;

impl RawHandler for Ignore {
    async fn handle(&self, _record: &Record) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_refuses_is_reported_once_with_what_to_do() {
    let lines = Lines::default();
    let writer = lines.clone();
    // For all threads, since the poll thread has no other; the only test that sets it.
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).try_init().unwrap();
    let mut scene = Scene::embedded().await;
    scene.mock().create("secret", 1);
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    scene.mock().cluster().topic_error("secret", refused).unwrap();
    // In the new protocol the brokers look after the topics and say nothing.
    let new_group = "reads-what-is-missing";
    let quiet = scene.start(ConsumerBuilder::new(new_group).raw(vec!["nowhere".to_owned()], Ignore));
    let settings = ["group.protocol=classic", "topic.metadata.refresh.interval.ms=200"];
    scene.kafka.settings.extend(settings.map(str::to_owned));
    let group = "reads-what-is-refused";
    let topics = vec!["nowhere".to_owned(), "secret".to_owned()];
    let consumer = scene.start(ConsumerBuilder::new(group).raw(topics, Ignore));
    eventually(PATIENCE, "two complaints", async || match lines.with(group) {
        lines if lines.iter().filter(|line| line.contains("Kafka refuses")).count() == 2 => Ok(()),
        other => Err(other),
    })
    .await;
    // Time for ten more answers of the broker.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut told: Vec<_> = lines.with(group).into_iter().filter(|line| !line.contains("INFO")).collect();
    told.sort_by_key(|line| line.contains("secret"));
    let [missing, secret] = &told[..] else { panic!("{told:#?}") };
    assert!(missing.contains("nowhere") && missing.contains("create the topic"), "{missing}");
    assert!(secret.contains("allow this user to read the topic"), "{secret}");
    eventually(PATIENCE, "complaint without the client's help", async || match lines.with(new_group) {
        lines
            if lines.iter().filter(|line| line.contains("nowhere") && line.contains("create the topic")).count()
                == 1 =>
        {
            Ok(())
        }
        other => Err(other),
    })
    .await;
    quiet.shutdown(Duration::from_secs(5)).await.unwrap();
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}
