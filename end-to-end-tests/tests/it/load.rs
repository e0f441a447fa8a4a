//! Many orders: a slow few do not hold the others up, a spike is taken at once and worked off as the gateway allows.

use std::time::{Duration, Instant};

use end_to_end_tests::{OrderRequest, Stack};
use futures_util::{StreamExt, future::try_join_all, stream};

use crate::{SOON, stack};

#[tokio::test]
async fn an_idle_stack_completes_orders_one_by_one() {
    let stack = stack().start().await.unwrap();
    let request = OrderRequest::of("COFFEE-1KG");
    let mut times = Vec::new();
    for _ in 0..50 {
        let id = stack.place(&request).await.unwrap();
        let order = stack.at_rest(&id, SOON).await;
        let at = |event: &str| -> jiff::Timestamp {
            let entry = order.timeline.iter().find(|entry| entry.event == event);
            entry.unwrap_or_else(|| panic!("no {event} in {order:#?}")).time.parse().unwrap()
        };
        times.push(at("order.created").duration_until(at("order.completed")));
    }
    times.sort();
    let median = times[times.len() / 2];
    // The target is 150 ms at the median. Printed, not asserted: what else the machine does would decide.
    println!("placed to completed, median of 50: {median:?}, slowest {:?}", times[times.len() - 1]);
}

/// How long `count` orders take to complete.
async fn completion_time(stack: &Stack, count: usize) -> Duration {
    let request = OrderRequest::of("COFFEE-1KG");
    let begin = Instant::now();
    let ids = try_join_all((0..count).map(|_| stack.place(&request))).await.unwrap();
    for id in ids {
        assert_eq!(stack.at_rest(&id, Duration::from_secs(60)).await.state, "completed");
    }
    begin.elapsed()
}

#[tokio::test]
async fn orders_that_time_out_do_not_hold_up_the_others() {
    let stack = stack().with("order-service", &["--order-deadline", "120s"]).start().await.unwrap();
    completion_time(&stack, 50).await;
    let alone = completion_time(&stack, 200).await;

    let stuck = OrderRequest::of("TEA-GREEN-250G").paid_with("tok_timeout");
    let slow = try_join_all((0..20).map(|_| stack.place(&stuck))).await.unwrap();
    let beside = completion_time(&stack, 200).await;

    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!("200 orders: {alone:?} alone, {beside:?} beside 20 that time out, ratio {ratio:.2}");
    for id in slow {
        assert_eq!(stack.at_rest(&id, Duration::from_secs(60)).await.state, "completed");
    }
    // The target is 1.3; a shared machine is noisier than that, so the test only catches orders that wait for timeouts.
    assert!(beside < alone * 3 + Duration::from_secs(5), "ratio {ratio:.2}");
}

#[tokio::test]
async fn a_spike_is_taken_at_once_and_worked_off() {
    let stack = stack()
        .with("order-service", &["--order-deadline", "10m"])
        .with("payment-gateway-fake", &["--max-rps", "50"])
        .start()
        .await
        .unwrap();
    // The whole spike on real servers; embedded, as many as keep the suite short.
    let count = if stack.servers().are_real() { 2_000 } else { 300 };
    let request = OrderRequest::of("COFFEE-1KG");
    let mut answered = Vec::new();
    let mut placing = stream::iter(0..count)
        .map(|_| async {
            let begin = Instant::now();
            (stack.place(&request).await, begin.elapsed())
        })
        .buffer_unordered(16);
    let mut ids = Vec::new();
    while let Some((id, took)) = placing.next().await {
        ids.push(id.unwrap());
        answered.push(took);
    }
    answered.sort();
    let (median, p99) = (answered[count / 2], answered[count * 99 / 100]);
    println!("{count} orders accepted, median {median:?}, p99 {p99:?}");

    for id in &ids {
        assert_eq!(stack.at_rest(id, Duration::from_secs(180)).await.state, "completed");
    }
    assert_eq!(stack.charges().await.unwrap().len(), count);
}
