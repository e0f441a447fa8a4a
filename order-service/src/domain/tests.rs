use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const PAYMENT: PaymentId = PaymentId(Uuid::from_u128(7));

fn all_happenings() -> Vec<Happening> {
    vec![
        Happening::PaymentSucceeded(PAYMENT),
        Happening::PaymentFailed { reason: "declined".to_owned() },
        Happening::PaymentRefunded(PAYMENT),
        Happening::StockReserved,
        Happening::StockRejected { reason: "sold out".to_owned() },
        Happening::StockReleased,
        Happening::StockCommitted,
        Happening::DeadlineReached,
    ]
}

const PAYMENTS: [Payment; 4] =
    [Payment::Open, Payment::Failed, Payment::Succeeded(PAYMENT), Payment::Refunded(PAYMENT)];
const STOCKS: [Stock; 5] = [Stock::Open, Stock::Rejected, Stock::Reserved, Stock::Released, Stock::Committed];

fn saga(state: State, payment: Payment, stock: Stock) -> Saga {
    let reason = (state == State::Cancelled).then(|| "earlier".to_owned());
    Saga { state, reason, payment, stock }
}

/// The payment after an event: the table that [`Payment::learn`] stands for.
fn payment_after(before: Payment, happening: &Happening) -> Payment {
    use Happening as H;
    use Payment as P;
    match (before, happening) {
        (P::Open, H::PaymentFailed { .. }) => P::Failed,
        (P::Open | P::Failed, H::PaymentSucceeded(id)) => P::Succeeded(*id),
        (P::Open | P::Failed | P::Succeeded(_), H::PaymentRefunded(id)) => P::Refunded(*id),
        (unchanged, _) => unchanged,
    }
}

fn stock_after(before: Stock, happening: &Happening) -> Stock {
    use Happening as H;
    use Stock as S;
    match (before, happening) {
        (S::Open, H::StockRejected { .. }) => S::Rejected,
        (S::Open | S::Rejected, H::StockReserved) => S::Reserved,
        (S::Open | S::Rejected | S::Reserved, H::StockReleased) => S::Released,
        (S::Open | S::Rejected | S::Reserved, H::StockCommitted) => S::Committed,
        (unchanged, _) => unchanged,
    }
}

#[test]
fn an_ended_order_takes_note_of_every_event_and_publishes_nothing() {
    for state in [State::Completed, State::Cancelled] {
        for payment in PAYMENTS {
            for stock in STOCKS {
                for happening in all_happenings() {
                    let before = saga(state, payment, stock);
                    let mut after = before.clone();
                    assert_eq!(after.on(&happening), None, "{before:?} on {happening:?}");
                    let expected = Saga {
                        payment: payment_after(payment, &happening),
                        stock: stock_after(stock, &happening),
                        ..before.clone()
                    };
                    assert_eq!(after, expected, "{before:?} on {happening:?}");
                }
            }
        }
    }
}

#[test]
fn every_state_a_pending_order_can_be_in_answers_every_event_as_the_table_says() {
    use Happening as H;
    use Payment as P;
    use Stock as S;
    let cancelled = |reason: &str| Some(Ending::Cancelled { reason: reason.to_owned() });
    let completed = Some(Ending::Completed { payment_id: PAYMENT });
    let declined = H::PaymentFailed { reason: "declined".to_owned() };
    let sold_out = H::StockRejected { reason: "sold out".to_owned() };
    let late = |what: &str| cancelled(&format!("{what} was not confirmed in time"));
    let refunded = || cancelled("the payment was refunded");
    let released = || cancelled("the reserved items were released");
    let table = [
        (P::Open, S::Open, H::PaymentSucceeded(PAYMENT), None),
        (P::Open, S::Open, declined.clone(), cancelled("declined")),
        (P::Open, S::Open, H::PaymentRefunded(PAYMENT), refunded()),
        (P::Open, S::Open, H::StockReserved, None),
        (P::Open, S::Open, sold_out.clone(), cancelled("sold out")),
        (P::Open, S::Open, H::StockReleased, released()),
        (P::Open, S::Open, H::StockCommitted, None),
        (
            P::Open,
            S::Open,
            H::DeadlineReached,
            cancelled("neither the payment nor the reservation was confirmed in time"),
        ),
        (P::Succeeded(PAYMENT), S::Open, H::PaymentSucceeded(PAYMENT), None),
        (P::Succeeded(PAYMENT), S::Open, declined.clone(), None),
        (P::Succeeded(PAYMENT), S::Open, H::PaymentRefunded(PAYMENT), refunded()),
        (P::Succeeded(PAYMENT), S::Open, H::StockReserved, completed.clone()),
        (P::Succeeded(PAYMENT), S::Open, sold_out.clone(), cancelled("sold out")),
        (P::Succeeded(PAYMENT), S::Open, H::StockReleased, released()),
        (P::Succeeded(PAYMENT), S::Open, H::StockCommitted, completed.clone()),
        (P::Succeeded(PAYMENT), S::Open, H::DeadlineReached, late("the reservation")),
        (P::Open, S::Reserved, H::PaymentSucceeded(PAYMENT), completed.clone()),
        (P::Open, S::Reserved, declined.clone(), cancelled("declined")),
        (P::Open, S::Reserved, H::PaymentRefunded(PAYMENT), refunded()),
        (P::Open, S::Reserved, H::StockReserved, None),
        (P::Open, S::Reserved, sold_out.clone(), None),
        (P::Open, S::Reserved, H::StockReleased, released()),
        (P::Open, S::Reserved, H::StockCommitted, None),
        (P::Open, S::Reserved, H::DeadlineReached, late("the payment")),
        (P::Open, S::Committed, H::PaymentSucceeded(PAYMENT), completed),
        (P::Open, S::Committed, declined, cancelled("declined")),
        (P::Open, S::Committed, H::PaymentRefunded(PAYMENT), refunded()),
        (P::Open, S::Committed, H::StockReserved, None),
        (P::Open, S::Committed, sold_out, None),
        (P::Open, S::Committed, H::StockReleased, None),
        (P::Open, S::Committed, H::StockCommitted, None),
        (P::Open, S::Committed, H::DeadlineReached, late("the payment")),
    ];
    for (payment, stock, happening, expected) in table {
        let before = saga(State::Pending, payment, stock);
        let mut after = before.clone();
        assert_eq!(after.on(&happening), expected, "{before:?} on {happening:?}");
        assert_eq!(after.payment, payment_after(payment, &happening), "{before:?} on {happening:?}");
        assert_eq!(after.stock, stock_after(stock, &happening), "{before:?} on {happening:?}");
        let state = match expected {
            None => State::Pending,
            Some(Ending::Completed { .. }) => State::Completed,
            Some(Ending::Cancelled { .. }) => State::Cancelled,
        };
        assert_eq!(after.state, state, "{before:?} on {happening:?}");
        assert_eq!(after.reason.is_some(), state == State::Cancelled);
    }
}

#[test]
fn a_success_after_the_cancellation_is_noted_and_answered_by_nothing() {
    let mut saga = Saga::default();
    assert!(saga.on(&Happening::DeadlineReached).is_some());
    assert_eq!(saga.on(&Happening::StockReserved), None);
    assert_eq!(saga.on(&Happening::PaymentSucceeded(PAYMENT)), None);
    assert_eq!(
        (saga.state, saga.payment, saga.stock),
        (State::Cancelled, Payment::Succeeded(PAYMENT), Stock::Reserved)
    );
    assert_eq!(saga.on(&Happening::PaymentRefunded(PAYMENT)), None);
    assert_eq!(saga.on(&Happening::StockReleased), None);
    assert_eq!((saga.payment, saga.stock), (Payment::Refunded(PAYMENT), Stock::Released));
}

/// What one service may say of one order, in its order.
fn payment_story() -> impl Strategy<Value = Vec<Happening>> {
    let failed = Happening::PaymentFailed { reason: "declined".to_owned() };
    prop_oneof![
        Just(vec![]),
        Just(vec![Happening::PaymentSucceeded(PAYMENT)]),
        Just(vec![failed.clone()]),
        Just(vec![Happening::PaymentSucceeded(PAYMENT), Happening::PaymentRefunded(PAYMENT)]),
        Just(vec![failed, Happening::PaymentRefunded(PAYMENT)]),
    ]
}

fn stock_story() -> impl Strategy<Value = Vec<Happening>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![Happening::StockReserved]),
        Just(vec![Happening::StockRejected { reason: "sold out".to_owned() }]),
        Just(vec![Happening::StockReserved, Happening::StockReleased]),
    ]
}

/// Both stories and the deadline, each event once to three times, in any order.
fn deliveries() -> impl Strategy<Value = Vec<Happening>> {
    (payment_story(), stock_story())
        .prop_flat_map(|(payment, stock)| {
            let events: Vec<_> = payment.into_iter().chain(stock).chain([Happening::DeadlineReached]).collect();
            let copies = prop::collection::vec(1usize..=3, events.len());
            (Just(events), copies)
        })
        .prop_flat_map(|(events, copies)| {
            let all: Vec<_> =
                events.iter().zip(copies).flat_map(|(event, n)| std::iter::repeat_n(event.clone(), n)).collect();
            Just(all).prop_shuffle()
        })
}

proptest! {
    #[test]
    fn any_interleaving_and_duplication_ends_in_exactly_one_ending(deliveries in deliveries()) {
        let mut saga = Saga::default();
        let endings: Vec<Ending> = deliveries.iter().filter_map(|happening| saga.on(happening)).collect();
        prop_assert_eq!(endings.len(), 1, "{:?}", endings);
        match &endings[0] {
            Ending::Completed { payment_id } => {
                prop_assert_eq!(*payment_id, PAYMENT);
                prop_assert_eq!(saga.state, State::Completed);
                prop_assert!(deliveries.contains(&Happening::PaymentSucceeded(PAYMENT)));
                prop_assert!(deliveries.contains(&Happening::StockReserved));
                prop_assert_eq!(saga.reason, None);
            }
            Ending::Cancelled { reason } => {
                prop_assert_eq!(saga.state, State::Cancelled);
                prop_assert_eq!(saga.reason.as_ref(), Some(reason));
            }
        }
    }

    #[test]
    fn what_is_known_at_the_end_does_not_depend_on_the_order_of_the_events(
        (mut first, second) in deliveries().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
    ) {
        let known = |events: &[Happening]| {
            let mut saga = Saga::default();
            for event in events {
                let _ending = saga.on(event);
            }
            (saga.payment, saga.stock)
        };
        first.dedup();
        prop_assert_eq!(known(&first), known(&second));
    }
}

#[test]
fn the_total_is_the_sum_of_quantity_times_price() {
    let item = |quantity, minor| OrderItem { sku: "X".to_owned(), quantity, unit_price: Money::eur(minor) };
    assert_eq!(total(&[item(2, 1890), item(1, 990)]), Ok(Money::eur(4770)));
    assert_eq!(total(&[]), Ok(Money::eur(0)));
    assert_eq!(total(&[item(2, i64::MAX)]), Err(MoneyError::Overflow));
}
