//! Events on the topic `inventory`: what inventory-service says.

use serde::{Deserialize, Serialize};

use crate::{Event, OrderId, Topic, topics};

/// So many of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockItem {
    /// What.
    pub sku: String,
    /// How many, at least 1.
    pub quantity: u32,
}

macro_rules! stock_event {
    ($(#[$doc:meta])* $name:ident, $type:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The order.
            pub order_id: OrderId,
            /// What, and how many of it.
            pub items: Vec<StockItem>,
        }

        impl Event for $name {
            const TYPE: &'static str = $type;
            const TOPIC: Topic = topics::INVENTORY;

            fn key(&self) -> String {
                self.order_id.to_string()
            }
        }
    };
}

stock_event!(
    /// All items of the order are set aside for it.
    StockReserved,
    "stock.reserved"
);
stock_event!(
    /// What was set aside is for sale again.
    StockReleased,
    "stock.released"
);
stock_event!(
    /// What was set aside is sold.
    StockCommitted,
    "stock.committed"
);

/// The order cannot be served from stock; nothing was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockRejected {
    /// The order.
    pub order_id: OrderId,
    /// Why, in words a customer can read.
    pub reason: String,
}

impl Event for StockRejected {
    const TYPE: &'static str = "stock.rejected";
    const TOPIC: Topic = topics::INVENTORY;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}
