//! `dlt`: dead letters that a real consumer wrote, and their way back to it.

mod scene;

use std::{
    collections::HashSet,
    process::{Child, Stdio},
    sync::atomic::Ordering,
};

use event_runtime::consumer::dead_letter::{DeadLetter, header};
use serde_json::Value;
use shared_events::topics::{dead_letter_topic, quarantine_topic};
use test_support::records::{publish_raw, read_until, type_of};

use self::scene::{FAILING, Group, Kafka, Noted, OTHER, PATIENCE, TOPIC};
use crate::{Ran, command, eventctl};

async fn dlt(kafka: &Kafka, arguments: &[&str]) -> Ran {
    let brokers = kafka.config().brokers;
    eventctl(&[&["dlt"], arguments, &["-b", &brokers, "-o", "json"]].concat()).await
}

async fn json(kafka: &Kafka, arguments: &[&str]) -> Value {
    let ran = dlt(kafka, arguments).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

/// How many letters the actions of a replay are about.
fn letters(replay: &Value) -> u64 {
    replay["actions"].as_array().unwrap().iter().map(|action| action["letters"].as_u64().unwrap()).sum()
}

fn in_the_background(kafka: &Kafka, arguments: &[&str]) -> Child {
    let brokers = kafka.config().brokers;
    let mut command = command(&[&["dlt"], arguments, &["-b", &brokers]].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_in_the_middle_is_resumed_and_each_letter_handled_once_by_the_failing_group_alone() {
    let kafka = Kafka::start().await;
    let count = if kafka.is_real() { 10_000 } else { 1_000 };
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let failing = Group::start(&kafka, FAILING, true).await;
    let other = Group::start(&kafka, OTHER, false).await;
    let ids = kafka.publish(count).await;
    kafka.wait_for_records(&dead, count).await;
    failing.wait_until_done(&kafka).await;
    other.wait_until_done(&kafka).await;
    assert_eq!((failing.handled().len(), other.handled().len()), (0, count));

    failing.broken.store(false, Ordering::SeqCst);
    // Five seconds in all, of which the kill takes place after little more than one.
    let rate = (count / 5).to_string();
    let mut killed = in_the_background(&kafka, &["replay", "--all", "--execute", "--rate", &rate]);
    kafka.wait_for_records(TOPIC.name, count + count / 4).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let at_the_kill = kafka.records(TOPIC.name).await - count;
    assert!(at_the_kill < count, "the kill came too late: {at_the_kill} were replayed");
    let left = count - kafka.committed("eventctl.dlt-replay", &dead).await;

    let resumed = json(&kafka, &["replay", "--all", "--execute"]).await;
    assert_eq!(letters(&resumed), left as u64, "what was acknowledged and committed is not replayed again: {resumed}");
    assert_eq!(kafka.committed("eventctl.dlt-replay", &dead).await, count, "nothing is left");
    let nothing = json(&kafka, &["replay", "--all", "--execute"]).await;
    assert_eq!((letters(&nothing), &nothing["leftOut"]["replayedBefore"]), (0, &count.into()), "{nothing}");

    // What a kill between an acknowledgement and its commit repeats, a second replay of everything repeats for certain.
    let again = json(&kafka, &["replay", "--all", "--execute", "--again"]).await;
    assert_eq!(letters(&again), count as u64);
    failing.wait_until_done(&kafka).await;
    other.wait_until_done(&kafka).await;
    let replays = kafka.records(TOPIC.name).await - count;
    assert!(replays >= 2 * count, "{replays}");
    let handled = failing.handled();
    assert_eq!(handled.len(), count, "each once");
    assert_eq!(handled.into_iter().collect::<HashSet<_>>(), ids.into_iter().collect());
    for (key, numbers) in failing.numbers() {
        assert!(numbers.is_sorted(), "the order of {key}: {numbers:?}");
    }
    assert_eq!(failing.metric("consumer_records_duplicate_total"), replays - count);
    assert_eq!((other.handled().len(), other.metric("consumer_records_skipped_total")), (count, replays));
    assert_eq!(kafka.records(&quarantine_topic(TOPIC.name, FAILING)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_shown_and_replayed_by_what_is_selected() {
    let kafka = Kafka::start().await;
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let failing = Group::start(&kafka, FAILING, true).await;
    let ids = kafka.publish(10).await;
    kafka.wait_for_records(&dead, 10).await;
    failing.wait_until_done(&kafka).await;

    let list = json(&kafka, &["list"]).await;
    let row = |class: &str| list.as_array().unwrap().iter().find(|row| row["errorClass"] == class).unwrap();
    for class in ["rejected", "retries-exhausted"] {
        let row = row(class);
        assert_eq!((&row["topic"], &row["group"]), (&TOPIC.name.into(), &FAILING.into()), "{list}");
        assert_eq!((&row["letters"], &row["waiting"]), (&5.into(), &5.into()), "{list}");
        assert!(row["oldest"].as_str() <= row["newest"].as_str() && row["oldest"].is_string(), "{list}");
    }
    assert_eq!(json(&kafka, &["list", "--group", OTHER]).await, serde_json::json!([]));

    // One is shown by its event and by its place.
    let id = ids[3].to_string();
    let shown = json(&kafka, &["show", &id]).await;
    let letter = &shown[0];
    assert_eq!((&letter["group"], &letter["errorClass"]), (&FAILING.into(), &"rejected".into()), "{shown}");
    assert_eq!((&letter["error"], &letter["attempts"]), (&"nobody knows such a note".into(), &1.into()), "{shown}");
    assert_eq!((&letter["state"], &letter["replayCount"]), (&"waiting".into(), &0.into()), "{shown}");
    assert_eq!((&letter["data"]["number"], &letter["original"]["topic"]), (&3.into(), &TOPIC.name.into()), "{shown}");
    assert_eq!(letter["headers"]["kafka_dlt-original-offset"], letter["original"]["offset"].to_string());
    let (partition, offset) = (&letter["letter"]["partition"], &letter["letter"]["offset"]);
    assert_eq!(json(&kafka, &["show", &format!("{dead}:{partition}:{offset}")]).await, shown);

    // The plan publishes nothing; what is selected goes, and nothing else.
    failing.broken.store(false, Ordering::SeqCst);
    let plan = json(&kafka, &["replay", "--error-class", "rejected"]).await;
    assert_eq!((letters(&plan), &plan["executed"], &plan["leftOut"]["notSelected"]), (5, &false.into(), &5.into()));
    assert_eq!(kafka.records(TOPIC.name).await, 10);
    json(&kafka, &["replay", "--error-class", "rejected", "--execute"]).await;
    failing.wait_until_done(&kafka).await;
    assert_eq!(failing.handled().len(), 5);

    // What was not selected still waits, and nothing else.
    let list = json(&kafka, &["list"]).await;
    let waiting: Vec<_> = list.as_array().unwrap().iter().map(|row| (&row["errorClass"], &row["waiting"])).collect();
    assert_eq!(waiting, [(&"rejected".into(), &0.into()), (&"retries-exhausted".into(), &5.into())], "{list}");
    let rest = json(&kafka, &["replay", "--all", "--execute"]).await;
    assert_eq!(letters(&rest), 5, "what was replayed above the first letter that waits is known: {rest}");
    failing.wait_until_done(&kafka).await;
    assert_eq!(failing.handled().into_iter().collect::<HashSet<_>>(), ids.into_iter().collect());
    assert_eq!(failing.handled().len(), 10);
    assert_eq!(json(&kafka, &["show", &id]).await[0]["state"], "replayed");
    assert_eq!(json(&kafka, &["list"]).await[0]["waiting"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_so_many_replays_goes_to_quarantine() {
    let kafka = Kafka::start().await;
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let quarantine = quarantine_topic(TOPIC.name, FAILING);
    let failing = Group::start(&kafka, FAILING, true).await;
    let id = kafka.publish(1).await[0].to_string();
    for round in 1..=2 {
        kafka.wait_for_records(&dead, round).await;
        let replayed = json(&kafka, &["replay", "--id", &id, "--max-replays", "2", "--execute"]).await;
        assert_eq!((letters(&replayed), &replayed["actions"][0]["action"]), (1, &"replay".into()), "round {round}");
    }
    kafka.wait_for_records(&dead, 3).await;
    let replayed = json(&kafka, &["replay", "--id", &id, "--max-replays", "2", "--execute"]).await;
    assert_eq!((letters(&replayed), &replayed["actions"][0]["to"]), (1, &quarantine.as_str().into()), "{replayed}");
    failing.wait_until_done(&kafka).await;
    assert_eq!((kafka.records(TOPIC.name).await, kafka.records(&dead).await), (3, 3));
    let records = read_until(&kafka.config(), &quarantine, PATIENCE, |records| !records.is_empty()).await;
    let letter = DeadLetter::read(&records[0]).unwrap();
    assert_eq!((letter.replay_count, letter.group.as_str()), (2, FAILING), "a letter it still is");
    assert!(failing.handled().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_can_be_replayed_to_another_topic_and_as_another_type() {
    let kafka = Kafka::start().await;
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let failing = Group::start(&kafka, FAILING, true).await;
    kafka.publish(1).await;
    kafka.wait_for_records(&dead, 1).await;
    failing.wait_until_done(&kafka).await;
    // Any topic that is there will do.
    let other = dead_letter_topic(TOPIC.name, OTHER);
    let all = ["replay", "--all", "--execute"];
    let ran = dlt(&kafka, &[&all[..], &["--to", "note"]].concat()).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("--to: topic \"note\" does not exist"), "{ran:?}");
    json(&kafka, &[&all[..], &["--to", &other, "--type", "note.corrected"]].concat()).await;
    let records = read_until(&kafka.config(), &other, PATIENCE, |records| !records.is_empty()).await;
    assert_eq!((type_of(&records[0]), records[0].key.as_deref()), ("note.corrected", Some(b"key-0".as_slice())));
    assert_eq!(records[0].header(header::TARGET_GROUP), Some(FAILING.as_bytes()));
    assert_eq!(kafka.records(TOPIC.name).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_under_a_wrong_key_fails_in_every_replay_until_it_has_the_key_of_its_event() {
    let kafka = Kafka::start().await;
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let failing = Group::start(&kafka, FAILING, false).await;
    let note = |number| Noted { key: "mine".to_owned(), number };
    let (id, wrong) = kafka.publish_under("yours", &note(7)).await;
    kafka.wait_for_records(&dead, 1).await;
    let shown = json(&kafka, &["show", &id.to_string()]).await;
    let error = r#"the record's key is "yours", but the key of its note.written is "mine""#;
    assert_eq!((&shown[0]["error"], &shown[0]["errorClass"]), (&error.into(), &"rejected".into()), "{shown}");
    json(&kafka, &["replay", "--all", "--execute"]).await;
    kafka.wait_for_records(&dead, 2).await;
    json(&kafka, &["replay", "--all", "--with-key", "mine", "--execute"]).await;
    let (_, right) = kafka.publish_under("mine", &note(8)).await;
    failing.wait_until_done(&kafka).await;
    assert_eq!(failing.numbers(), [("mine".to_owned(), vec![7, 8])].into());
    assert_eq!((right.offset, kafka.records(&dead).await), (1, 2), "it stands where its key belongs");
    assert_ne!(right.partition, wrong.partition);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let kafka = Kafka::start().await;
    let table: [(&[&str], i32, &str); 5] = [
        (&["replay"], 2, "--all"),
        (&["replay", "--since", "yesterday"], 2, "@-10m"),
        (&["replay", "--group", "note-service"], 1, "there are: notes.notes-service.dlt, notes.other-service.dlt"),
        (&["replay", "--id", "018f2d0e-0000-7000-8000-000000000001"], 1, "no dead letter"),
        (&["show", "018f2d0e-0000-7000-8000-000000000001"], 1, "no dead letter"),
    ];
    for (arguments, code, says) in table {
        let ran = dlt(&kafka, arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mended_leaves_quarantine_and_is_handled() {
    let kafka = Kafka::start().await;
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let failing = Group::start(&kafka, FAILING, true).await;
    kafka.publish(2).await;
    kafka.wait_for_records(&dead, 2).await;
    failing.wait_until_done(&kafka).await;
    let quarantined = json(&kafka, &["replay", "--all", "--max-replays", "0", "--execute"]).await;
    assert_eq!((letters(&quarantined), kafka.records(TOPIC.name).await), (2, 2), "{quarantined}");
    assert_eq!(json(&kafka, &["list"]).await[0]["waiting"], 0);
    let list = json(&kafka, &["list", "--quarantined"]).await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["waiting"]), (2, &1.into()), "by error class: {list}");

    failing.broken.store(false, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.json"), folder.path().join("bad.json"));
    std::fs::write(&good, "{\"key\":\"key-0\",\"number\":100}\n").unwrap();
    std::fs::write(&bad, "{\"key\":").unwrap();
    let from = ["replay", "--quarantined", "--execute"];
    let ran = dlt(&kafka, &[&from[..], &["--all", "--value-file", good.to_str().unwrap()]].concat()).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("are for one letter; 2 are selected"), "{ran:?}");
    let ran = dlt(&kafka, &[&from[..], &["--key", "key-0", "--value-file", bad.to_str().unwrap()]].concat()).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the new value is no JSON"), "{ran:?}");
    json(&kafka, &[&from[..], &["--key", "key-0", "--value-file", good.to_str().unwrap()]].concat()).await;
    let brokers = kafka.config().brokers;
    let by_hand = |editor: &str| {
        let mut edit = command(&["dlt", "replay", "--quarantined", "--all", "--edit", "--execute", "-b", &brokers]);
        let ended = edit.env("VISUAL", editor).env_remove("EDITOR").output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let unchanged = by_hand("true");
    assert!(unchanged.0 == Some(1) && unchanged.1.contains("nothing was changed"), "{unchanged:?}");
    assert_eq!(by_hand("sed -i /number/s/1/101/").0, Some(0));
    failing.wait_until_done(&kafka).await;
    let mut numbers: Vec<_> = failing.numbers().into_iter().collect();
    numbers.sort();
    assert_eq!(numbers, [("key-0".to_owned(), vec![100]), ("key-1".to_owned(), vec![101])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_without_its_value_is_replayed_with_it() {
    let kafka = Kafka::start().await;
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let _failing = Group::start(&kafka, FAILING, true).await;
    let value = vec![b'x'; 999_700];
    publish_raw(&kafka.config(), TOPIC.name, "big", &[], &value).await;
    let letters = read_until(&kafka.config(), &dead, PATIENCE, |records| !records.is_empty()).await;
    assert_eq!(letters[0].value, None);
    json(&kafka, &["replay", "--all", "--execute"]).await;
    let records = read_until(&kafka.config(), TOPIC.name, PATIENCE, |records| records.len() == 2).await;
    assert!(records[1].value == Some(value) && records[1].header(header::TARGET_GROUP).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_letters_are_gone_and_not_left_to_be_replayed() {
    let kafka = Kafka::start().await;
    let dead = dead_letter_topic(TOPIC.name, FAILING);
    let failing = Group::start(&kafka, FAILING, true).await;
    kafka.publish(6).await;
    kafka.wait_for_records(&dead, 6).await;
    failing.wait_until_done(&kafka).await;
    json(&kafka, &["replay", "--key", "key-0", "--execute"]).await;
    kafka.wait_for_records(&dead, 7).await;
    assert_eq!(dlt(&kafka, &["purge"]).await.code, 2, "which ones has to be said");
    let plan = json(&kafka, &["purge", "--all"]).await;
    assert_eq!((&plan[0]["topic"], &plan[0]["records"]), (&dead.as_str().into(), &7.into()), "{plan}");
    assert_eq!(json(&kafka, &["list"]).await.as_array().unwrap().len(), 2, "a plan deletes nothing");
    if !kafka.is_real() {
        let ran = dlt(&kafka, &["purge", "--all", "--execute"]).await;
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("this broker cannot delete records"), "{ran:?}");
        return;
    }
    let replayed = json(&kafka, &["purge", "--group", FAILING, "--replayed", "--execute"]).await;
    let left = json(&kafka, &["replay", "--all"]).await;
    let deleted = replayed.as_array().unwrap().first().map_or(0, |row| row["records"].as_u64().unwrap());
    assert!((1..=6).contains(&deleted) && letters(&left) == 6, "{replayed} {left}");
    json(&kafka, &["purge", "--group", FAILING, "--execute"]).await;
    assert_eq!(json(&kafka, &["list"]).await, serde_json::json!([]));
    let end: i64 = kafka.ends(&dead).await.into_values().sum();
    assert_eq!(kafka.committed("eventctl.dlt-replay", &dead).await, end as usize);
}
