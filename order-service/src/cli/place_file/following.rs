//! Waits for the ends of many orders with few questions: one asks about up to 200 of them. One question an order would
//! keep order-service so busy with answers that the orders themselves had to wait.

use std::{cell::RefCell, collections::HashMap, convert::Infallible, time::Duration};

use shared_events::OrderId;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use crate::cli::api::{Api, ApiError, MOST_AT_ONCE, Order};

/// Between two rounds of questions: while one question is enough for all, and while it takes several.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
const LONG_PAUSE: Duration = Duration::from_millis(400);

/// The orders whose end somebody waits for.
pub struct Following {
    api: Api,
    open: RefCell<HashMap<OrderId, oneshot::Sender<Order>>>,
    /// Why the last question got no answer.
    trouble: RefCell<Option<ApiError>>,
}

impl Following {
    pub fn new(api: Api) -> Following {
        Following { api, open: RefCell::default(), trouble: RefCell::default() }
    }

    /// The order once it has ended. `Err` when `until` comes first, with what was the trouble, if anything was.
    /// [`run`](Self::run) must run meanwhile.
    pub async fn end_of(&self, id: OrderId, until: Instant) -> Result<Order, Option<String>> {
        let (tell, told) = oneshot::channel();
        self.open.borrow_mut().insert(id, tell);
        match timeout_at(until, told).await {
            Ok(Ok(order)) => Ok(order),
            Ok(Err(_)) | Err(_) => {
                self.open.borrow_mut().remove(&id);
                Err(self.trouble.borrow().as_ref().map(ApiError::to_string))
            }
        }
    }

    /// Asks for ever.
    pub async fn run(&self) -> Infallible {
        loop {
            let ids: Vec<OrderId> = self.open.borrow().keys().copied().collect();
            for ids in ids.chunks(MOST_AT_ONCE) {
                let answer = self.api.these_orders(ids).await;
                self.hear(answer);
            }
            sleep(if ids.len() <= MOST_AT_ONCE { SHORT_PAUSE } else { LONG_PAUSE }).await;
        }
    }

    fn hear(&self, answer: Result<Vec<Order>, ApiError>) {
        let orders = match answer {
            Ok(orders) => orders,
            Err(trouble) => {
                *self.trouble.borrow_mut() = Some(trouble);
                return;
            }
        };
        *self.trouble.borrow_mut() = None;
        for order in orders.into_iter().filter(Order::has_ended) {
            if let Some(tell) = self.open.borrow_mut().remove(&order.order_id) {
                // Fails when nobody waits any more.
                tell.send(order).ok();
            }
        }
    }
}
