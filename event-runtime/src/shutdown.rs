//! When a process is told to end.

use tokio::signal::unix::{Signal, SignalKind, signal as listen};

/// The exit status when a second signal ends the process at once: what a shell shows for SIGINT.
const IMPATIENT: i32 = 130;

/// Resolves at SIGTERM or SIGINT. A second signal ends the process at once: whoever presses ctrl-c twice does not want
/// to wait, and nothing is lost by it but time (what was not committed is handled again).
///
/// Signals count from this call on, not from the first poll: whoever reads that the service listens may end it at once.
///
/// # Panics
/// When the system refuses to install a signal handler, or there is no Tokio runtime.
pub fn signal() -> impl Future<Output = ()> + Send {
    let mut signals = Signals::new();
    async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping; a second signal stops at once");
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(IMPATIENT);
        });
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Signals {
        let install = |kind| listen(kind).expect("these two signals may be caught on every Unix");
        Signals { terminate: install(SignalKind::terminate()), interrupt: install(SignalKind::interrupt()) }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
