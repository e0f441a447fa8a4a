//! Reads the ledger over HTTP, mails from a folder or from Mailpit, and the topics.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use event_runtime::{
    Record,
    config::KafkaConfig,
    consumer::dead_letter::{self, DeadLetter},
    reader::{Brokers, Position, Reader},
};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use shared_events::{OrderId, topics};

use super::facts::{Charge, EventRecord, Facts, Letter, Mail};
use crate::lag;

/// How long nothing may come while the topics are read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every charge the gateway at `url` ever made.
///
/// # Errors
/// When it does not answer, or with something else.
pub async fn charges(url: &str) -> anyhow::Result<Vec<Charge>> {
    let url = format!("{}/charges", url.trim_end_matches('/'));
    get(&client()?, &url).await.with_context(|| format!("the payment gateway's ledger at {url} cannot be read"))
}

/// Every mail of Mailpit at `url`.
///
/// # Errors
/// When it does not answer, or with something else.
pub async fn mailpit(url: &str) -> anyhow::Result<Vec<Mail>> {
    #[derive(Deserialize)]
    struct Page {
        messages: Vec<Message>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Message {
        #[serde(rename = "MessageID")]
        message_id: String,
        subject: String,
    }
    const PAGE: usize = 500;

    let http = client()?;
    let base = url.trim_end_matches('/');
    let mut mails = Vec::new();
    loop {
        let page = format!("{base}/api/v1/messages?start={}&limit={PAGE}", mails.len());
        let page: Page = get(&http, &page).await.with_context(|| format!("Mailpit at {base} cannot be read"))?;
        let last = page.messages.is_empty();
        mails.extend(page.messages.iter().map(|message| mail(&message.message_id, &message.subject)));
        if last {
            return Ok(mails);
        }
    }
}

/// The mails in a folder: one file each, `.eml`.
///
/// # Errors
/// When a file cannot be read, or has no Message-ID.
pub fn folder(path: &Path) -> anyhow::Result<Vec<Mail>> {
    let unreadable = || format!("the mails in {} cannot be read", path.display());
    let mut mails = Vec::new();
    for entry in fs::read_dir(path).with_context(unreadable)? {
        let file = entry.with_context(unreadable)?.path();
        if file.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let bytes = fs::read(&file).with_context(unreadable)?;
        let text = String::from_utf8_lossy(&bytes);
        let message_id =
            header(&text, "Message-ID").with_context(|| format!("{} has no Message-ID", file.display()))?;
        mails.push(mail(&message_id, &header(&text, "Subject").unwrap_or_default()));
    }
    Ok(mails)
}

/// A mail's header, unfolded. Subjects of ours are ASCII, so nothing is decoded.
fn header(text: &str, name: &str) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    let head = text.split("\n\n").next()?.replace("\n ", " ").replace("\n\t", " ");
    let values = head.lines().filter_map(|line| line.split_once(':'));
    let value = values.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    value.map(|(_, value)| value.trim().to_owned())
}

fn mail(message_id: &str, subject: &str) -> Mail {
    Mail {
        message_id: message_id.trim_matches(['<', '>']).to_owned(),
        order: subject.split_whitespace().find_map(|word| word.parse::<OrderId>().ok()),
    }
}

/// Adds what the topics and the groups' offsets say.
///
/// # Errors
/// When the broker does not answer, or does not hand the topics out.
pub fn topics(kafka: &KafkaConfig, facts: &mut Facts) -> anyhow::Result<()> {
    // Before the topics: a record that comes meanwhile is then read and not yet passed.
    for row in lag::of_groups(kafka, topics::GROUPS)? {
        if let Some(offset) = row.current_offset {
            facts.committed.insert((row.group, row.topic, row.partition), offset);
        }
    }
    let brokers = Brokers::new(kafka, None)?;
    // Not those that put dead letters aside: these stand in their dead-letter topics as well.
    let ours = |name: &str| {
        topics::TOPICS.iter().any(|topic| topic.name == name) || topics::dead_letter_topics().any(|topic| topic == name)
    };
    let existing: BTreeMap<String, i32> = brokers.topics()?.into_iter().filter(|(name, _)| ours(name)).collect();
    for (topic, partitions) in &existing {
        for partition in 0..*partitions {
            if brokers.watermarks(topic, partition)?.0 > 0 {
                facts.trimmed.insert(topic.clone());
            }
        }
    }
    if existing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = existing.into_keys().collect();
    let mut reader = Reader::open(kafka, &names, Position::Start, Timestamp::now())?;
    while let Some(record) = reader.next_kept(Instant::now() + PATIENCE)? {
        note(&record, facts);
    }
    ensure!(reader.caught_up(), "the topics' records did not come within {PATIENCE:?}");
    facts.records.sort_by(|a, b| {
        let place = |record: &'_ EventRecord| (record.origin.partition, record.origin.offset);
        (&a.origin.topic, place(a)).cmp(&(&b.origin.topic, place(b)))
    });
    Ok(())
}

fn note(record: &Record, facts: &mut Facts) {
    let envelope = record.envelope().ok();
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()?.parse::<OrderId>().ok());
    if record.origin.topic.ends_with(".dlt") {
        let letter = DeadLetter::read(record);
        let class = record.header(dead_letter::header::EXCEPTION_FQCN).unwrap_or_default();
        facts.letters.push(Letter {
            origin: record.origin.clone(),
            group: letter.as_ref().map(|letter| letter.group.clone()).unwrap_or_default(),
            original: letter.map(|letter| letter.original),
            key,
            event: envelope.map(|envelope| envelope.id),
            class: String::from_utf8_lossy(class).into_owned(),
        });
    } else if let Some(envelope) = envelope {
        facts.records.push(EventRecord {
            origin: record.origin.clone(),
            time: record.timestamp.unwrap_or(envelope.time),
            key,
            event: envelope.id,
            event_type: envelope.event_type,
        });
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?)
}

async fn get<T: DeserializeOwned>(http: &reqwest::Client, url: &str) -> reqwest::Result<T> {
    http.get(url).send().await?.error_for_status()?.json().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_known_by_its_id_and_by_the_order_its_subject_names() {
        let text = "From: a@b.example\r\nmessage-id:\r\n <x@b.example>\r\nSubject: Order \r\n \
                    01890a5d-ac96-774b-bcce-b302099a8057 is confirmed\r\n\r\nSubject: not this\r\n";
        let subject = header(text, "Subject").unwrap();
        let mail = mail(&header(text, "Message-ID").unwrap(), &subject);
        assert_eq!(mail.message_id, "x@b.example");
        assert_eq!(mail.order, "01890a5d-ac96-774b-bcce-b302099a8057".parse().ok());
        assert_eq!(header("Subject: x\r\n\r\nTo: y", "To"), None, "the body has no headers");
    }
}
