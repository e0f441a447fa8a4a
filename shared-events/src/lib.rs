//! The contracts between the services: what is said on which topic, and in which form.
//!
//! Pure data: no Kafka client, no clock, no I/O. A new event is a struct in the file of its topic with an [`Event`]
//! implementation, a golden file under `tests/golden/`, and a row in `docs/EVENTS.md`; a test holds the three together.
#![warn(missing_docs)]

mod envelope;
mod event;
mod ids;
mod inventory;
mod mail;
mod money;
mod order;
mod payment;
pub mod topics;

pub use envelope::{Envelope, EnvelopeError, header};
pub use event::Event;
pub use ids::{CorrelationId, EventId, OrderId, PaymentId, UserId};
pub use inventory::{StockCommitted, StockItem, StockRejected, StockReleased, StockReserved};
pub use mail::MailSent;
pub use money::{Currency, Money, MoneyError};
pub use order::{OrderCancelled, OrderCompleted, OrderCreated, OrderDeadlineReached, OrderItem, Pattern};
pub use payment::{PaymentFailed, PaymentRefunded, PaymentSucceeded};
pub use topics::{Group, Topic};
