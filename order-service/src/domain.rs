//! An order's saga as a pure state machine: no I/O, no clock.
//!
//! What is known of payment and stock only ever grows: a fact that outranks what is known replaces it, anything else
//! changes nothing. So duplicates, and events that overtake each other between topics, cannot lead it astray. The
//! decision is taken from the facts, once: whatever order they come in, an order ends in exactly one [`Ending`].
//!
//! A success that arrives after the cancellation is noted and needs no answer: its service handles `order.created` and
//! `order.cancelled` of one order in that order, so by the time it sees the cancellation it knows what it has to undo.

use shared_events::{Money, MoneyError, OrderId, OrderItem, PaymentId};

/// An order as the saga sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    pub customer: String,
    pub items: Vec<OrderItem>,
    pub total: Money,
    pub saga: Saga,
}

/// How far an order has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saga {
    pub state: State,
    /// Why it was cancelled.
    pub reason: Option<String>,
    pub payment: Payment,
    pub stock: Stock,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Pending,
    Completed,
    Cancelled,
}

/// What is known of the payment, in ascending rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payment {
    #[default]
    Open,
    Failed,
    /// Outranks a failure: money that was taken is what counts.
    Succeeded(PaymentId),
    Refunded(PaymentId),
}

/// What is known of the stock, in ascending rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stock {
    #[default]
    Open,
    Rejected,
    Reserved,
    /// As final as [`Committed`](Self::Committed): of the two, the first one stays.
    Released,
    Committed,
}

/// What can happen to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    PaymentSucceeded(PaymentId),
    PaymentFailed { reason: String },
    PaymentRefunded(PaymentId),
    StockReserved,
    StockRejected { reason: String },
    StockReleased,
    StockCommitted,
    DeadlineReached,
}

/// How an order ended: what is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Completed { payment_id: PaymentId },
    Cancelled { reason: String },
}

impl Saga {
    /// Takes note of what happened. Answers the ending if it is this that ends the order.
    pub fn on(&mut self, happening: &Happening) -> Option<Ending> {
        self.note(happening);
        if self.state != State::Pending {
            return None;
        }
        let ending = self.decide(happening)?;
        match &ending {
            Ending::Completed { .. } => self.state = State::Completed,
            Ending::Cancelled { reason } => {
                self.state = State::Cancelled;
                self.reason = Some(reason.clone());
            }
        }
        Some(ending)
    }

    fn note(&mut self, happening: &Happening) {
        match happening {
            Happening::PaymentSucceeded(id) => self.payment.learn(Payment::Succeeded(*id)),
            Happening::PaymentFailed { .. } => self.payment.learn(Payment::Failed),
            Happening::PaymentRefunded(id) => self.payment.learn(Payment::Refunded(*id)),
            Happening::StockReserved => self.stock.learn(Stock::Reserved),
            Happening::StockRejected { .. } => self.stock.learn(Stock::Rejected),
            Happening::StockReleased => self.stock.learn(Stock::Released),
            Happening::StockCommitted => self.stock.learn(Stock::Committed),
            Happening::DeadlineReached => {}
        }
    }

    fn decide(&self, happening: &Happening) -> Option<Ending> {
        let cancelled = |reason: &str| Some(Ending::Cancelled { reason: reason.to_owned() });
        match happening {
            Happening::PaymentFailed { reason } if self.payment == Payment::Failed => return cancelled(reason),
            Happening::StockRejected { reason } if self.stock == Stock::Rejected => return cancelled(reason),
            Happening::DeadlineReached => return cancelled(self.missing()),
            _ => {}
        }
        match (self.payment, self.stock) {
            (Payment::Refunded(_), _) => cancelled("the payment was refunded"),
            (_, Stock::Released) => cancelled("the reserved items were released"),
            (Payment::Succeeded(payment_id), Stock::Reserved | Stock::Committed) => {
                Some(Ending::Completed { payment_id })
            }
            _ => None,
        }
    }

    /// What kept the order from completing in time, in words a customer can read.
    fn missing(&self) -> &'static str {
        match (self.payment, self.stock) {
            (Payment::Open, Stock::Open) => "neither the payment nor the reservation was confirmed in time",
            (Payment::Open, _) => "the payment was not confirmed in time",
            (_, _) => "the reservation was not confirmed in time",
        }
    }
}

impl Payment {
    fn rank(self) -> u8 {
        match self {
            Payment::Open => 0,
            Payment::Failed => 1,
            Payment::Succeeded(_) => 2,
            Payment::Refunded(_) => 3,
        }
    }

    fn learn(&mut self, fact: Payment) {
        if fact.rank() > self.rank() {
            *self = fact;
        }
    }
}

impl Stock {
    fn rank(self) -> u8 {
        match self {
            Stock::Open => 0,
            Stock::Rejected => 1,
            Stock::Reserved => 2,
            Stock::Released | Stock::Committed => 3,
        }
    }

    fn learn(&mut self, fact: Stock) {
        if fact.rank() > self.rank() {
            *self = fact;
        }
    }
}

/// What `items` cost together.
///
/// # Errors
/// When the sum does not fit or the currencies differ.
pub fn total(items: &[OrderItem]) -> Result<Money, MoneyError> {
    let mut sum: Option<Money> = None;
    for item in items {
        let line = item.unit_price.times(item.quantity)?;
        sum = Some(match sum {
            None => line,
            Some(sum) => sum.plus(line)?,
        });
    }
    Ok(sum.unwrap_or(Money::eur(0)))
}

#[cfg(test)]
mod tests;
