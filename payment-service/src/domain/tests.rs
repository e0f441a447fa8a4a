use jiff::{SignedDuration, Timestamp};
use shared_events::{Money, OrderCreated, OrderId, OrderItem, Pattern};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

/// Expires at second 30.
fn created() -> OrderCreated {
    OrderCreated {
        order_id: OrderId::new(),
        user_id: None,
        customer_email: "ada@example.org".to_owned(),
        items: vec![OrderItem { sku: "COFFEE-1KG".to_owned(), quantity: 1, unit_price: Money::eur(1250) }],
        total: Money::eur(1250),
        payment_token: "tok_visa".to_owned(),
        pattern: Pattern::Choreography,
        expires_at: at(30),
    }
}

fn payment() -> Payment {
    Payment::new(OrderId::new(), Some(Money::eur(1250)), at(0))
}

fn asked() -> Payment {
    let mut payment = payment();
    payment.on_created(&created(), at(1));
    payment
}

fn succeeded() -> Payment {
    let mut payment = asked();
    payment.charged("ch_1".to_owned(), Money::eur(1250), at(2));
    payment
}

#[test]
fn every_state_is_found_by_its_name() {
    for state in State::ALL {
        assert_eq!(State::named(state.name()), Some(state));
    }
    assert_eq!(State::named("paid"), None);
}

#[test]
fn an_order_is_charged_until_it_expires() {
    assert_eq!(payment().on_created(&created(), at(30)), OnCreated::Charge { asked_at: None });
    assert_eq!(payment().on_created(&created(), at(31)), OnCreated::Refuse(EXPIRED));
}

#[test]
fn a_repeated_attempt_knows_that_the_gateway_was_asked() {
    let mut payment = asked();
    assert_eq!(payment.on_created(&created(), at(5)), OnCreated::Charge { asked_at: Some(at(1)) });
    assert_eq!(payment.on_created(&created(), at(31)), OnCreated::LookUp { asked_at: at(5) });
    assert_eq!(payment.attempts, 2, "a look-up is no attempt to charge");
}

#[test]
fn another_pattern_is_not_charged_here() {
    let event = OrderCreated { pattern: Pattern::Unknown, ..created() };
    assert_eq!(payment().on_created(&event, at(1)), OnCreated::Ignore);
}

#[test]
fn what_has_ended_is_not_charged_again() {
    let mut failed = asked();
    failed.failed("no", None, at(2));
    let mut refunding = succeeded();
    refunding.on_cancelled(at(3));
    let mut refunded = refunding.clone();
    refunded.refunded("ch_1".to_owned(), Money::eur(1250), at(4));
    for mut payment in [succeeded(), failed, refunding, refunded] {
        let before = payment.clone();
        assert_eq!(payment.on_created(&created(), at(5)), OnCreated::Ignore, "{:?}", before.state);
        assert_eq!(payment, before);
    }
}

#[test]
fn an_order_cancelled_first_is_refused() {
    let mut payment = payment();
    assert_eq!(payment.on_cancelled(at(1)), OnCancelled::Nothing);
    assert_eq!(payment.state, State::Cancelled);
    assert_eq!(payment.on_created(&created(), at(2)), OnCreated::Refuse(CANCELLED));
    payment.failed(CANCELLED, None, at(2));
    assert_eq!(payment.state, State::Cancelled, "it stays cancelled, so that a replay is refused as well");
}

#[test]
fn a_charge_is_refunded_until_the_gateway_has_done_it() {
    let mut payment = succeeded();
    for _ in 0..2 {
        assert_eq!(payment.on_cancelled(at(3)), OnCancelled::Refund("ch_1".to_owned()));
        assert_eq!(payment.state, State::Refunding);
    }
    payment.refunded("ch_1".to_owned(), Money::eur(1250), at(4));
    assert_eq!(payment.on_cancelled(at(5)), OnCancelled::Nothing);
}

#[test]
fn an_unknown_outcome_is_looked_up_when_the_order_is_cancelled() {
    let mut charging = asked();
    assert_eq!(charging.on_cancelled(at(40)), OnCancelled::LookUp { unsettled_since: at(1) });
    assert_eq!(charging.state, State::Cancelled, "a replayed order.created must not charge any more");
    assert_eq!(charging.on_cancelled(at(41)), OnCancelled::LookUp { unsettled_since: at(1) });

    let mut unanswered = asked();
    unanswered.failed(NO_ANSWER, Some(at(9)), at(10));
    assert_eq!(unanswered.on_cancelled(at(40)), OnCancelled::LookUp { unsettled_since: at(9) });
    assert_eq!((unanswered.state, unanswered.reason.as_deref()), (State::Failed, Some(NO_ANSWER)));

    for mut payment in [charging, unanswered] {
        payment.settled_without_charge(at(50));
        assert_eq!(payment.on_cancelled(at(51)), OnCancelled::Nothing);
    }
}

#[test]
fn a_decline_needs_no_look_up() {
    let mut declined = asked();
    declined.failed("the card was declined", None, at(2));
    assert_eq!(declined.on_cancelled(at(3)), OnCancelled::Nothing);
    assert_eq!(declined.state, State::Failed);
}
