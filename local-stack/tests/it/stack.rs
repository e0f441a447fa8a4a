//! What `cargo run -- --exit` does, in this process.

use std::time::Duration;

use local_stack::{Folder, Stack, StackOptions, guide, samples};

#[tokio::test]
async fn the_sample_orders_end_as_they_should() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::claim(temporary.path()).unwrap();
    let stack = Stack::start(&folder, &StackOptions::default()).await.unwrap();
    for sample in samples::SAMPLES {
        let order =
            samples::play(stack.addresses().url("order-service"), sample, Duration::from_secs(20)).await.unwrap();
        let shown = guide::order(sample, &order);
        assert!(shown.contains(&format!("=> {}", order.state)), "{shown}");
        assert!(shown.contains("orders["), "positions are written back: {shown}");
    }
    let mails = std::fs::read_dir(folder.mails()).unwrap().count();
    assert_eq!(mails, samples::SAMPLES.len(), "a mail an order in {}", folder.mails().display());

    let environment = std::fs::read_to_string(folder.path().join("env")).unwrap();
    for (name, value) in [
        ("KAFKA_BROKERS", stack.addresses().kafka.as_str()),
        ("ORDER_SERVICE_URL", stack.addresses().url("order-service")),
        ("PAYMENT_GATEWAY_URL", stack.addresses().url("payment-gateway-fake")),
    ] {
        assert!(environment.contains(&format!("{name}={value}\n")), "{environment}");
    }
    let next = guide::next_steps(stack.addresses(), &folder);
    assert!(next.contains(stack.addresses().url("order-service")), "{next}");
    assert!(next.contains(&format!("after `set -a; . {}; set +a`", folder.addresses().display())), "{next}");
    assert!(guide::closing(&folder).contains(&folder.mails().display().to_string()));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_stack_whose_port_is_taken_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::claim(temporary.path()).unwrap();
    let refused = Stack::start(&folder, &StackOptions { order_port: port, ..StackOptions::default() }).await;
    let message = format!("{:#}", refused.err().expect("the port is taken"));
    assert!(message.contains(&format!("port {port}")), "{message}");
}
