use std::sync::mpsc::Receiver;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// As a client whose group does not let it go.
struct Stuck(Receiver<()>);

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.recv_timeout(LONG).ok();
    }
}

#[test]
fn a_client_that_cannot_be_dropped_is_left_behind() {
    let (_held, stuck) = sync_channel(0);
    let began = Instant::now();
    drop_aside("notes-service", Stuck(stuck), Duration::from_millis(50));
    assert!(began.elapsed() < LONG / 2, "took {:?}", began.elapsed());
}
