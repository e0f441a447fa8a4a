//! Records nobody can handle go to the dead-letter topic of each group, and nothing stands still.

use end_to_end_tests::OrderRequest;
use shared_events::topics::dead_letter_topic;
use test_support::records::{publish_raw, read_until};

use crate::{SOON, stack};

#[tokio::test]
async fn poison_goes_to_the_dead_letters_and_orders_go_on() {
    let stack = stack().start().await.unwrap();
    let kafka = stack.servers().kafka();
    let time = b"2026-01-01T00:00:00Z".as_slice();
    let headers: [(&str, &[u8]); 5] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"018f2d0e-0000-7000-8000-000000000001"),
        ("ce_source", b"somebody"),
        ("ce_type", b"order.created"),
        ("ce_time", time),
    ];
    publish_raw(&kafka, "orders", "poison", &headers, b"{\"orderId\":").await;
    publish_raw(&kafka, "orders", "poison", &[], b"\xff\xfe").await;

    let id = stack.place(&OrderRequest::of("COFFEE-1KG")).await.unwrap();
    assert_eq!(stack.at_rest(&id, SOON).await.state, "completed");

    for group in ["payment-service", "inventory-service"] {
        let topic = dead_letter_topic("orders", group);
        let dead = read_until(&kafka, &topic, SOON, |records| records.len() >= 2).await;
        assert_eq!(dead.len(), 2, "{topic}: {dead:#?}");
        assert_eq!(dead[0].value.as_deref(), Some(b"{\"orderId\":".as_slice()));
        assert_eq!(dead[0].key.as_deref(), Some(b"poison".as_slice()));
        assert_eq!(dead[0].header("kafka_dlt-original-topic"), Some(b"orders".as_slice()));
        assert!(dead[0].header("kafka_dlt-exception-message").is_some_and(|message| !message.is_empty()));
    }
}
