//! What order-service does on each event: every handler names what happened and leaves the rest to `advance`.

mod dead_letter;
mod mail_sent;
mod order_deadline_reached;
mod payment_failed;
mod payment_refunded;
mod payment_succeeded;
mod stock_committed;
mod stock_rejected;
mod stock_released;
mod stock_reserved;

pub use self::{
    mail_sent::NoteMail, order_deadline_reached::CancelOverdue, payment_failed::CancelUnpaid,
    payment_refunded::NoteRefund, payment_succeeded::NotePayment, stock_committed::NoteSale,
    stock_rejected::CancelOutOfStock, stock_released::NoteRelease, stock_reserved::NoteReservation,
};
use event_runtime::{ConsumerBuilder, Database, Delivery, Outbox, Tx};
use shared_events::{Event, OrderCancelled, OrderCompleted, OrderId, StockItem, topics};
use tracing::info;

use crate::{
    domain::{Ending, Happening, Order, State},
    error::SagaError,
    store::{self, Entry},
};

/// Transactions, whether of one answer or of a batch. Few, so that they are full when there is much to do: that leaves more
/// of the processor, and connections, to new orders.
const SAGA_CONCURRENCY: usize = 3;

/// Every consumer group of this service.
pub fn consumers(database: &Database) -> Vec<ConsumerBuilder> {
    vec![saga(database), dead_letter::consumer(database)]
}

/// The saga: one handler an event.
fn saga(database: &Database) -> ConsumerBuilder {
    ConsumerBuilder::new(topics::ORDER_SERVICE.name)
        .concurrency(SAGA_CONCURRENCY)
        .transactional(database, NotePayment)
        .transactional(database, CancelUnpaid)
        .transactional(database, NoteRefund)
        .transactional(database, NoteReservation)
        .transactional(database, CancelOutOfStock)
        .transactional(database, NoteRelease)
        .transactional(database, NoteSale)
        .transactional(database, CancelOverdue)
        .transactional(database, NoteMail)
}

/// Moves the order on: locks its row, takes note of what happened, publishes the ending if this is what ends it.
async fn advance<E: Event>(
    tx: &mut Tx,
    outbox: &mut Outbox,
    delivery: &Delivery<E>,
    order_id: OrderId,
    happening: Happening,
    detail: Option<String>,
) -> Result<(), SagaError> {
    let mut order = store::lock(tx, order_id).await?.ok_or(SagaError::UnknownOrder(order_id))?;
    let before = order.saga.clone();
    let ending = order.saga.on(&happening);
    if order.saga != before {
        let ended_at = ending.is_some().then_some(delivery.now);
        store::save(tx, order_id, &order.saga, ended_at).await?;
    }
    // Every order's deadline comes; a line is worth only the one that ended its order.
    let mut entries = Vec::with_capacity(2);
    if happening != Happening::DeadlineReached || ending.is_some() {
        entries.push(Entry::of_delivery(delivery, detail));
    }
    match ending {
        Some(ending) => entries.push(publish(outbox, &order, ending)?),
        None => tell_late_success(&order, &happening),
    }
    let entries: Vec<_> = entries.iter().map(|entry| (order_id, entry)).collect();
    store::record(tx, &entries).await?;
    Ok(())
}

/// Publishes the ending, says so in the log, and answers its line of the timeline.
fn publish(outbox: &mut Outbox, order: &Order, ending: Ending) -> Result<Entry, SagaError> {
    let Order { id, customer, items, total, .. } = order.clone();
    let detail = match ending {
        Ending::Completed { payment_id } => {
            outbox.publish(&OrderCompleted { order_id: id, customer_email: customer, items, total, payment_id })?;
            info!(order = %id, total = %total, "order completed");
            total.to_string()
        }
        Ending::Cancelled { reason } => {
            let cancelled =
                OrderCancelled { order_id: id, customer_email: customer, items, total, reason: reason.clone() };
            outbox.publish(&cancelled)?;
            info!(order = %id, reason, "order cancelled");
            reason
        }
    };
    let row = outbox.rows().last().expect("a row was published just now");
    Ok(Entry::of_outbox(row, detail))
}

fn tell_late_success(order: &Order, happening: &Happening) {
    let undone_by = match happening {
        Happening::PaymentSucceeded(_) => "payment-service",
        Happening::StockReserved => "inventory-service",
        _ => return,
    };
    if order.saga.state == State::Cancelled {
        info!(order = %order.id, undone_by, "too late, it will be undone");
    }
}

/// `2 × COFFEE-1KG, 1 × MUG-BLUE`
fn listed(items: &[StockItem]) -> String {
    let lines: Vec<String> = items.iter().map(|item| format!("{} × {}", item.quantity, item.sku)).collect();
    lines.join(", ")
}
