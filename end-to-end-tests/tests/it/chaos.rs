//! Chaos: two instances of each service take orders while instances, broker, database and gateway are killed and restarted,
//! and duplicates and poison flow, by a plan that a seed decides. Then everything comes to rest, and `eventctl verify`
//! finds nothing.
//!
//! `CHAOS_SEED=n` repeats a plan (not the timing of the machine), `CHAOS_ORDERS=n` places so many, and
//! `CHAOS_RATE=n` so many a second (20, which two cores take beside the chaos with debug binaries).

mod noise;
mod placing;
mod plan;

use std::time::{Duration, Instant};

use end_to_end_tests::Stack;
use rand::{SeedableRng, rngs::StdRng};

use self::{noise::Noise, placing::Placing, plan::Plan};
use crate::stack;

/// How long what is left may stay as much once nothing is broken any more: the orders' deadline, the time in which the
/// gateway settles, a session of a killed member.
const REST: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn chaos_leaves_nothing_lost_doubled_or_reordered() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("CHAOS_SEED").unwrap_or_else(rand::random);
    let mut stack = stack()
        .instances(2)
        .own_database()
        .with("order-service", &["--order-deadline", "60s"])
        .with("payment-service", &["--gateway-timeout", "1s", "--gateway-settles-after", "10s"])
        .start()
        .await
        .unwrap();
    let real = stack.servers().are_real();
    let (default, least) = if real { (1000, Duration::from_secs(75)) } else { (60, Duration::from_secs(12)) };
    let orders = number("CHAOS_ORDERS").unwrap_or(default);
    let rate = number("CHAOS_RATE").unwrap_or(20).max(1);
    let lasts = least.max(Duration::from_millis(1000 * orders / rate));
    println!(
        "chaos: CHAOS_SEED={seed} CHAOS_ORDERS={orders}, {lasts:?}, {}",
        if real { "real servers" } else { "embedded" }
    );

    let mut random = StdRng::seed_from_u64(seed);
    let begin = Instant::now();
    let placing = Placing::start(&stack, &mut random, orders, lasts);
    let mut plan = Plan::new(random, begin + lasts);
    let mut noise = Noise::new(stack.servers().kafka());
    while let Some(action) = plan.next(real).await {
        println!("{:>6.1} s  {action:?}", begin.elapsed().as_secs_f64());
        plan.carry_out(action, &mut stack, &mut noise, &placing).await;
    }
    plan.mend(&mut stack, &placing).await;
    let accepted = placing.end(REST).await;
    assert_eq!(accepted.len() as u64, orders, "every order is accepted sooner or later, once");
    come_to_rest(&stack).await;
    let took = begin.elapsed();

    let report = stack.verify().await.unwrap();
    println!("{}; {} duplicates and {} poison records published", plan.tally(), noise.duplicates, noise.poison);
    println!("{:?}", report.counts);
    println!(
        "{orders} orders in {took:.0?}, {:.0} a minute; {} violations",
        orders as f64 / took.as_secs_f64() * 60.0,
        report.violations.len()
    );
    assert_eq!(report.violations, [], "CHAOS_SEED={seed}");
    assert_eq!(report.counts.judged, orders, "CHAOS_SEED={seed}");
    assert!(report.counts.completed > 0 && report.counts.cancelled > 0, "a mix of endings");
    assert!(report.counts.duplicates >= noise.duplicates, "duplicates were published");
    assert!(report.counts.dead_letters > 0 || noise.poison == 0, "poison is a dead letter");
}

/// Waits until no order is open, no event unpublished and no record unhandled, twice in a row: in between, one of the three
/// can become another. A slow machine may take its time over a backlog, as long as it gets less.
async fn come_to_rest(stack: &Stack) {
    let (mut least, mut moved, mut before) = (i64::MAX, Instant::now(), false);
    loop {
        let found = (stack.under_way().await, stack.lag().await);
        let left = match &found {
            (Ok((open, unpublished)), Ok(lag)) => *open as i64 + *unpublished as i64 + lag,
            _ => i64::MAX,
        };
        if left == 0 && std::mem::replace(&mut before, left == 0) {
            return;
        }
        before = left == 0;
        if left < least {
            (least, moved) = (left, Instant::now());
        }
        assert!(moved.elapsed() < REST, "no rest; (open orders, unpublished events), lag: {found:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
