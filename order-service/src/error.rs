use event_runtime::{HandlerError, outbox::EncodeError};
use shared_events::OrderId;

/// Why an event about an order could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum SagaError {
    /// An order's row is committed before its `order.created` can be published, so this order will not come either.
    #[error("there is no order {0}")]
    UnknownOrder(OrderId),
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    #[error("the answer cannot be published")]
    Encode(#[from] EncodeError),
}

impl From<SagaError> for HandlerError {
    fn from(error: SagaError) -> Self {
        match error {
            SagaError::UnknownOrder(_) => HandlerError::reject(error),
            // Handed on as it is: the runtime tells an outage and a deadlock from a failure by the database's error.
            SagaError::Database(error) => error.into(),
            SagaError::Encode(error) => error.into(),
        }
    }
}
