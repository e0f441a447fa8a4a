//! A service that is killed between its effect and its commit: the worst moment there is.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, ensure};
use eventctl::verify::gather::charges;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::Chaos;
use crate::{
    Addresses,
    samples::{self, Order, Sample},
};

/// The gateway charges it and keeps its answer: until then payment-service cannot commit.
pub const KILLED: Sample = Sample {
    shows: "killed: payment-service dies when the money is taken and nothing is committed yet, and comes back",
    items: &[("COFFEE-1KG", 1)],
    token: "tok_timeout",
    ends: "completed",
    leaves: samples::PAID,
};

impl Chaos {
    /// Places an order, kills payment-service in the middle of its charge, and follows the order to its end.
    ///
    /// # Errors
    /// When the order does not end as it should within `patience`, or is charged more than once.
    pub async fn crash(&self, addresses: &Addresses, patience: Duration) -> anyhow::Result<Order> {
        let gateway = addresses.url("payment-gateway-fake");
        let before: HashSet<String> = charges(gateway).await?.into_iter().map(|charge| charge.id).collect();
        let kill = async {
            let deadline = Instant::now() + patience;
            while charges(gateway).await?.iter().all(|charge| before.contains(&charge.id)) {
                ensure!(Instant::now() < deadline, "nothing was charged within {patience:?}");
                sleep(Duration::from_millis(10)).await;
            }
            self.kill().await
        };
        let order_url = addresses.url("order-service");
        let (order, ()) = tokio::try_join!(samples::play(order_url, &KILLED, patience), kill)?;
        let made: Vec<_> = charges(gateway).await?.into_iter().filter(|charge| !before.contains(&charge.id)).collect();
        let once = matches!(&made[..], [charge] if charge.idempotency_key == order.order_id);
        ensure!(once, "order {} was not charged once: {made:?}", order.order_id);
        Ok(order)
    }

    /// SIGKILL to payment-service, which is started again.
    async fn kill(&self) -> anyhow::Result<()> {
        let kills = self.kills.as_ref().context("payment-service is no process of its own")?;
        let (killed, done) = oneshot::channel();
        kills.send(killed).await.context("payment-service has ended")?;
        done.await.context("payment-service did not start again")?;
        self.done.crashes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!("chaos: payment-service was killed after the charge and before the commit; it is started again");
        Ok(())
    }
}
