//! What inventory-service does about events on `orders`: [`MoveStock`] moves what all orders at hand need between the same
//! products at once, with a handful of statements however many orders there are.
//!
//! What an event means for its order, and whether there is enough, is decided without I/O ([`domain`]), under
//! the locks of all reservations and, after these, of the products.

use std::collections::BTreeSet;

use event_runtime::{BatchHandler, Delivery, HandlerError, Outbox, Tx};
use shared_events::{
    Event, OrderCancelled, OrderCompleted, OrderCreated, OrderId, StockCommitted, StockItem, StockRejected,
    StockReleased, StockReserved,
};
use tracing::info;

use crate::{
    domain::{self, OnCreated, OnEnded, Rejection, Shelf, State},
    error::StockError,
    store::{self, Reservation},
};

event_runtime::events! {
    /// What is heard of orders.
    pub enum OrderNews {
        OrderCreated,
        OrderCancelled,
        OrderCompleted,
    }
}

/// Sets the items of new orders aside or says why not, makes those of cancelled orders available again, and those of
/// completed orders sold.
pub struct MoveStock;

impl BatchHandler for MoveStock {
    type Event = OrderNews;

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        deliveries: &[Delivery<OrderNews>],
        outboxes: &mut [Outbox],
    ) -> Result<(), HandlerError> {
        Ok(move_stock(tx, deliveries, outboxes).await?)
    }

    /// Without an answer a new order would stay open until its deadline.
    async fn exhausted(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderNews>,
        _error: &HandlerError,
    ) -> Result<(), HandlerError> {
        match &delivery.event {
            OrderNews::OrderCreated(created) if domain::reserves_on_created(created.pattern) => {
                Ok(refuse(tx, outbox, delivery, created).await?)
            }
            _ => Ok(()),
        }
    }
}

impl OrderNews {
    fn order_id(&self) -> OrderId {
        match self {
            OrderNews::OrderCreated(event) => event.order_id,
            OrderNews::OrderCancelled(event) => event.order_id,
            OrderNews::OrderCompleted(event) => event.order_id,
        }
    }

    /// Orders of other patterns have their stock reserved some other way.
    fn is_ours(&self) -> bool {
        match self {
            OrderNews::OrderCreated(event) => domain::reserves_on_created(event.pattern),
            OrderNews::OrderCancelled(_) | OrderNews::OrderCompleted(_) => true,
        }
    }
}

async fn move_stock(
    tx: &mut Tx,
    deliveries: &[Delivery<OrderNews>],
    outboxes: &mut [Outbox],
) -> Result<(), StockError> {
    let (deliveries, outboxes): (Vec<_>, Vec<_>) =
        deliveries.iter().zip(outboxes).filter(|(delivery, _)| delivery.event.is_ours()).unzip();
    let Some(now) = deliveries.first().map(|delivery| delivery.now) else { return Ok(()) };
    let ids: Vec<OrderId> = deliveries.iter().map(|delivery| delivery.event.order_id()).collect();
    let mut reservations = store::lock(tx, &ids, now).await?;
    let (mut steps, mut skus) = (Vec::with_capacity(ids.len()), BTreeSet::new());
    for (delivery, id) in deliveries.iter().zip(&ids) {
        let reservation = &reservations[id];
        let step = Step::after(delivery, reservation)?;
        skus.extend(step.items(reservation).iter().map(|item| item.sku.clone()));
        steps.push(step);
    }
    let mut shelf = store::lock_stock(tx, &skus).await?;
    let mut changed = Vec::with_capacity(ids.len());
    for (((step, id), delivery), outbox) in steps.into_iter().zip(&ids).zip(&deliveries).zip(outboxes) {
        let reservation = reservations.get_mut(id).expect("every order has its reservation");
        let before = reservation.state;
        delivery.span.in_scope(|| step.take(&mut shelf, reservation, outbox))?;
        if reservation.state != before {
            changed.push(*id);
        }
    }
    store::move_pieces(tx, &shelf.moves()).await?;
    let changed: Vec<_> = changed.iter().map(|id| &reservations[id]).collect();
    Ok(store::save(tx, &changed, now).await?)
}

/// Says no to an order that could not be handled, unless it has its answer.
async fn refuse(
    tx: &mut Tx,
    outbox: &mut Outbox,
    delivery: &Delivery<OrderNews>,
    created: &OrderCreated,
) -> Result<(), StockError> {
    let mut reservations = store::lock(tx, &[created.order_id], delivery.now).await?;
    let reservation = reservations.get_mut(&created.order_id).expect("every order has its reservation");
    let reason = match domain::on_created(reservation.state, created, delivery.now) {
        OnCreated::Reserve(_) => Rejection::Failed,
        OnCreated::Reject(reason) => reason,
        OnCreated::Answered => return Ok(()),
    };
    reject(reservation, reason, outbox)?;
    Ok(store::save(tx, &[reservation], delivery.now).await?)
}

/// What is to be done for an order, as far as can be said without a look at the stock.
enum Step {
    Reserve(Vec<StockItem>),
    Reject(Rejection),
    Release,
    Commit,
    /// It was cancelled before its `order.created`.
    Remember,
    Nothing,
}

impl Step {
    fn after(delivery: &Delivery<OrderNews>, reservation: &Reservation) -> Result<Step, StockError> {
        let Reservation { order, state, .. } = *reservation;
        let contradiction = |event| Err(StockError::Contradiction { order, event, state });
        match &delivery.event {
            OrderNews::OrderCreated(created) => Ok(match domain::on_created(state, created, delivery.now) {
                OnCreated::Reserve(items) => Step::Reserve(items),
                OnCreated::Reject(reason) => Step::Reject(reason),
                OnCreated::Answered => Step::Nothing,
            }),
            OrderNews::OrderCancelled(_) => match domain::on_cancelled(state) {
                OnEnded::Move => Ok(Step::Release),
                OnEnded::Remember => Ok(Step::Remember),
                OnEnded::Nothing => Ok(Step::Nothing),
                OnEnded::Contradiction => contradiction(OrderCancelled::TYPE),
            },
            OrderNews::OrderCompleted(_) => match domain::on_completed(state) {
                OnEnded::Move => Ok(Step::Commit),
                OnEnded::Nothing => Ok(Step::Nothing),
                // A completed order without a reservation would be a sale of nothing.
                OnEnded::Remember | OnEnded::Contradiction => contradiction(OrderCompleted::TYPE),
            },
        }
    }

    /// What it may move.
    fn items<'a>(&'a self, reservation: &'a Reservation) -> &'a [StockItem] {
        match self {
            Step::Reserve(items) => items,
            Step::Release | Step::Commit => &reservation.items,
            Step::Reject(_) | Step::Remember | Step::Nothing => &[],
        }
    }

    fn take(self, shelf: &mut Shelf, reservation: &mut Reservation, outbox: &mut Outbox) -> Result<(), StockError> {
        let order_id = reservation.order;
        let short = |sku| StockError::NotReserved { order: order_id, sku };
        match self {
            Step::Reserve(items) => match shelf.reserve(&items) {
                Ok(()) => {
                    info!(order = %order_id, items = listed(&items), "stock reserved");
                    reservation.state = State::Reserved;
                    reservation.items.clone_from(&items);
                    outbox.publish(&StockReserved { order_id, items })?;
                }
                Err(reason) => reject(reservation, reason, outbox)?,
            },
            Step::Reject(reason) => reject(reservation, reason, outbox)?,
            Step::Release => {
                let items = reservation.items.clone();
                shelf.release(&items).map_err(short)?;
                info!(order = %order_id, items = listed(&items), "stock released");
                reservation.state = State::Released;
                outbox.publish(&StockReleased { order_id, items })?;
            }
            Step::Commit => {
                let items = reservation.items.clone();
                shelf.commit(&items).map_err(short)?;
                info!(order = %order_id, items = listed(&items), "stock committed");
                reservation.state = State::Committed;
                outbox.publish(&StockCommitted { order_id, items })?;
            }
            Step::Remember => reservation.state = State::Cancelled,
            Step::Nothing => info!(order = %order_id, state = reservation.state.as_str(), "nothing to move"),
        }
        Ok(())
    }
}

fn reject(reservation: &mut Reservation, reason: Rejection, outbox: &mut Outbox) -> Result<(), StockError> {
    let order_id = reservation.order;
    info!(order = %order_id, %reason, "stock rejected");
    reservation.state = State::Rejected;
    reservation.reason = Some(reason.to_string());
    outbox.publish(&StockRejected { order_id, reason: reason.to_string() })?;
    Ok(())
}

/// `2 COFFEE-1KG, 1 MUG-BLUE`, for log lines.
fn listed(items: &[StockItem]) -> String {
    items.iter().map(|item| format!("{} {}", item.quantity, item.sku)).collect::<Vec<_>>().join(", ")
}
