//! The order system, end to end. Embedded by default; on real servers where `TEST_DATABASE_URL` is set.
#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod away;
mod chaos;
mod duplicates;
mod endings;
mod kills;
mod load;
mod offsets;
mod placing;
mod poison;
mod verifying;

use std::time::Duration;

use end_to_end_tests::{Stack, StackBuilder};

/// How long an order may take to come to rest where nothing is broken.
const SOON: Duration = Duration::from_secs(20);

/// A stack of real processes.
fn stack() -> StackBuilder {
    StackBuilder::new(env!("CARGO_BIN_EXE_service"))
}

/// Asserts what must hold at rest whatever happened: nothing is set aside, nothing is made or lost.
async fn assert_stock_is_conserved(stack: &Stack, sku: &str, seeded: i64, sold: i64) {
    let level = stack.stock(sku).await.unwrap();
    assert_eq!((level.available, level.reserved, level.sold), (seeded - sold, 0, sold), "{sku}");
}
