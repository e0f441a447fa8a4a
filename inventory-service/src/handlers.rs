//! What inventory-service does about events on `orders`: one file an event.

mod order_cancelled;
mod order_completed;
mod order_created;

pub use order_cancelled::ReleaseStock;
pub use order_completed::CommitStock;
pub use order_created::ReserveStock;
use shared_events::StockItem;

/// `2 COFFEE-1KG, 1 MUG-BLUE`, for log lines.
fn listed(items: &[StockItem]) -> String {
    items.iter().map(|item| format!("{} {}", item.quantity, item.sku)).collect::<Vec<_>>().join(", ")
}
