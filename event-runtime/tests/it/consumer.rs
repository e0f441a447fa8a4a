//! The consumer on the embedded broker.

mod scene;

use std::time::Duration;

use scene::{Note, Scene};
use test_support::eventually;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn records_are_handled_in_a_transaction_and_their_offsets_committed() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.builder().transactional(&scene.database, scene.recorder()));
    for number in 0..20 {
        scene.publish(&Note::new("a", &number.to_string())).await;
    }
    scene.wait_for(20).await;
    assert_eq!(scene.handled("a"), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    eventually(PATIENCE, "commit of everything", async || match scene.committed() {
        20 => Ok(()),
        other => Err(other),
    })
    .await;
    consumer.ready().unwrap();
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}
