//! What an event means for the reservation of its order, and what stock is. No I/O, no clock.

mod shelf;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use shared_events::{Money, OrderCreated, OrderItem, Pattern, StockItem};

pub use shelf::{Moves, Shelf};

/// A product and where its pieces are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StockLevel {
    pub sku: String,
    pub name: String,
    pub price: Money,
    /// How many there were at the start.
    pub seeded: i64,
    /// How many came in by hand since then, less those taken out.
    pub adjustments: i64,
    /// For sale.
    pub available: i64,
    /// Set aside for orders that have not ended.
    pub reserved: i64,
    /// Gone.
    pub sold: i64,
}

impl StockLevel {
    /// Whether every piece that came in is somewhere: seeded + adjustments = available + reserved + sold.
    pub fn adds_up(&self) -> bool {
        self.seeded + self.adjustments == self.available + self.reserved + self.sold
    }
}

/// How far an order's reservation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was decided yet.
    Open,
    /// Set aside.
    Reserved,
    /// Refused; nothing was set aside.
    Rejected,
    /// Was set aside, is for sale again.
    Released,
    /// Sold.
    Committed,
    /// The order was cancelled before anything was decided: a late `order.created` is refused.
    Cancelled,
}

impl State {
    pub const ALL: [State; 6] =
        [State::Open, State::Reserved, State::Rejected, State::Released, State::Committed, State::Cancelled];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Reserved => "reserved",
            State::Rejected => "rejected",
            State::Released => "released",
            State::Committed => "committed",
            State::Cancelled => "cancelled",
        }
    }
}

/// Why an order gets no stock, in words a customer can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the order came too late to be served")]
    Expired,
    #[error("the order was cancelled")]
    Cancelled,
    #[error("{0} is not sold here")]
    UnknownSku(String),
    #[error("{sku} is out of stock{}", stock_left(*left))]
    OutOfStock { sku: String, left: i64 },
    #[error("the items could not be reserved")]
    Failed,
}

fn stock_left(left: i64) -> String {
    if left > 0 { format!(": only {left} left") } else { String::new() }
}

/// What is to be done about an `order.created`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnCreated {
    /// Set all of this aside, or nothing. Sorted by sku, each named once.
    Reserve(Vec<StockItem>),
    /// Say that there will be no stock.
    Reject(Rejection),
    /// It was answered before.
    Answered,
}

/// What is to be done about the end of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnded {
    /// Move what is reserved to its new place.
    Move,
    /// Remember that it was cancelled; there is nothing to move.
    Remember,
    /// It was done before, or there is nothing to do.
    Nothing,
    /// This cannot follow from what happened so far.
    Contradiction,
}

/// Whether stock is reserved on this order's `order.created`. Orders of a pattern this version does not know reserve
/// theirs some other way.
pub fn reserves_on_created(pattern: Pattern) -> bool {
    match pattern {
        Pattern::Choreography => true,
        Pattern::Unknown => false,
    }
}

/// After `order.created`.
pub fn on_created(state: State, created: &OrderCreated, now: Timestamp) -> OnCreated {
    match state {
        State::Open if now > created.expires_at => OnCreated::Reject(Rejection::Expired),
        State::Open => match by_sku(&created.items) {
            Ok(items) => OnCreated::Reserve(items),
            Err(rejection) => OnCreated::Reject(rejection),
        },
        State::Cancelled => OnCreated::Reject(Rejection::Cancelled),
        State::Reserved | State::Rejected | State::Released | State::Committed => OnCreated::Answered,
    }
}

/// After `order.cancelled`.
pub fn on_cancelled(state: State) -> OnEnded {
    match state {
        State::Reserved => OnEnded::Move,
        State::Open => OnEnded::Remember,
        State::Rejected | State::Released | State::Cancelled => OnEnded::Nothing,
        State::Committed => OnEnded::Contradiction,
    }
}

/// After `order.completed`.
pub fn on_completed(state: State) -> OnEnded {
    match state {
        State::Reserved => OnEnded::Move,
        State::Committed => OnEnded::Nothing,
        State::Open | State::Rejected | State::Released | State::Cancelled => OnEnded::Contradiction,
    }
}

/// One line a sku, sorted: whoever takes rows takes them in this order, so that two orders never wait for each other.
fn by_sku(items: &[OrderItem]) -> Result<Vec<StockItem>, Rejection> {
    let mut sums = BTreeMap::<&str, u32>::new();
    for item in items {
        let sum = sums.entry(&item.sku).or_default();
        // More than can be counted is more than there is.
        *sum =
            sum.checked_add(item.quantity).ok_or_else(|| Rejection::OutOfStock { sku: item.sku.clone(), left: 0 })?;
    }
    Ok(sums.into_iter().map(|(sku, quantity)| StockItem { sku: sku.to_owned(), quantity }).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared_events::OrderId;

    use super::*;

    fn created(items: &[(&str, u32)]) -> OrderCreated {
        let price = Money::eur(100);
        let item = |(sku, quantity): &(&str, u32)| OrderItem {
            sku: (*sku).to_owned(),
            quantity: *quantity,
            unit_price: price,
        };
        OrderCreated {
            order_id: OrderId::new(),
            user_id: None,
            customer_email: "ann@example.com".to_owned(),
            items: items.iter().map(item).collect(),
            total: price,
            payment_token: "tok_visa".to_owned(),
            pattern: Pattern::Choreography,
            expires_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn items_are_reserved_by_sku_each_named_once() {
        let OnCreated::Reserve(items) =
            on_created(State::Open, &created(&[("TEA", 1), ("MUG", 2), ("TEA", 3)]), Timestamp::UNIX_EPOCH)
        else {
            panic!("an open order in time is reserved")
        };
        let items: Vec<_> = items.iter().map(|item| (item.sku.as_str(), item.quantity)).collect();
        assert_eq!(items, [("MUG", 2), ("TEA", 4)]);
    }

    #[test]
    fn more_than_can_be_counted_is_out_of_stock() {
        let decided = on_created(State::Open, &created(&[("TEA", u32::MAX), ("TEA", 1)]), Timestamp::UNIX_EPOCH);
        assert_eq!(decided, OnCreated::Reject(Rejection::OutOfStock { sku: "TEA".to_owned(), left: 0 }));
    }

    #[test]
    fn an_order_is_served_up_to_its_last_moment_and_not_after() {
        let created = created(&[("TEA", 1)]);
        let late = created.expires_at + Duration::from_micros(1);
        assert!(matches!(on_created(State::Open, &created, created.expires_at), OnCreated::Reserve(_)));
        assert_eq!(on_created(State::Open, &created, late), OnCreated::Reject(Rejection::Expired));
    }

    #[test]
    fn every_state_has_an_answer_to_every_event() {
        use OnEnded::{Contradiction, Move, Nothing, Remember};
        // state, after cancelled, after completed, whether order.created was answered
        let table = [
            (State::Open, Remember, Contradiction, false),
            (State::Reserved, Move, Move, true),
            (State::Rejected, Nothing, Contradiction, true),
            (State::Released, Nothing, Contradiction, true),
            (State::Committed, Contradiction, Nothing, true),
            (State::Cancelled, Nothing, Contradiction, false),
        ];
        assert_eq!(table.map(|row| row.0), State::ALL);
        for (state, cancelled, completed, answered) in table {
            let decided = on_created(state, &created(&[("TEA", 1)]), Timestamp::UNIX_EPOCH);
            assert_eq!((on_cancelled(state), on_completed(state)), (cancelled, completed), "{state:?}");
            assert_eq!(decided == OnCreated::Answered, answered, "{state:?}");
        }
    }

    #[test]
    fn a_cancelled_order_is_refused_even_in_time() {
        let decided = on_created(State::Cancelled, &created(&[("TEA", 1)]), Timestamp::UNIX_EPOCH);
        assert_eq!(decided, OnCreated::Reject(Rejection::Cancelled));
    }

    #[test]
    fn reasons_are_sentences_for_customers() {
        let out = |left| Rejection::OutOfStock { sku: "MUG-BLUE".to_owned(), left }.to_string();
        assert_eq!(out(0), "MUG-BLUE is out of stock");
        assert_eq!(out(3), "MUG-BLUE is out of stock: only 3 left");
        assert_eq!(Rejection::UnknownSku("MUG-RED".to_owned()).to_string(), "MUG-RED is not sold here");
    }
}
