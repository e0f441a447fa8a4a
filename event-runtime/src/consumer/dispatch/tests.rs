//! What the dispatcher makes of partitions that come and go.

use std::{collections::HashSet, sync::mpsc::sync_channel};

use tokio::sync::watch;

use super::*;
use crate::{
    Clock, Origin, RawHandler,
    config::KafkaConfig,
    consumer::{
        kinds::{Handler, Raw},
        metrics::ConsumerMetrics,
        overrun::Overruns,
    },
    producer::Producer,
    scheduler::Limits,
};

const GROUP: &str = "notes-service";
const LONG: Duration = Duration::from_secs(60);

/// One whose Kafka is nowhere: it is not asked.
fn dispatcher() -> Dispatcher {
    let kafka = KafkaConfig::new("127.0.0.1:1");
    let (commands, metrics) = (Arc::new(Commands::default()), ConsumerMetrics::default());
    let producer = Producer::new(&kafka).unwrap();
    let overruns = Overruns::start(GROUP, metrics.clone()).unwrap();
    let (clock, gauges) = (Clock::system(), metrics.gauges(GROUP));
    let runner = Runner { group: GROUP, clock, producer, timeout: LONG, metrics: metrics.clone(), gauges, overruns };
    let (flood, _) = watch::channel(None);
    let (watchdog, _) = Watchdog::new(GROUP, kafka, LONG, commands.clone());
    Dispatcher {
        router: Router::new(GROUP),
        runner: Arc::new(runner),
        commands,
        scheduler: Scheduler::new(Limits { concurrency: 1, records: 10, bytes: 1000 }),
        progress: Progress { group: GROUP, ends: Arc::default(), metrics, shown: HashSet::new(), flood },
        watchdog,
        membership: Arc::default(),
        custody: Custody::new(None, GROUP),
        work: Work::new(),
    }
}

/// The poll thread gives up on a revoke that is answered too late, and may have the partition back before the dispatcher
/// notices that its drain is over.
#[tokio::test]
async fn a_partition_that_came_back_is_not_given_up_by_the_revoke_before() {
    let mut dispatcher = dispatcher();
    let [stays, goes] = [0, 1].map(|number| Partition { topic: "orders".into(), number });
    let (answer, answered) = sync_channel(1);
    dispatcher.take_in(Incoming::Assigned(vec![stays.clone(), goes.clone()], 1));
    dispatcher.take_in(Incoming::Revoked(vec![stays.clone(), goes], LONG, answer));
    dispatcher.take_in(Incoming::Assigned(vec![stays.clone()], 2));
    dispatcher.answer_revoke();
    let assigned: Vec<_> = dispatcher.scheduler.assigned().collect();
    assert_eq!(assigned, [(&stays, 2)], "and the other one is gone");
    assert!(answered.try_recv().is_err(), "nobody waits for an answer");
}

struct Never;

impl RawHandler for Never {
    async fn handle(&self, _record: &Record) -> Result<(), HandlerError> {
        unreachable!("its partition was taken away before it was begun")
    }
}

#[tokio::test]
async fn an_attempt_that_its_chunk_hands_back_after_its_partition_was_taken_away_goes_no_further() {
    let mut dispatcher = dispatcher();
    let handler: Arc<dyn Handler> = Arc::new(Raw(Never));
    assert!(dispatcher.router.add_raw(&["orders".to_owned()], &handler));
    let partition = Partition { topic: "orders".into(), number: 0 };
    let origin = Origin { topic: "orders".into(), partition: 0, offset: 7 };
    let record = Record { origin, timestamp: None, key: None, value: None, headers: Vec::new() };
    dispatcher.take_in(Incoming::Assigned(vec![partition.clone()], 1));
    dispatcher.take_in(Incoming::Records(vec![(partition.clone(), 1, record)]));
    dispatcher.start_attempts();
    let ticket = *dispatcher.work.running.keys().next().unwrap();
    let job = dispatcher.work.running[&ticket].job.clone();
    dispatcher.take_in(Incoming::Lost(vec![partition]));

    let attempt: Running = Box::pin(dispatcher.runner.clone().run(job, Task::Handle { last_attempt: false }, 1));
    let tasks = dispatcher.work.attempts.len();
    dispatcher.chunk_ended(vec![ticket], ChunkEnded { attempts: vec![Polled::Runs(attempt)], at_once: None });
    assert_eq!(dispatcher.work.attempts.len(), tasks, "it has no task");
    assert!(dispatcher.work.running.is_empty());
}
