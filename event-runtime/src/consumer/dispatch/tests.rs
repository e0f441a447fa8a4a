//! What the dispatcher makes of partitions that come and go.

use std::{collections::HashSet, sync::mpsc::sync_channel};

use tokio::sync::watch;

use super::*;
use crate::{
    Clock,
    config::KafkaConfig,
    consumer::{metrics::ConsumerMetrics, overrun::Overruns},
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
    let runner =
        Runner { group: GROUP, clock: Clock::system(), producer, timeout: LONG, metrics: metrics.clone(), overruns };
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
