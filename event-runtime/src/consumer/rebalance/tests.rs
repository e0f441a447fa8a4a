use std::thread;

use super::*;

const GENERATION: Generation = 7;

fn partition(topic: &str, number: i32) -> Partition {
    Partition { topic: topic.into(), number }
}

/// A member's context without a client, and what the dispatcher hears of it.
fn member() -> (Rebalances, mpsc::Receiver<Incoming>) {
    let (incoming, heard) = mpsc::channel(1);
    let rebalances = Rebalances {
        group: "notes-service",
        drain_deadline: Duration::ZERO,
        is_static: false,
        incoming,
        commands: Arc::default(),
        membership: Arc::default(),
        metrics: ConsumerMetrics::default(),
        committer: OnceLock::new(),
        complaints: Arc::default(),
        owned: Arc::default(),
        stranded: AtomicBool::default(),
    };
    (rebalances, heard)
}

/// Partitions 0 to 3 as they were when they were revoked: all but the last have an offset that was to be committed.
fn removed() -> Vec<(Partition, OwnedPartition)> {
    let removed = (0..4).map(|number| {
        let wanted = (number < 3).then_some(10);
        let owned = OwnedPartition { generation: GENERATION, next: None, paused: false, wanted, sent: None };
        (partition("orders", number), owned)
    });
    removed.collect()
}

fn drained(rebalances: &Rebalances) -> Vec<(i32, i64)> {
    let removed = removed();
    let partitions = removed.iter().map(|(partition, _)| partition.clone()).collect();
    let offsets = rebalances.drained(partitions, &removed, Duration::ZERO).into_iter();
    offsets.map(|(partition, offset)| (partition.number, offset)).collect()
}

#[test]
fn a_revoke_without_an_answer_commits_what_is_known_of_its_generation() {
    let (rebalances, heard) = member();
    let wish = |number, generation, offset| {
        rebalances.commands.commit(partition("orders", number), generation, offset);
    };
    wish(1, GENERATION, 11);
    wish(2, GENERATION - 1, 99);
    wish(4, GENERATION, 50);
    drop(heard);
    assert_eq!(drained(&rebalances), [(0, 10), (1, 11), (2, 10)]);
    let left: Vec<_> = rebalances.commands.take().commits.into_keys().collect();
    assert_eq!(left, [partition("orders", 4)], "what is still owned is committed as ever");
}

#[test]
fn of_a_dispatcher_that_is_late_what_is_known_is_committed() {
    let (rebalances, _heard) = member();
    assert_eq!(drained(&rebalances), [(0, 10), (1, 10), (2, 10)]);
}

#[test]
fn what_the_dispatcher_answers_is_committed() {
    let (rebalances, mut heard) = member();
    let dispatcher = thread::spawn(move || match heard.blocking_recv() {
        Some(Incoming::Revoked(partitions, _, answer)) => answer.send(vec![(partitions[1].clone(), 12)]),
        _ => panic!("a revoke is told"),
    });
    assert_eq!(drained(&rebalances), [(1, 12)]);
    dispatcher.join().unwrap().unwrap();
}

/// Has partition 0 taken away while the dispatcher knows that 12 is to be read next, and the broker answers that. What it
/// was asked to commit, and how long the dispatcher was given.
fn revoked(is_static: bool, lost: bool, answer: Result<(), String>) -> (Rebalances, Vec<(i32, i64)>, Duration) {
    let (mut rebalances, mut heard) = member();
    (rebalances.drain_deadline, rebalances.is_static) = (Duration::from_secs(10), is_static);
    let (asked, asks) = sync_channel(1);
    let commit = move |offsets: &Offsets| {
        asked.send(offsets.iter().map(|(partition, offset)| (partition.number, *offset)).collect()).unwrap();
        answer.clone()
    };
    assert!(rebalances.committer.set(Committer::with(rebalances.group, commit).unwrap()).is_ok());
    rebalances.owned().add(&partition("orders", 0), GENERATION);
    let dispatcher = thread::spawn(move || match heard.blocking_recv() {
        Some(Incoming::Revoked(partitions, within, answer)) => {
            answer.send(vec![(partitions[0].clone(), 12)]).unwrap();
            within
        }
        _ => panic!("a revoke is told"),
    });
    rebalances.revoked(vec![partition("orders", 0)], lost);
    let within = dispatcher.join().unwrap();
    (rebalances, asks.try_recv().unwrap_or_default(), within)
}

#[test]
fn what_is_said_to_be_lost_is_cut_off_at_once_and_the_broker_decides_about_its_offsets() {
    for (lost, within) in [(false, Duration::from_secs(10)), (true, Duration::ZERO)] {
        for (answer, failures) in [(Ok(()), 0), (Err("unknown member".to_owned()), 1)] {
            let (rebalances, asked, given) = revoked(false, lost, answer);
            assert_eq!((asked, given), (vec![(0, 12)], within), "lost: {lost}");
            let counted = rebalances.metrics.commit_failures.get_or_create(&rebalances.labels()).get();
            assert_eq!(counted, failures);
            assert!(rebalances.owned().take_all().is_empty(), "nothing of it is committed any more");
        }
    }
}

#[test]
fn a_static_member_commits_nothing_of_what_is_lost() {
    for (lost, wanted) in [(false, vec![(0, 12)]), (true, Vec::new())] {
        assert_eq!(revoked(true, lost, Ok(())).1, wanted, "lost: {lost}");
    }
}

#[test]
fn partitions_are_named_in_ranges() {
    let mut owned: Vec<Partition> = [5, 0, 1, 3, 2].map(|number| partition("orders", number)).into();
    owned.push(partition("mails", 0));
    assert_eq!(names(&owned), "mails[0] orders[0-3,5]");
    assert_eq!(names(&[]), "");
}
