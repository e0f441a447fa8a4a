//! Moves orders on: [`News`] names what is heard of, and for each event what has happened to its order; the rest is the
//! same for all of them.

use event_runtime::{BatchHandler, Delivery, HandlerError, Outbox, RetryPolicy, Tx};
use shared_events::{
    Event, MailSent, OrderCancelled, OrderCompleted, OrderDeadlineReached, OrderId, PaymentFailed, PaymentRefunded,
    PaymentSucceeded, StockCommitted, StockItem, StockRejected, StockReleased, StockReserved,
};
use tracing::info;

use crate::{
    domain::{Ending, Happening, Order, State},
    error::SagaError,
    store::{self, Entry},
};

event_runtime::events! {
    /// What is heard of orders.
    pub enum News {
        PaymentSucceeded,
        PaymentFailed,
        PaymentRefunded,
        StockReserved,
        StockRejected,
        StockReleased,
        StockCommitted,
        OrderDeadlineReached,
        MailSent,
    }
}

impl News {
    fn order_id(&self) -> OrderId {
        match self {
            News::PaymentSucceeded(event) => event.order_id,
            News::PaymentFailed(event) => event.order_id,
            News::PaymentRefunded(event) => event.order_id,
            News::StockReserved(event) => event.order_id,
            News::StockRejected(event) => event.order_id,
            News::StockReleased(event) => event.order_id,
            News::StockCommitted(event) => event.order_id,
            News::OrderDeadlineReached(event) => event.order_id,
            News::MailSent(event) => event.order_id,
        }
    }

    /// What the saga has to know of it. Nothing of a mail: that is a line in the timeline.
    fn happening(&self) -> Option<Happening> {
        Some(match self {
            News::PaymentSucceeded(event) => Happening::PaymentSucceeded(event.payment_id),
            News::PaymentFailed(event) => Happening::PaymentFailed { reason: event.reason.clone() },
            News::PaymentRefunded(event) => Happening::PaymentRefunded(event.payment_id),
            News::StockReserved(_) => Happening::StockReserved,
            News::StockRejected(event) => Happening::StockRejected { reason: event.reason.clone() },
            News::StockReleased(_) => Happening::StockReleased,
            News::StockCommitted(_) => Happening::StockCommitted,
            News::OrderDeadlineReached(_) => Happening::DeadlineReached,
            News::MailSent(_) => return None,
        })
    }

    /// What its line in the timeline says.
    fn detail(&self) -> Option<String> {
        match self {
            News::PaymentSucceeded(event) => Some(event.amount.to_string()),
            News::PaymentFailed(event) => Some(event.reason.clone()),
            News::PaymentRefunded(event) => Some(event.amount.to_string()),
            News::StockReserved(event) => Some(listed(&event.items)),
            News::StockRejected(event) => Some(event.reason.clone()),
            News::StockReleased(event) => Some(listed(&event.items)),
            News::StockCommitted(event) => Some(listed(&event.items)),
            News::OrderDeadlineReached(_) => None,
            News::MailSent(event) => Some(format!("about {}, {}", event.about, event.message_id)),
        }
    }
}

/// Locks the orders, takes note of what happened to each, and publishes the endings of those that it ends.
pub struct Advance;

impl BatchHandler for Advance {
    type Event = News;

    /// A deadline until it works: it is what ends the orders for which everything else went wrong. A dead letter there would
    /// leave an order pending for ever.
    fn retry(&self, event_type: &str) -> RetryPolicy {
        if event_type == OrderDeadlineReached::TYPE { RetryPolicy::unlimited() } else { RetryPolicy::default() }
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        deliveries: &[Delivery<News>],
        outboxes: &mut [Outbox],
    ) -> Result<(), HandlerError> {
        Ok(advance(tx, deliveries, outboxes).await?)
    }
}

async fn advance(tx: &mut Tx, deliveries: &[Delivery<News>], outboxes: &mut [Outbox]) -> Result<(), SagaError> {
    let ids: Vec<OrderId> = deliveries.iter().map(|delivery| delivery.event.order_id()).collect();
    let mut orders = store::lock(tx, &ids).await?;
    let mut changed = Vec::with_capacity(deliveries.len());
    let mut entries = Vec::with_capacity(deliveries.len() * 2);
    for ((delivery, outbox), id) in deliveries.iter().zip(outboxes).zip(ids) {
        let order = orders.get_mut(&id).ok_or(SagaError::UnknownOrder(id))?;
        let news = &delivery.event;
        let happening = news.happening();
        let before = order.saga.clone();
        let ending = happening.as_ref().and_then(|happening| order.saga.on(happening));
        if order.saga != before {
            changed.push((id, ending.is_some().then_some(delivery.now)));
        }
        // Every order's deadline comes; a line is worth only the one that ended its order.
        if happening != Some(Happening::DeadlineReached) || ending.is_some() {
            entries.push((id, Entry::of_delivery(delivery, news.detail())));
        }
        let say = || match ending {
            Some(ending) => publish(outbox, order, ending).map(Some),
            None => {
                tell_late_success(order, happening.as_ref());
                Ok(None)
            }
        };
        entries.extend(delivery.span.in_scope(say)?.map(|entry| (id, entry)));
    }
    let changed: Vec<_> = changed.iter().map(|(id, ended_at)| (&orders[id], *ended_at)).collect();
    store::save(tx, &changed).await?;
    let entries: Vec<_> = entries.iter().map(|(id, entry)| (*id, entry)).collect();
    Ok(store::record(tx, &entries).await?)
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

fn tell_late_success(order: &Order, happening: Option<&Happening>) {
    let undone_by = match happening {
        Some(Happening::PaymentSucceeded(_)) => "payment-service",
        Some(Happening::StockReserved) => "inventory-service",
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
