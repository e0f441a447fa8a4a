//! Reads the dead-letter topics as they are now.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use event_runtime::{
    Origin, Record,
    cli::Output,
    config::KafkaConfig,
    consumer::dead_letter::DeadLetter,
    reader::{Brokers, Committed, Position, ReadError, Reader},
};
use jiff::Timestamp;
use shared_events::header;

use super::progress::Done;

/// What has been replayed, this group's committed offsets and the notes beside them say. It has no members.
pub const REPLAY_GROUP: &str = "eventctl.dlt-replay";

/// How dead-letter topics end: `<topic>.<group>.dlt`.
const DEAD_LETTERS: &str = ".dlt";

/// How those of letters end that are not to be replayed any more: `<topic>.<group>.quarantine`.
const QUARANTINE: &str = ".quarantine";

/// For so long nothing may come before reading is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Which dead-letter topics are read.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TopicArgs {
    /// Only dead letters of this topic, such as orders or orders.payment-service.dlt
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,

    /// Only dead letters of this group, such as payment-service
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Those in quarantine instead, TOPIC.GROUP.quarantine
    #[arg(long)]
    pub quarantined: bool,
}

/// A dead letter, without its record.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where the letter stands.
    pub place: Origin,
    /// What it says about itself.
    pub dead: DeadLetter,
    /// The event's id, if it was an event.
    pub event_id: Option<String>,
    pub state: State,
    /// Whether it is what was asked for.
    pub fits: bool,
    /// When it failed; when it was written, where it does not say.
    pub time: Option<Timestamp>,
}

/// What has become of a dead letter so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits for somebody to replay it.
    Waiting,
    /// It was replayed, by the offsets of [`REPLAY_GROUP`].
    Replayed,
    /// The same event stands in the same topic again, as a later letter: it was replayed and failed once more, or the
    /// letter was written twice.
    Superseded,
}

/// What the dead-letter topics hold.
#[derive(Debug, Default)]
pub struct Letters {
    pub letters: Vec<Letter>,
    /// Records that do not say where they come from, or who failed: not written by event-runtime or Spring.
    pub unreadable: Vec<Origin>,
    /// What [`REPLAY_GROUP`] is done with.
    pub done: BTreeMap<(String, i32), Done>,
}

impl TopicArgs {
    /// Those of `existing` that may hold what is asked for.
    ///
    /// # Errors
    /// When there are none although one was named: it may be misspelt.
    pub fn pick(&self, existing: &BTreeMap<String, i32>) -> anyhow::Result<BTreeMap<String, i32>> {
        let dead = || existing.iter().filter(|(name, _)| name.ends_with(self.suffix()));
        let picked: BTreeMap<String, i32> =
            dead().filter(|(name, _)| self.may_be(name)).map(|(name, count)| (name.clone(), *count)).collect();
        if picked.is_empty() && (self.topic.is_some() || self.group.is_some()) {
            let names: Vec<&str> = dead().map(|(name, _)| name.as_str()).collect();
            anyhow::bail!("no dead-letter topic fits --topic and --group; there are: {}", names.join(", "));
        }
        Ok(picked)
    }

    /// By its name alone, where a dot may belong to the topic's name or to the group's: [`fits`](Self::fits) is exact.
    fn may_be(&self, name: &str) -> bool {
        let topic = self.topic.as_deref().is_none_or(|topic| name == topic || name.starts_with(&format!("{topic}.")));
        topic && self.group.as_deref().is_none_or(|group| name.ends_with(&format!(".{group}{}", self.suffix())))
    }

    fn suffix(&self) -> &'static str {
        if self.quarantined { QUARANTINE } else { DEAD_LETTERS }
    }

    /// The letters of one topic that holds some, if it does by its name.
    pub fn only(topic: &str) -> Option<TopicArgs> {
        let quarantined = topic.ends_with(QUARANTINE);
        let holds = quarantined || topic.ends_with(DEAD_LETTERS);
        holds.then(|| TopicArgs { topic: Some(topic.to_owned()), quarantined, group: None })
    }

    fn fits(&self, place: &Origin, dead: &DeadLetter) -> bool {
        let topic = self.topic.as_deref().is_none_or(|topic| topic == &*dead.original.topic || topic == &*place.topic);
        topic && self.group.as_deref().is_none_or(|group| group == dead.group)
    }
}

impl Letters {
    /// Reads what the topics hold now; `wanted` tells which letters are asked for and sees each whole record.
    ///
    /// # Errors
    /// When no broker answers, or reading comes to a halt.
    pub fn read(
        output: &Output,
        kafka: &KafkaConfig,
        topics: &TopicArgs,
        mut wanted: impl FnMut(&Record, &DeadLetter) -> bool,
    ) -> anyhow::Result<Letters> {
        let picked = topics.pick(&Brokers::new(kafka, None)?.topics()?)?;
        if picked.is_empty() {
            return Ok(Letters::default());
        }
        let partitions = picked.iter().flat_map(|(name, count)| (0..*count).map(|partition| (name.clone(), partition)));
        let mut letters = Letters { done: replayed(kafka, partitions.collect())?, ..Letters::default() };
        let names: Vec<String> = picked.into_keys().collect();
        let mut reader = Reader::open(kafka, &names, Position::Start, Timestamp::now())?;
        while let Some(record) = next(output, &mut reader)? {
            match DeadLetter::read(&record) {
                // A replay for nobody would be skipped by everybody.
                Some(dead) if !dead.group.is_empty() => {
                    let fits = topics.fits(&record.origin, &dead) && wanted(&record, &dead);
                    letters.letters.push(Letter::new(&record, dead, fits));
                }
                _ => letters.unreadable.push(record.origin),
            }
        }
        letters.judge();
        Ok(letters)
    }

    /// Says of each letter what has become of it.
    fn judge(&mut self) {
        self.letters.sort_by(|a, b| key_of(&a.place).cmp(&key_of(&b.place)));
        // The last one of an event is the one that counts: replays of the others were or would be duplicates.
        let mut last: HashMap<(Arc<str>, String), (u32, i64)> = HashMap::new();
        let name = |letter: &Letter| Some((letter.place.topic.clone(), letter.event_id.clone()?));
        for letter in &self.letters {
            let Some(name) = name(letter) else { continue };
            let rank = (letter.dead.replay_count, letter.place.offset);
            last.entry(name).and_modify(|last| *last = (*last).max(rank)).or_insert(rank);
        }
        let done = &self.done;
        for letter in &mut self.letters {
            let rank = (letter.dead.replay_count, letter.place.offset);
            let done = done.get(&(letter.place.topic.to_string(), letter.place.partition));
            letter.state = if done.is_some_and(|done| done.contains(letter.place.offset)) {
                State::Replayed
            } else if name(letter).is_some_and(|name| last.get(&name).is_some_and(|last| *last > rank)) {
                State::Superseded
            } else {
                State::Waiting
            };
        }
    }

    /// The topics that were read.
    pub fn topics(&self) -> HashSet<&str> {
        self.done.keys().map(|(topic, _)| topic.as_str()).collect()
    }
}

impl Letter {
    fn new(record: &Record, dead: DeadLetter, fits: bool) -> Letter {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Letter {
            place: record.origin.clone(),
            time: dead.failed_at.or(record.timestamp),
            event_id: record.header(header::ID).map(text),
            state: State::Waiting,
            dead,
            fits,
        }
    }
}

fn key_of(place: &Origin) -> (&str, i32, i64) {
    (&place.topic, place.partition, place.offset)
}

/// What has been replayed of these partitions.
///
/// # Errors
/// When the group's coordinator does not answer.
pub fn replayed(
    kafka: &KafkaConfig,
    partitions: BTreeSet<(String, i32)>,
) -> Result<BTreeMap<(String, i32), Done>, ReadError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let committed = Brokers::new(kafka, Some(REPLAY_GROUP))?.committed_with_metadata(partitions)?;
    let done = |committed: Option<Committed>| committed.as_ref().map(Done::read).unwrap_or_default();
    Ok(committed.into_iter().map(|(partition, committed)| (partition, done(committed))).collect())
}

/// The record that stands exactly there, if it is still kept.
///
/// # Errors
/// When no broker answers, or there is no such partition.
pub fn record_at(output: &Output, kafka: &KafkaConfig, place: &Origin) -> anyhow::Result<Option<Record>> {
    let begin = BTreeMap::from([((place.topic.to_string(), place.partition), place.offset)]);
    let record = next(output, &mut Reader::open_at(kafka, &begin)?)?;
    Ok(record.filter(|record| record.origin == *place))
}

/// The next of the records that were there when reading began; none when all have been read.
///
/// # Errors
/// When nothing comes for a long time.
pub fn next(output: &Output, reader: &mut Reader) -> anyhow::Result<Option<Record>> {
    let until = Instant::now() + SILENCE;
    let mut disturbed = false;
    while !reader.caught_up() {
        match reader.next(Duration::from_millis(200)) {
            Ok(Some(record)) => return Ok(Some(record)),
            Ok(None) => {}
            Err(error @ ReadError::Disturbed(_)) => {
                if !disturbed {
                    output.note(format_args!("{:#}", anyhow::Error::new(error)));
                }
                disturbed = true;
            }
            Err(error) => return Err(error.into()),
        }
        anyhow::ensure!(Instant::now() < until, "nothing could be read for {} s", SILENCE.as_secs());
    }
    Ok(None)
}
