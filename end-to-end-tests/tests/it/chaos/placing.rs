//! Orders with a mix of endings, placed as a client does that wants each of them exactly once: under an idempotency key,
//! again and again until one instance accepts it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use end_to_end_tests::{OrderRequest, Stack};
use futures_util::{StreamExt, stream};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

const SKUS: [&str; 6] =
    ["COFFEE-1KG", "TEA-GREEN-250G", "MUG-BLUE", "FILTER-PAPER-100", "ESPRESSO-CUP-SET", "GIFT-CARD-RARE"];

/// Orders on their way to order-service.
pub struct Placing {
    urls: Arc<Mutex<Vec<String>>>,
    accepted: JoinHandle<Vec<String>>,
}

impl Placing {
    /// Places `count` orders that `random` decides, evenly over `lasts`.
    pub fn start(stack: &Stack, random: &mut StdRng, count: u64, lasts: Duration) -> Placing {
        let requests: Vec<_> = (0..count).map(|_| request(random)).collect();
        let urls = Arc::new(Mutex::new(stack.urls("order-service")));
        let known = urls.clone();
        let accepted = tokio::spawn(async move {
            let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
            let begin = Instant::now();
            let place = |(number, request): (usize, OrderRequest)| {
                let (http, urls) = (&http, &known);
                async move {
                    sleep_until(begin + lasts.mul_f64(number as f64 / count as f64)).await;
                    place(http, urls, number, &request).await
                }
            };
            stream::iter(requests.into_iter().enumerate()).map(place).buffered(64).collect().await
        });
        Placing { urls, accepted }
    }

    /// The instances of order-service are others now.
    pub fn instances_changed(&self, stack: &Stack) {
        *self.urls.lock().unwrap() = stack.urls("order-service");
    }

    /// The ids of the orders, once all are accepted.
    pub async fn end(self, patience: Duration) -> HashSet<String> {
        timeout(patience, self.accepted).await.expect("orders are accepted").unwrap().into_iter().collect()
    }
}

fn request(random: &mut StdRng) -> OrderRequest {
    let token = match random.random_range(0..100) {
        0..70 => "tok_visa",
        70..80 => "tok_chargeDeclined",
        80..88 => "tok_insufficient_funds",
        88..97 => "tok_flaky",
        _ => "tok_timeout",
    };
    let different = 1 + usize::from(random.random_bool(0.3));
    let skus: Vec<&str> = SKUS.sample(random, different).copied().collect();
    let items = skus.into_iter().map(|sku| (sku, random.random_range(1..=3))).collect();
    OrderRequest { items, token, customer: "ada@example.com".to_owned() }
}

async fn place(http: &reqwest::Client, urls: &Mutex<Vec<String>>, number: usize, request: &OrderRequest) -> String {
    for attempt in 0.. {
        let url = {
            let urls = urls.lock().unwrap();
            urls.get((number + attempt) % urls.len().max(1)).cloned()
        };
        if let Some(url) = url {
            let posted = http.post(format!("{url}/orders")).header("Idempotency-Key", format!("chaos-{number}"));
            if let Ok(answer) = posted.json(&request.body()).send().await {
                let status = answer.status();
                assert!(!status.is_client_error(), "{status}: {}", answer.text().await.unwrap_or_default());
                let body: Option<Value> = if status == 202 { answer.json().await.ok() } else { None };
                if let Some(id) = body.as_ref().and_then(|body| body["orderId"].as_str()) {
                    return id.to_owned();
                }
            }
        }
        // A client's back-off, not a wait for something: whoever is away comes back.
        sleep(Duration::from_millis(200)).await;
    }
    unreachable!("attempts have no end")
}
