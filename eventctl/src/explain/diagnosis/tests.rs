use super::{
    super::evidence::{Inspection, KafkaEvidence, OrderState, Outbox, SeenDeadLetter, SeenEvent},
    *,
};
use crate::lag::Lag;

const NOW: &str = "2026-01-31T12:00:00Z";

/// An order that was created on Kafka and on which everybody has an empty desk.
struct Case(Evidence);

fn pending() -> Case {
    let order = OrderState { state: "pending".to_owned(), reason: None, created_at: None, expires_at: None };
    let services = [ORDER, PAYMENT, INVENTORY, EMAIL].map(|service| ServiceEvidence {
        service: service.to_owned(),
        address: format!("http://{service}"),
        address_source: "from the command line".to_owned(),
        embedded: false,
        inspection: Answer::Known(Inspection::default()),
    });
    let case = Case(Evidence {
        order_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
        order: Answer::Known(order),
        services: services.to_vec(),
        payment_gateway: "http://gateway:8090/".to_owned(),
        kafka: Answer::Known(KafkaEvidence { complete: true, ..KafkaEvidence::default() }),
    });
    case.said("order.created", "orders", 42)
}

impl Case {
    fn kafka(&mut self) -> &mut KafkaEvidence {
        match &mut self.0.kafka {
            Answer::Known(kafka) => kafka,
            other => panic!("{other:?}"),
        }
    }

    fn inspection(&mut self, who: &str) -> &mut Answer<Inspection> {
        &mut self.0.services.iter_mut().find(|service| service.service == who).unwrap().inspection
    }

    fn state(mut self, state: &str, reason: Option<&str>) -> Case {
        let reason = reason.map(str::to_owned);
        self.0.order =
            Answer::Known(OrderState { state: state.to_owned(), reason, created_at: None, expires_at: None });
        self
    }

    fn said(mut self, event: &str, topic: &str, offset: i64) -> Case {
        self.kafka().events.push(SeenEvent {
            time: None,
            event: event.to_owned(),
            source: String::new(),
            topic: topic.to_owned(),
            partition: 3,
            offset,
        });
        self
    }

    fn nothing_said(mut self) -> Case {
        self.kafka().events.clear();
        self
    }

    fn dead(mut self, group: &str, event: &str, error: &str) -> Case {
        self.kafka().dead_letters.push(SeenDeadLetter {
            time: None,
            group: group.to_owned(),
            event: event.to_owned(),
            topic: format!("orders.{group}.dlt"),
            partition: 0,
            offset: 0,
            attempts: 4,
            error: error.to_owned(),
            replayed: false,
        });
        self
    }

    fn replayed(mut self) -> Case {
        self.kafka().dead_letters.iter_mut().for_each(|letter| letter.replayed = true);
        self
    }

    fn in_hand(mut self, who: &str, state: &str, attempt: u32, error: Option<&str>) -> Case {
        let record = InFlight {
            event: "order.created".to_owned(),
            topic: "orders".to_owned(),
            partition: 3,
            offset: 42,
            attempt,
            state: state.to_owned(),
            last_error: error.map(str::to_owned),
            next_retry_at: error.filter(|_| state == "waiting").map(|_| "2026-01-31T12:00:02.5Z".parse().unwrap()),
        };
        match self.inspection(who) {
            Answer::Known(inspection) => inspection.in_flight.push(record),
            other => panic!("{other:?}"),
        }
        self
    }

    fn outbox(mut self, who: &str, rows: i64, age: f64) -> Case {
        let outbox = Outbox { rows, oldest_age_seconds: Some(age) };
        *self.inspection(who) = Answer::Known(Inspection { in_flight: Vec::new(), outbox });
        self
    }

    fn silent(mut self, who: &str) -> Case {
        *self.inspection(who) = Answer::Silent("connection refused".to_owned());
        self
    }

    fn committed(mut self, group: &str, topic: &str, current: Option<i64>) -> Case {
        self.kafka().lag.push(Lag {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition: 3,
            current_offset: current,
            log_end_offset: 50,
            lag: 0,
            oldest: None,
            oldest_seconds: None,
        });
        self
    }

    fn verdict(&self) -> Verdict {
        diagnose(&self.0, NOW.parse().unwrap())
    }
}

#[test]
fn the_gravest_cause_is_named_with_the_next_command() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let table = [
        (
            pending().dead(PAYMENT, "order.created", "gateway said 500").silent(PAYMENT),
            "payment-service gave up order.created after 4 attempts: gateway said 500",
            "eventctl dlt show orders.payment-service.dlt:0:0".to_owned(),
        ),
        (
            pending().dead(PAYMENT, "order.created", "gateway said 500").replayed().silent(PAYMENT),
            "payment-service does not answer at http://payment-service (from the command line): connection refused",
            "docker compose ps payment-service".to_owned(),
        ),
        (
            pending().silent(INVENTORY).in_hand(PAYMENT, "running", 1, None),
            "inventory-service does not answer at http://inventory-service (from the command line): connection refused",
            "docker compose ps inventory-service".to_owned(),
        ),
        (
            pending().in_hand(PAYMENT, "paused", 1, Some("cannot connect to the gateway")),
            "payment-service waits with order.created for something it needs that is away: cannot connect to the gateway",
            "curl -i http://gateway:8090/health  # does the gateway answer? payment-service asks at its PAYMENT_GATEWAY_URL"
                .to_owned(),
        ),
        (
            pending().in_hand(INVENTORY, "paused", 1, Some("pool timed out")).said("payment.succeeded", "payments", 1),
            "inventory-service waits with order.created for something it needs that is away: pool timed out",
            "docker compose ps --all".to_owned(),
        ),
        (
            pending().in_hand(PAYMENT, "waiting", 3, Some("timed out")).in_hand(INVENTORY, "queued", 1, None),
            "payment-service failed at order.created 2 times and tries again in 2.5 s: timed out",
            format!("docker compose logs --tail 200 payment-service | grep {id}"),
        ),
        (
            pending().in_hand(INVENTORY, "running", 1, None).said("payment.succeeded", "payments", 1),
            "inventory-service is at work on order.created, attempt 1",
            format!("order-service status {id} --watch"),
        ),
        (
            pending().in_hand(PAYMENT, "queued", 1, None).said("stock.reserved", "inventory", 1),
            "order.created waits for its turn in payment-service",
            "eventctl lag --group payment-service".to_owned(),
        ),
        (
            pending().outbox(PAYMENT, 3, 12.4).said("stock.reserved", "inventory", 1),
            "payment-service has not published what it decided: 3 events wait in its outbox, the oldest for 12 s",
            "docker compose logs --tail 200 payment-service".to_owned(),
        ),
        (
            pending().committed(PAYMENT, "orders", Some(40)).said("stock.reserved", "inventory", 1),
            "payment-service has not come to order.created at orders[3]@42: 2 records before it are not done",
            "eventctl lag --group payment-service".to_owned(),
        ),
        (
            pending().committed(PAYMENT, "orders", None).said("stock.reserved", "inventory", 1),
            "payment-service has not come to order.created at orders[3]@42: the group has not committed anything yet",
            "eventctl lag --group payment-service".to_owned(),
        ),
        (
            pending().committed(PAYMENT, "orders", Some(43)),
            "payment-service has nothing in hand for the order, and has not said what came of it",
            format!("docker compose logs --tail 200 payment-service | grep {id}"),
        ),
        (
            pending().nothing_said().outbox(ORDER, 1, 30.0),
            "order-service has not published what it decided: 1 events wait in its outbox, the oldest for 30 s",
            "docker compose logs --tail 200 order-service".to_owned(),
        ),
        (
            pending().nothing_said(),
            "order.created is not on Kafka yet: order-service's relay has not published it",
            "docker compose logs --tail 200 order-service".to_owned(),
        ),
        (
            // One answer that cancels is enough: what inventory does no longer matters.
            pending().said("payment.failed", "payments", 7).silent(INVENTORY).committed(ORDER, "payments", Some(5)),
            "order-service has not come to payment.failed at payments[3]@7: 2 records before it are not done",
            "eventctl lag --group order-service".to_owned(),
        ),
    ];
    for (case, sentence, next) in table {
        match case.verdict() {
            Verdict::Blocked(blocker) => {
                assert_eq!(blocker.sentence, sentence);
                assert_eq!(blocker.next, next, "{sentence}");
            }
            other => panic!("{other:?}, not: {sentence}"),
        }
    }
}

#[test]
fn whoever_waits_is_told_when_the_deadline_cancels_the_order() {
    let away = |expires_at: &str| {
        let mut case = pending().in_hand(PAYMENT, "paused", 1, Some("no gateway"));
        let Answer::Known(order) = &mut case.0.order else { panic!("{:?}", case.0.order) };
        order.expires_at = Some(expires_at.parse().unwrap());
        match case.verdict() {
            Verdict::Blocked(blocker) => blocker.sentence,
            other => panic!("{other:?}"),
        }
    };
    let said = away("2026-01-31T12:00:27.5Z");
    assert!(said.ends_with("no gateway; its deadline cancels the order at 12:00:27 UTC, in 27.5 s"), "{said}");
    let said = away("2026-01-31T11:59:59Z");
    assert!(said.ends_with("no gateway; its deadline has passed, and cancels the order any moment"), "{said}");
}

#[test]
fn without_kafka_or_order_service_these_are_the_blockers() {
    let mut case = pending();
    case.0.kafka = Answer::Silent("no Kafka broker answers at 127.0.0.1:9092".to_owned());
    assert!(matches!(case.verdict(), Verdict::Blocked(blocker) if blocker.who == "Kafka"));
    let mut case = pending();
    case.0.order = Answer::Silent("connection refused".to_owned());
    assert!(matches!(case.verdict(), Verdict::Blocked(blocker) if blocker.who == ORDER));
}

#[test]
fn an_order_that_has_ended_shows_what_is_left_to_do() {
    let ended = || pending().state("cancelled", Some("card declined"));
    let sentence = "the order has ended: cancelled (card declined)".to_owned();
    assert_eq!(ended().verdict(), Verdict::Ended { sentence, open: None });
    // Who is away may be away for any reason: the order has what it needs.
    assert!(matches!(ended().silent(PAYMENT).verdict(), Verdict::Ended { open: None, .. }));
    let mail_is_late = ended().in_hand(EMAIL, "paused", 1, Some("no SMTP server"));
    match mail_is_late.verdict() {
        Verdict::Ended { open: Some(open), .. } => assert_eq!(open.who, EMAIL),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_order_nobody_knows_is_told_from_one_in_another_database() {
    for (case, part) in [(pending().nothing_said(), "nobody knows the order"), (pending(), "another database")] {
        let mut case = case;
        case.0.order = Answer::NotFound;
        assert!(matches!(case.verdict(), Verdict::Unknown(blocker) if blocker.sentence.contains(part)), "{part}");
    }
}

#[test]
fn where_there_are_no_containers_none_are_asked() {
    let silent = pending().silent(PAYMENT);
    let failing = pending().in_hand(PAYMENT, "waiting", 2, Some("timed out"));
    let curl = "curl -s http://payment-service/inspect/01890a5d-ac96-774b-bcce-b302099a8057";
    for (mut case, next) in [(silent, "cargo run"), (failing, curl)] {
        case.0.services.iter_mut().for_each(|service| service.embedded = true);
        assert!(matches!(case.verdict(), Verdict::Blocked(blocker) if blocker.next == next), "{:?}", case.verdict());
    }
}
