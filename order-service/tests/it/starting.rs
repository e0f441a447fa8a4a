use std::time::Duration;

use event_runtime::Database;
use serde_json::Value;

use crate::{bench, whole::Place};

/// The problem that refuses a request of the service's first moments.
async fn refusal(response: reqwest::Response) -> String {
    let status = response.status();
    let retry_after = response.headers().get("retry-after").cloned();
    let text = response.text().await.unwrap();
    assert_eq!((status.as_u16(), retry_after.is_some()), (503, true), "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn before_its_tables_are_there_the_service_says_that_it_is_starting() {
    let place = Place::new(Duration::from_secs(60));
    // The file's one write lock: until it is given back, the service cannot make its tables.
    let other = Database::connect_lazy(&place.config().service.database_url).unwrap();
    let lock = other.begin().await.unwrap();
    let service = place.begin().await;

    let order = || bench::order("ada@example.org").to_string();
    let said = refusal(service.post_with(order(), &[("idempotency-key", "first")]).await).await;
    assert!(said.starts_with("the service is starting: ") && said.ends_with("with the same Idempotency-Key"), "{said}");
    for path in ["/orders", "/orders/01890a5d-ac96-774b-bcce-b302099a8057"] {
        let said = refusal(service.get(path).await).await;
        assert!(said.starts_with("the service is starting: ") && said.ends_with("try again in a moment"), "{said}");
    }

    lock.rollback().await.unwrap();
    service.ready().await;
    assert_eq!(service.post_with(order(), &[("idempotency-key", "first")]).await.status(), 202);
    service.stop().await;
}
