//! Where new orders are stored: those that arrive while transactions are under way share the next one, so that a spike
//! costs a commit a batch instead of a commit an order. One that arrives alone waits for nobody.

use std::{collections::HashSet, iter, sync::Arc};

use event_runtime::{Database, HandlerError, Outbox, http::Problem};
use shared_events::OrderId;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::store::{self, Entry, Request, StoredOrder};

/// The most orders in one transaction: enough to make the commit cheap, few enough to keep the statements small.
const MOST_TOGETHER: usize = 64;
/// Transactions at a time: while one waits for the disk, or its connection for the processor, orders go on in the other.
const SIDE_BY_SIDE: usize = 2;
/// Requests beyond these wait before they may queue.
const QUEUE: usize = 1024;

/// An order with all that is stored and published with it.
pub struct NewOrder {
    pub stored: StoredOrder,
    pub request: Request,
    /// The line of its `order.created`.
    pub entry: Entry,
    pub outbox: Outbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Stored,
    /// The idempotency key had placed an order before; nothing was stored.
    KeyTaken,
}

/// The way into the database for new orders.
pub struct Intake {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    order: NewOrder,
    answer: oneshot::Sender<Result<Placed, Problem>>,
}

impl Intake {
    /// Starts the tasks that store orders in `database`. They end once this is dropped and the queue is empty.
    pub fn start(database: Database) -> Intake {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..SIDE_BY_SIDE {
            tokio::spawn(run(database.clone(), waiting.clone()));
        }
        Intake { queue }
    }

    /// Stores the order and answers once that is committed.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn place(&self, order: NewOrder) -> Result<Placed, Problem> {
        let (answer, outcome) = oneshot::channel();
        let ended = || Problem::internal("the tasks that store orders have ended");
        self.queue.send(Waiting { order, answer }).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }
}

async fn run(database: Database, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut batch = Vec::with_capacity(MOST_TOGETHER);
    loop {
        if queue.lock().await.recv_many(&mut batch, MOST_TOGETHER).await == 0 {
            return;
        }
        // A client that went away while it waited gets no order that it does not know of.
        let mut batch: Vec<Waiting> = batch.drain(..).filter(|waiting| !waiting.answer.is_closed()).collect();
        if batch.is_empty() {
            continue;
        }
        batch.sort_by(|a, b| a.order.request.idempotency_key.cmp(&b.order.request.idempotency_key));
        store_together(&database, batch).await;
    }
}

async fn store_together(database: &Database, batch: Vec<Waiting>) {
    match store(database, &batch).await {
        Ok(stored) => batch.into_iter().for_each(|waiting| tell(waiting, &stored)),
        Err(error) => match HandlerError::from(error) {
            HandlerError::Unavailable(source) => refuse(batch, &source.to_string()),
            // One of them may be to blame, or another instance with the same keys.
            _ if batch.len() > 1 => store_each(database, batch).await,
            other => {
                let cause = other.source_error().to_string();
                batch.into_iter().for_each(|waiting| say(waiting.answer, Err(Problem::internal(cause.clone()))));
            }
        },
    }
}

/// Each in a transaction of its own.
async fn store_each(database: &Database, batch: Vec<Waiting>) {
    let mut batch = batch.into_iter();
    while let Some(waiting) = batch.next() {
        // The clients may have gone while the others were stored.
        if waiting.answer.is_closed() {
            continue;
        }
        match store(database, std::slice::from_ref(&waiting)).await {
            Ok(stored) => tell(waiting, &stored),
            Err(error) => match HandlerError::from(error) {
                // Nor would the others fare better: they need not wait for it one after the other.
                HandlerError::Unavailable(source) => {
                    return refuse(iter::once(waiting).chain(batch), &source.to_string());
                }
                other => say(waiting.answer, Err(Problem::internal(other.source_error().to_string()))),
            },
        }
    }
}

fn tell(Waiting { order, answer }: Waiting, stored: &HashSet<OrderId>) {
    let placed = match stored.contains(&order.stored.order.id) {
        true => Placed::Stored,
        false => Placed::KeyTaken,
    };
    say(answer, Ok(placed));
}

fn refuse(batch: impl IntoIterator<Item = Waiting>, cause: &str) {
    for Waiting { answer, .. } in batch {
        let detail = "the database cannot be reached just now; try again, with the same Idempotency-Key";
        say(answer, Err(Problem::unavailable(detail).source(cause.to_owned())));
    }
}

fn say(answer: oneshot::Sender<Result<Placed, Problem>>, outcome: Result<Placed, Problem>) {
    // Fails when the client went away meanwhile: the order stands, and a repetition with its key finds it.
    answer.send(outcome).ok();
}

/// The ids of those that were stored.
async fn store(database: &Database, batch: &[Waiting]) -> Result<HashSet<OrderId>, sqlx::Error> {
    let mut tx = database.begin().await?;
    let orders: Vec<_> = batch.iter().map(|waiting| (&waiting.order.stored, &waiting.order.request)).collect();
    let stored = store::insert(&mut tx, &orders).await?;
    let new: Vec<&NewOrder> =
        batch.iter().map(|waiting| &waiting.order).filter(|order| stored.contains(&order.stored.order.id)).collect();
    let Some((first, others)) = new.split_first() else {
        tx.rollback().await?;
        return Ok(stored);
    };
    let entries: Vec<_> = new.iter().map(|order| (order.stored.order.id, &order.entry)).collect();
    store::record(&mut tx, &entries).await?;
    let mut outbox = first.outbox.clone();
    others.iter().for_each(|order| outbox.include(&order.outbox));
    database.commit(tx, outbox).await?;
    Ok(stored)
}

#[cfg(test)]
mod tests;
