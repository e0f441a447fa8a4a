use event_runtime::{HandlerError, outbox::EncodeError};
use shared_events::OrderId;

use crate::domain::State;

/// Why an event about an order could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// Order-service said something that cannot follow from what it said before.
    #[error("{event} for order {order}, whose reservation is {}", state.as_str())]
    Contradiction { order: OrderId, event: &'static str, state: State },
    #[error("the reservation of order {order} names {sku}, of which there is not so much reserved")]
    NotReserved { order: OrderId, sku: String },
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    #[error("the answer cannot be published")]
    Encode(#[from] EncodeError),
}

impl From<StockError> for HandlerError {
    fn from(error: StockError) -> Self {
        match error {
            StockError::Contradiction { .. } | StockError::NotReserved { .. } => HandlerError::reject(error),
            // Handed on as it is: the runtime tells an outage and a deadlock from a failure by the database's error.
            StockError::Database(error) => error.into(),
            StockError::Encode(error) => error.into(),
        }
    }
}
