//! Ids as types of their own, so that a payment id cannot be passed for an order id.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id: UUIDv7, so that ids sort by the time they were made.
            #[expect(clippy::new_without_default, reason = "a default that differs at every call would surprise")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// An order, and the key of every event about it.
    OrderId
);
id!(
    /// A registered customer.
    UserId
);
id!(
    /// A charge, as payment-service knows it.
    PaymentId
);
id!(
    /// One event. It stays the same through retries, redeliveries and replays: consumers deduplicate by it.
    EventId
);
id!(
    /// What one request set in motion: every event that follows from it carries the same correlation id.
    CorrelationId
);
