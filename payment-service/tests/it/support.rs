use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use event_runtime::{
    Clock, Database, Delivery, EffectHandler, HandlerError, Origin, Outbox, Prepared, outbox::OutboxRow,
};
use jiff::{SignedDuration, Timestamp};
use payment_gateway_fake::Config;
use payment_service::{
    domain::Payment,
    gateway::Gateway,
    handlers::{ChargeOrder, RefundOrder},
    store,
};
use serde_json::{Value, json};
use shared_events::{Envelope, Event, Money, OrderCancelled, OrderCreated, OrderId, OrderItem, Pattern};
use test_support::TempDatabase;
use tokio::sync::oneshot;

/// How long the service under test waits for the gateway.
pub const GATEWAY_TIMEOUT: Duration = Duration::from_millis(600);
/// How long after an unanswered request the gateway counts as settled.
pub const SETTLES_AFTER: Duration = Duration::from_secs(5);

/// Longer than an attempt to charge can last, with its wait in line.
pub const LONGEST_ATTEMPT: Duration = Duration::from_secs(30);

/// A payment gateway over real HTTP, which ends when this is dropped.
pub struct FakeGateway {
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
    client: reqwest::Client,
}

impl FakeGateway {
    pub async fn start() -> FakeGateway {
        FakeGateway::with(Config::default()).await
    }

    pub async fn with(config: Config) -> FakeGateway {
        FakeGateway::at(SocketAddr::from(([127, 0, 0, 1], 0)), config).await
    }

    pub async fn at(listen: SocketAddr, config: Config) -> FakeGateway {
        let gateway = payment_gateway_fake::bind(Config { listen, ..config }).await.unwrap();
        let address = gateway.address();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(gateway.run(async {
            stopped.await.ok();
        }));
        FakeGateway { address, _stop: stop, client: reqwest::Client::new() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn faults(&self, faults: Value) {
        let url = format!("{}/faults", self.url());
        assert_eq!(self.client.put(url).json(&faults).send().await.unwrap().status(), 200);
    }

    /// What a gateway does that worked on a request long after its caller had gone.
    pub async fn charge_late(&self, order: &OrderCreated) {
        let body = json!({"amount": order.total, "token": order.payment_token});
        let request = self.client.post(format!("{}/charges", self.url())).json(&body);
        let request = request.header("Idempotency-Key", order.order_id.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    /// Every charge the gateway has made, as its own ledger has it.
    pub async fn ledger(&self) -> Vec<Value> {
        self.client.get(format!("{}/charges", self.url())).send().await.unwrap().json().await.unwrap()
    }

    /// The states of the charges made for `order`.
    pub async fn charges_of(&self, order: OrderId) -> Vec<String> {
        let of_order = |charge: &Value| charge["idempotencyKey"] == order.to_string();
        let ledger = self.ledger().await;
        ledger
            .iter()
            .filter(|charge| of_order(charge))
            .map(|charge| charge["status"].as_str().unwrap().into())
            .collect()
    }
}

/// The handlers of payment-service with a database, a clock that can be set, and a gateway.
pub struct Payments {
    pub database: Database,
    pub charge: ChargeOrder,
    pub refund: RefundOrder,
    skipped: Arc<Mutex<SignedDuration>>,
    _files: TempDatabase,
}

impl Payments {
    pub async fn at(gateway_url: &str) -> Payments {
        Payments::waiting(gateway_url, GATEWAY_TIMEOUT).await
    }

    /// With so much time for an answer.
    pub async fn waiting(gateway_url: &str, timeout: Duration) -> Payments {
        let files = TempDatabase::any().await;
        let database = files.migrated(store::MIGRATIONS).await;
        let gateway = Gateway::new(gateway_url, timeout).unwrap();
        let skipped = Arc::new(Mutex::new(SignedDuration::ZERO));
        let clock = {
            let skipped = skipped.clone();
            Clock::from_fn(move || Timestamp::now() + *skipped.lock().unwrap())
        };
        Payments {
            database,
            charge: ChargeOrder::new(gateway.clone(), clock.clone()),
            refund: RefundOrder::new(gateway, clock, SETTLES_AFTER),
            skipped,
            _files: files,
        }
    }

    pub fn skip(&self, time: Duration) {
        *self.skipped.lock().unwrap() += SignedDuration::try_from(time).unwrap();
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now() + *self.skipped.lock().unwrap()
    }

    /// An order that expires in 30 s.
    pub fn order(&self, token: &str) -> OrderCreated {
        OrderCreated { expires_at: self.now() + SignedDuration::from_secs(30), ..order(token) }
    }

    pub fn delivery<H: EffectHandler>(&self, handler: &H, event: &H::Event, attempt: u32) -> Delivery<H::Event>
    where
        H::Event: Clone,
    {
        let now = self.now();
        Delivery {
            event: event.clone(),
            envelope: Envelope::new(event, "order-service", now).into(),
            origin: Origin { topic: H::Event::TOPIC.name.into(), partition: 0, offset: 0 },
            attempt,
            last_attempt: handler.retry().is_last(attempt),
            now,
            deadline: tokio::time::Instant::now() + LONGEST_ATTEMPT,
            span: tracing::Span::none(),
        }
    }

    /// Attempt number `attempt`, from `prepare` to the commit of `complete`: the events it said.
    pub async fn attempt<H: EffectHandler>(
        &self,
        handler: &H,
        event: &H::Event,
        attempt: u32,
    ) -> Result<Vec<Said>, HandlerError>
    where
        H::Event: Clone,
    {
        let delivery = self.delivery(handler, event, attempt);
        let Some(outcome) = self.until_crash(handler, &delivery).await? else { return Ok(Vec::new()) };
        let mut outbox = Outbox::caused_by("payment-service", &delivery);
        let mut tx = self.database.begin().await?;
        handler.complete(&mut tx, &mut outbox, &delivery, outcome).await?;
        let said = outbox.rows().iter().map(Said::from).collect();
        tx.commit().await?;
        Ok(said)
    }

    /// As an attempt that dies before `complete`: the effect has happened, nothing of it is stored.
    pub async fn until_crash<H: EffectHandler>(
        &self,
        handler: &H,
        delivery: &Delivery<H::Event>,
    ) -> Result<Option<H::Outcome>, HandlerError> {
        let mut tx = self.database.begin().await?;
        let prepared = handler.prepare(&mut tx, delivery).await?;
        tx.commit().await?;
        match prepared {
            Prepared::Nothing => Ok(None),
            Prepared::Do(plan) => handler.effect(&plan, delivery).await.map(Some),
        }
    }

    /// Attempts as the consumer makes them, without its pauses, until one succeeds: what it said and its number.
    pub async fn handle<H: EffectHandler>(&self, handler: &H, event: &H::Event) -> (Vec<Said>, u32)
    where
        H::Event: Clone,
    {
        for attempt in 1..=200 {
            match self.attempt(handler, event, attempt).await {
                Ok(said) => return (said, attempt),
                Err(HandlerError::Retry(_)) if !handler.retry().is_last(attempt) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("attempt {attempt}: {error:?}"),
            }
        }
        panic!("200 attempts were not enough");
    }

    pub async fn stored(&self, order: OrderId) -> Payment {
        store::find(self.database.pool(), order).await.unwrap().expect("there is a payment")
    }
}

/// An order that expires in a minute.
pub fn order(token: &str) -> OrderCreated {
    OrderCreated {
        order_id: OrderId::new(),
        user_id: None,
        customer_email: "ada@example.org".to_owned(),
        items: vec![OrderItem { sku: "COFFEE-1KG".to_owned(), quantity: 1, unit_price: Money::eur(1250) }],
        total: Money::eur(1250),
        payment_token: token.to_owned(),
        pattern: Pattern::Choreography,
        expires_at: Timestamp::now() + SignedDuration::from_mins(1),
    }
}

pub fn cancelled(order: &OrderCreated) -> OrderCancelled {
    OrderCancelled {
        order_id: order.order_id,
        customer_email: order.customer_email.clone(),
        items: order.items.clone(),
        total: order.total,
        reason: "out of stock".to_owned(),
    }
}

/// An event in the outbox.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub event_type: String,
    pub data: Value,
}

impl From<&OutboxRow> for Said {
    fn from(row: &OutboxRow) -> Said {
        let data: Value = serde_json::from_slice(&row.value).unwrap();
        assert_eq!(data["orderId"], row.key, "the key of {} is its order", row.envelope.event_type);
        Said { event_type: row.envelope.event_type.clone(), data }
    }
}

/// The types, and of failures the reason.
pub fn types(said: &[Said]) -> Vec<String> {
    said.iter()
        .map(|said| match said.data["reason"].as_str() {
            Some(reason) => format!("{}: {reason}", said.event_type),
            None => said.event_type.clone(),
        })
        .collect()
}

pub fn amount() -> Value {
    json!({"minor": 1250, "currency": "EUR"})
}

#[track_caller]
pub fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, HandlerError>) {
    assert!(matches!(result, Err(HandlerError::Unavailable(_))), "no outage: {result:?}");
}

#[track_caller]
pub fn assert_retry<T: std::fmt::Debug>(result: Result<T, HandlerError>) {
    assert!(matches!(result, Err(HandlerError::Retry(_))), "not to be tried again: {result:?}");
}
