//! What can go wrong while a payment is handled, and what the consumer is to do about it.

use event_runtime::HandlerError;
use shared_events::OrderId;

use crate::gateway::GatewayError;

/// Why an event could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// The gateway gave no answer that ends the matter.
    #[error("payment of order {order} is open")]
    Gateway {
        /// The order.
        order: OrderId,
        /// What the gateway did.
        source: GatewayError,
    },
    /// All attempts are used up, and the gateway does not say whether there is a charge.
    #[error("the payment gateway does not say whether order {order} is charged")]
    Unknown {
        /// The order.
        order: OrderId,
        /// What the gateway did.
        source: GatewayError,
    },
    /// Nobody waits for the charge any more, and the gateway may still make it.
    #[error("the payment gateway may still be charging order {0}")]
    Unsettled(OrderId),
    /// `complete` came without its `prepare`.
    #[error("there is no payment of order {0}")]
    Missing(OrderId),
    /// A row says what this version does not understand.
    #[error("the payment of order {order} has {column} {value:?}")]
    Damaged {
        /// The order.
        order: String,
        /// Which column.
        column: &'static str,
        /// What it says.
        value: String,
    },
    /// The database failed.
    #[error("the payments cannot be read or written")]
    Database(#[from] sqlx::Error),
}

impl From<PaymentError> for HandlerError {
    fn from(error: PaymentError) -> HandlerError {
        match error {
            PaymentError::Gateway { ref source, .. } => match source {
                GatewayError::NoAnswer(_) | GatewayError::Failed { .. } | GatewayError::NoTimeLeft => {
                    HandlerError::retry(error)
                }
                // Nothing was asked of the gateway, and no other order would fare better.
                GatewayError::RateLimited(_)
                | GatewayError::Unreachable(_)
                | GatewayError::Away(_)
                | GatewayError::NotAGateway(_) => HandlerError::unavailable(error),
                GatewayError::Refused { .. } => HandlerError::reject(error),
            },
            // Neither may it be said that there is no charge, nor may the order be forgotten: it waits for the gateway.
            PaymentError::Unknown { .. } => HandlerError::unavailable(error),
            PaymentError::Unsettled(_) | PaymentError::Missing(_) => HandlerError::retry(error),
            PaymentError::Damaged { .. } => HandlerError::reject(error),
            PaymentError::Database(source) => HandlerError::from(source),
        }
    }
}
