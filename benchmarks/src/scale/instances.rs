//! Several consumers of one group, in this process: each with a Kafka client, a scheduler and a concurrency of its own, as
//! if it were a process of its own. Handlers wait and use no CPU, so that what is seen is how work is shared out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use event_runtime::{Consumer, ConsumerBuilder, consumer::ConsumerMetrics, topics::TopicSpec};
use futures_util::future::try_join_all;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;
use shared_events::Event as _;
use tokio::task::spawn_blocking;

use crate::{
    figure::{Results, Round, Subject},
    journal::Journal,
    keyed_io::Sleeper,
    load::{Keys, Load},
    measure::Count,
    site::{PATIENCE, Site},
    topics::{
        Work, Writer,
        topic::{SCALE_1, SCALE_2, SCALE_4},
    },
};

const KEYS: u32 = 1200;
const SLEEP_US: u32 = 5000;
/// Handlers of one instance that wait at the same time.
const CONCURRENCY: usize = 8;
const SEED: u64 = 1;
/// A group forms within this; the embedded broker takes its time over it.
const FORMED_WITHIN: Duration = Duration::from_secs(120);

/// The rate of 1, 2 and 4 instances, and how many times that of one it is, round by round.
pub async fn run(site: &Site, records: u64) -> anyhow::Result<Vec<Results>> {
    let load = Arc::new(Load::drawn(SEED, records, &Keys::Uniform(KEYS), SLEEP_US..=SLEEP_US));
    let settings = json!({
        "records": records, "partitions": Work::<SCALE_1>::TOPIC.partitions, "keys": KEYS, "sleep_us": SLEEP_US,
        "concurrency": CONCURRENCY, "seed": SEED, "embedded": site.is_embedded(),
    });
    let mut rates = Results::new("scale-instances", "records/s", settings.clone());
    let mut times = Results::new("scale-instances", "times one", settings);
    site.steps(3 * u64::from(site.rounds));
    for _ in 0..site.rounds {
        let one = rate::<SCALE_1>(site, &load, 1).await?;
        let more = [(2, rate::<SCALE_2>(site, &load, 2).await?), (4, rate::<SCALE_4>(site, &load, 4).await?)];
        rates.add(&Subject::runtime("1 instance"), Round { value: one, ..Round::default() });
        for (instances, rate) in more {
            let subject = Subject::runtime(format!("{instances} instances"));
            rates.add(&subject, Round { value: rate, ..Round::default() });
            times.add(&subject, Round { value: rate / one, ..Round::default() });
        }
    }
    Ok(vec![rates, times])
}

/// Records/s from the first beginning to the last end.
async fn rate<const TOPIC: usize>(site: &Site, load: &Arc<Load>, instances: usize) -> anyhow::Result<f64> {
    site.step(&format!("scale-instances: {instances}"));
    let topic = Work::<TOPIC>::TOPIC;
    site.make_topics(&[TopicSpec::from(topic)]).await?;
    let journal = Arc::new(Journal::of(load.records()));
    let count = Arc::new(Count::of(load.records() as u64, site.meter));
    let group = site.new_group();
    let members = (0..instances).map(|_| {
        let sleeper = Sleeper::<TOPIC> { journal: Arc::clone(&journal), count: Arc::clone(&count) };
        Member::start(site, ConsumerBuilder::new(group).plain(sleeper).concurrency(CONCURRENCY))
    });
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    shared_out(&members, topic.partitions.unsigned_abs() as usize / instances).await?;

    // Only now: what is read while the group forms would change hands.
    let (writer, written) = (Writer::fast(&site.kafka)?, Arc::clone(load));
    spawn_blocking(move || {
        for work in written.work::<TOPIC>() {
            writer.write(&work, (work.key % topic.partitions.unsigned_abs()) as i32)?;
        }
        writer.finish()
    })
    .await??;
    count.all(PATIENCE).await?;
    try_join_all(members.iter().map(|member| member.consumer.shutdown(PATIENCE))).await?;
    let verdict = journal.verdict(load.keys())?;
    site.remove_topic(topic.name).await?;
    site.step_done();
    Ok(load.records() as f64 / verdict.elapsed.as_secs_f64())
}

/// Waits until each has its share.
async fn shared_out(members: &[Member], share: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let has: Vec<usize> = members.iter().map(Member::partitions).collect();
        if has.iter().all(|partitions| *partitions == share) {
            return Ok(());
        }
        anyhow::ensure!(
            began.elapsed() < FORMED_WITHIN,
            "after {FORMED_WITHIN:?} the instances have {has:?} partitions"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Member {
    consumer: Consumer,
    registry: Registry,
}

impl Member {
    fn start(site: &Site, builder: ConsumerBuilder) -> anyhow::Result<Member> {
        let (metrics, mut registry) = (ConsumerMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        Ok(Member { consumer: site.start(builder, &metrics)?, registry })
    }

    /// How many it has.
    fn partitions(&self) -> usize {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        let mut lines = text.lines().filter(|line| line.starts_with("consumer_assigned_partitions{"));
        lines.find_map(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0)
    }
}
