//! `idempotency-demo`: the same duplicates, handled with protection and without, and what the payment gateway's ledger says
//! about it afterwards. Two layers keep a customer from being charged twice, and each is shown apart: the inbox, which
//! remembers the event's id, and the gateway's idempotency key, which stays the same however often a charge is asked for.
//!
//! The handlers without protection live here, on the runtime's own pieces: payment-service has no setting that would turn its
//! protection off, so nobody can do that by accident.

mod show;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use event_runtime::{
    Clock, ConsumerBuilder, ConsumerContext, Database, Delivery, EffectHandler, HandlerError, Outbox, PlainHandler,
    Prepared, Tx,
    consumer::ConsumerMetrics,
    embedded::EmbeddedBroker,
    producer::{OutgoingRecord, Producer},
    reader::Brokers,
};
use eventctl::verify::gather::charges;
use jiff::Timestamp;
use payment_service::gateway::Gateway;
use serde::Serialize;
use shared_events::{Envelope, Event, Money, OrderCreated, OrderId, OrderItem, Pattern};
use tokio::{task::spawn_blocking, time::sleep};

pub use show::{DemoArgs, run};

/// How the events come: A once more behind another one, C once more at once, B a single time.
pub const DELIVERED: [&str; 5] = ["A", "B", "A", "C", "C"];

/// How long all deliveries may take; a slow machine needs seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How duplicates are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing remembers the event, and each attempt to charge has a key of its own.
    Unprotected,
    /// Nothing remembers the event; the gateway remembers the key.
    KeyKept,
    /// The inbox remembers the event. The key is kept too, for a crash between charge and commit.
    Inbox,
}

/// All of them, from the worst on.
pub const WAYS: [Way; 3] = [Way::Unprotected, Way::KeyKept, Way::Inbox];

impl Way {
    /// The consumer group that handles so.
    fn group(self) -> &'static str {
        match self {
            Way::Unprotected => "idempotency-demo.unprotected",
            Way::KeyKept => "idempotency-demo.key-kept",
            Way::Inbox => "idempotency-demo.inbox",
        }
    }

    /// What an event that was delivered so often must come to: how often it is handled, and charged.
    fn stated(self, delivered: u64) -> (u64, u64) {
        match self {
            Way::Unprotected => (delivered, delivered),
            Way::KeyKept => (delivered, 1),
            Way::Inbox => (1, 1),
        }
    }
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// A, B or C.
    pub event: &'static str,
    /// How often it stands in the topic.
    pub delivered: u64,
    /// How often the handler was called.
    pub handled: u64,
    /// How many charges the gateway's ledger has for it.
    pub charged: u64,
}

/// What became of all events in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How they were handled.
    pub way: Way,
    /// Each event.
    pub tallies: Vec<Tally>,
}

impl Outcome {
    /// Whether the numbers are those that the way is known for.
    pub fn is_as_stated(&self) -> bool {
        let stated = |tally: &Tally| (tally.handled, tally.charged) == self.way.stated(tally.delivered);
        self.tallies.iter().all(stated)
    }
}

/// The topic with its duplicates, which each way reads for itself.
pub struct Scene {
    broker: EmbeddedBroker,
    events: Vec<(&'static str, OrderCreated)>,
}

impl Scene {
    /// Starts a broker and writes the events as [`DELIVERED`] says.
    ///
    /// # Errors
    /// When the broker does not start or takes no records.
    pub async fn start() -> anyhow::Result<Scene> {
        let broker = EmbeddedBroker::start(1).context("the embedded broker did not start")?;
        broker.create_topic(OrderCreated::TOPIC.name, 1)?;
        // By its amount the ledger tells which event a charge is for, whatever its key.
        let events = [("A", 1100), ("B", 2200), ("C", 3300)].map(|(name, minor)| (name, order(minor)));
        let producer = Producer::new(&broker.config())?;
        let envelopes: BTreeMap<_, _> = events
            .iter()
            .map(|(name, event)| (*name, Envelope::new(event, "idempotency-demo", Timestamp::now())))
            .collect();
        for delivered in DELIVERED {
            let (name, event) =
                events.iter().find(|(name, _)| *name == delivered).context("every delivery is an event")?;
            let headers = envelopes[name].to_headers();
            let record = OutgoingRecord {
                topic: OrderCreated::TOPIC.name.to_owned(),
                partition: Some(0),
                key: Some(event.key().into_bytes()),
                value: Some(serde_json::to_vec(event)?),
                headers: headers.into_iter().map(|(name, value)| (name.into(), Some(value.into_bytes()))).collect(),
            };
            producer.send(record).await?;
        }
        Ok(Scene { broker, events: events.to_vec() })
    }

    /// Handles all deliveries in this way, against a gateway of its own, and counts.
    ///
    /// # Errors
    /// When something does not start, or the deliveries are not handled in time.
    pub async fn play(&self, way: Way) -> anyhow::Result<Outcome> {
        let config = payment_gateway_fake::Config { listen: ([127, 0, 0, 1], 0).into(), ..Default::default() };
        let bank = payment_gateway_fake::bind(config).await?;
        let url = format!("http://{}", bank.address());
        let bank = tokio::spawn(bank.run(std::future::pending()));
        // It waits for as long as it takes: a charge that is given up and asked for again would be counted twice.
        let gateway = Gateway::new(&url, PATIENCE)?;

        let charging = Charging { gateway, way, calls: Arc::default() };
        let calls = charging.calls.clone();
        // Of one partition, one after the other: in the order of their deliveries.
        let consumer = ConsumerBuilder::new(way.group()).concurrency(1);
        let consumer = match way {
            Way::Unprotected | Way::KeyKept => consumer.plain(WithoutInbox(charging)),
            Way::Inbox => {
                let database = Database::connect_lazy("sqlite::memory:")?;
                database.migrate(&[]).await?;
                consumer.effect(&database, WithInbox(charging))
            }
        };
        let kafka = self.broker.config();
        let producer = Producer::new(&kafka)?;
        let context = ConsumerContext { kafka, producer, clock: Clock::system(), metrics: ConsumerMetrics::default() };
        let consumer = consumer.handler_timeout(PATIENCE).start(context)?;
        self.all_handled(way).await?;
        consumer.shutdown(Duration::from_secs(5)).await?;

        let ledger = charges(&url).await?;
        bank.abort();
        let calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = |(name, event): &(&'static str, OrderCreated)| Tally {
            event: name,
            delivered: count(DELIVERED.iter().filter(|delivered| *delivered == name)),
            handled: calls.get(&event.order_id).copied().unwrap_or_default(),
            charged: count(ledger.iter().filter(|charge| charge.amount == event.total)),
        };
        Ok(Outcome { way, tallies: self.events.iter().map(tally).collect() })
    }

    /// Waits until the group is past the last delivery: then each was handled, or found to be handled before.
    async fn all_handled(&self, way: Way) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let partition = (OrderCreated::TOPIC.name.to_owned(), 0);
        loop {
            let (kafka, asked) = (self.broker.config(), partition.clone());
            let committed =
                spawn_blocking(move || Brokers::new(&kafka, Some(way.group()))?.committed([asked])).await??;
            let past = committed.get(&partition).copied().flatten().unwrap_or_default();
            if past == DELIVERED.len() as i64 {
                return Ok(());
            }
            let group = way.group();
            ensure!(Instant::now() < until, "{group} is past {past} of {} records after {PATIENCE:?}", DELIVERED.len());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn count(found: impl Iterator) -> u64 {
    found.count() as u64
}

fn order(minor: i64) -> OrderCreated {
    let total = Money::eur(minor);
    OrderCreated {
        order_id: OrderId::new(),
        user_id: None,
        customer_email: "ada@example.com".to_owned(),
        items: vec![OrderItem { sku: "COFFEE-1KG".to_owned(), quantity: 1, unit_price: total }],
        total,
        payment_token: "tok_visa".to_owned(),
        pattern: Pattern::Choreography,
        expires_at: Timestamp::MAX,
    }
}

/// Charges orders, and counts how often it was called.
struct Charging {
    gateway: Gateway,
    way: Way,
    calls: Arc<Mutex<BTreeMap<OrderId, u64>>>,
}

impl Charging {
    async fn charge(&self, delivery: &Delivery<OrderCreated>) -> Result<(), HandlerError> {
        let order = &delivery.event;
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(order.order_id).or_default() += 1;
        let key = match self.way {
            // The mistake: whoever makes a key for each request has none for the order.
            Way::Unprotected => OrderId::new(),
            Way::KeyKept | Way::Inbox => order.order_id,
        };
        let charged = self.gateway.charge(key, order.total, &order.payment_token, delivery.deadline, || true).await;
        charged.map(drop).map_err(HandlerError::retry)
    }
}

/// At least once, and nothing remembers an event.
struct WithoutInbox(Charging);

impl PlainHandler for WithoutInbox {
    type Event = OrderCreated;

    async fn handle(&self, delivery: &Delivery<OrderCreated>) -> Result<(), HandlerError> {
        self.0.charge(delivery).await
    }
}

/// As payment-service does it, without its own rows: whatever remembers an event here is the inbox.
struct WithInbox(Charging);

impl EffectHandler for WithInbox {
    type Event = OrderCreated;
    type Plan = ();
    type Outcome = ();

    async fn prepare(&self, _: &mut Tx, _: &Delivery<OrderCreated>) -> Result<Prepared<()>, HandlerError> {
        Ok(Prepared::Do(()))
    }

    async fn effect(&self, (): &(), delivery: &Delivery<OrderCreated>) -> Result<(), HandlerError> {
        self.0.charge(delivery).await
    }

    async fn complete(
        &self,
        _: &mut Tx,
        _: &mut Outbox,
        _: &Delivery<OrderCreated>,
        (): (),
    ) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_as_stated_are_told_from_those_that_are() {
        // Of an event that was delivered twice: handled, charged.
        for (way, stated) in [(Way::Unprotected, (2, 2)), (Way::KeyKept, (2, 1)), (Way::Inbox, (1, 1))] {
            for counted in [(2, 2), (2, 1), (1, 1), (1, 0), (0, 0), (3, 1)] {
                let once = Tally { event: "B", delivered: 1, handled: 1, charged: 1 };
                let twice = Tally { event: "A", delivered: 2, handled: counted.0, charged: counted.1 };
                let outcome = Outcome { way, tallies: vec![once, twice] };
                assert_eq!(outcome.is_as_stated(), counted == stated, "{outcome:?}");
            }
        }
    }
}
