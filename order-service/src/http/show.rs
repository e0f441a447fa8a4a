//! What can be asked: one order with its timeline, orders by state, the catalogue.

use std::sync::Arc;

use axum::extract::State;
use event_runtime::http::{Json, Path, Problem, Query};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared_events::{EventId, Money, OrderId, OrderItem};

use super::Api;
use crate::{
    catalogue,
    domain::State as OrderState,
    store::{self, Entry, StoredOrder},
};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderView {
    order_id: OrderId,
    state: &'static str,
    reason: Option<String>,
    payment: &'static str,
    stock: &'static str,
    customer: String,
    items: Vec<OrderItem>,
    total: Money,
    created_at: Timestamp,
    expires_at: Timestamp,
    ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Vec<EntryView>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryView {
    time: Timestamp,
    service: String,
    event: String,
    event_id: EventId,
    topic: String,
    partition: Option<i32>,
    offset: Option<i64>,
    attempt: Option<u32>,
    trace_id: Option<String>,
    detail: Option<String>,
}

/// A page of orders, the newest first.
#[derive(Serialize)]
pub struct Page {
    orders: Vec<OrderView>,
    /// The `after` of the next page; null on the last one.
    next: Option<OrderId>,
}

#[derive(Serialize)]
pub struct Products {
    products: Vec<ProductView>,
}

#[derive(Serialize)]
struct ProductView {
    sku: &'static str,
    name: &'static str,
    price: Money,
}

/// Texts, so that everything wrong with them can be said in our words.
#[derive(Deserialize)]
pub struct PageQuery {
    state: Option<String>,
    limit: Option<String>,
    after: Option<String>,
    /// Just these, separated by commas: for clients that follow many orders.
    ids: Option<String>,
}

pub async fn order(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<OrderView>, Problem> {
    let id: OrderId =
        id.parse().map_err(|_| Problem::bad_request(format!("{id:?} is no order id; one looks like {EXAMPLE_ID}")))?;
    let pool = api.database.pool();
    let stored = store::find(pool, id).await?.ok_or_else(|| Problem::not_found(format!("there is no order {id}")))?;
    let timeline = store::of_order(pool, id).await?.into_iter().map(EntryView::from).collect();
    Ok(Json(OrderView { timeline: Some(timeline), ..OrderView::from(stored) }))
}

pub async fn list(State(api): State<Arc<Api>>, Query(query): Query<PageQuery>) -> Result<Json<Page>, Problem> {
    let (state, limit, after) = match query.read()? {
        PageRequest::These(ids) => {
            let stored = store::these(api.database.pool(), &ids).await?;
            return Ok(Json(Page { orders: stored.into_iter().map(OrderView::from).collect(), next: None }));
        }
        PageRequest::Newest { state, limit, after } => (state, limit, after),
    };
    // One more than asked for tells whether there is a next page.
    let mut stored = store::list(api.database.pool(), state, after, limit + 1).await?;
    let more = stored.len() as i64 > limit;
    stored.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = stored.last().filter(|_| more).map(|stored| stored.order.id);
    Ok(Json(Page { orders: stored.into_iter().map(OrderView::from).collect(), next }))
}

pub async fn products() -> Json<Products> {
    let view =
        |product: &catalogue::Product| ProductView { sku: product.sku, name: product.name, price: product.price };
    Json(Products { products: catalogue::PRODUCTS.iter().map(view).collect() })
}

const EXAMPLE_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

enum PageRequest {
    Newest { state: Option<OrderState>, limit: i64, after: Option<OrderId> },
    These(Vec<OrderId>),
}

impl PageQuery {
    fn read(self) -> Result<PageRequest, Problem> {
        if let Some(ids) = self.ids {
            return these(&ids);
        }
        let state = match self.state.as_deref() {
            None | Some("") => None,
            Some(text) => Some(store::state_from_text(text).ok_or_else(|| {
                Problem::bad_request(format!("state is {text:?}; it takes pending, completed or cancelled"))
            })?),
        };
        let limit = match self.limit.as_deref() {
            None => DEFAULT_LIMIT,
            Some(text) => text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
                Problem::bad_request(format!("limit is {text:?}; it takes a number from 1 to {MAX_LIMIT}"))
            })?,
        };
        let after = match self.after.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                Problem::bad_request(format!("after is {text:?}; it takes the `next` of the page before"))
            })?),
        };
        Ok(PageRequest::Newest { state, limit, after })
    }
}

fn these(ids: &str) -> Result<PageRequest, Problem> {
    let read = |id: &str| id.parse().map_err(|_| Problem::bad_request(format!("ids has {id:?}, which is no order id")));
    let ids: Vec<OrderId> = ids.split(',').filter(|id| !id.is_empty()).map(read).collect::<Result<_, _>>()?;
    match ids.len() <= MAX_LIMIT as usize {
        true => Ok(PageRequest::These(ids)),
        false => Err(Problem::bad_request(format!("ids has {} orders; it takes up to {MAX_LIMIT}", ids.len()))),
    }
}

impl From<StoredOrder> for OrderView {
    fn from(StoredOrder { order, created_at, expires_at, ended_at }: StoredOrder) -> OrderView {
        OrderView {
            order_id: order.id,
            state: store::state_text(order.saga.state),
            payment: store::payment_text(order.saga.payment),
            stock: store::stock_text(order.saga.stock),
            reason: order.saga.reason,
            customer: order.customer,
            items: order.items,
            total: order.total,
            created_at,
            expires_at,
            ended_at,
            timeline: None,
        }
    }
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> EntryView {
        let (partition, offset) = entry.place.unzip();
        EntryView {
            time: entry.time,
            service: entry.service,
            event: entry.event,
            event_id: entry.event_id,
            topic: entry.topic,
            partition,
            offset,
            attempt: entry.attempt,
            trace_id: entry.trace_id,
            detail: entry.detail,
        }
    }
}
