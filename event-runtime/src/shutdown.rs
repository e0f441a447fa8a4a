//! When a process is told to end.

use std::{process::exit, sync::mpsc::SyncSender, thread, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal as listen},
    sync::oneshot,
    time::timeout,
};

/// The exit status when a second signal ends the process at once: what a shell shows for SIGINT.
const IMPATIENT: i32 = 130;
/// The exit status when the end takes too long.
const TOO_LONG: i32 = 1;

/// Resolves at SIGTERM or SIGINT. A second signal ends the process at once: whoever presses ctrl-c twice does not want
/// to wait, and nothing is lost by it but time (what was not committed is handled again). So does the end of `limit`, which
/// counts from the first signal.
///
/// Signals count from this call on, not from the first poll: whoever reads that the service listens may end it at once.
/// They are waited for on a thread of their own: handlers may have blocked every thread of the runtime, and then neither
/// its signals nor its timers wake anybody.
///
/// # Panics
/// When the system refuses to install a signal handler, or to start a thread.
pub fn signal(limit: Duration) -> impl Future<Output = ()> + Send {
    let (tell, told) = oneshot::channel();
    let (installed, is_installed) = std::sync::mpsc::sync_channel(1);
    let wait = move || wait(limit, tell, &installed);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .expect("a process that starts may have one more thread");
    is_installed.recv().expect("the thread of signals says that it listens");
    async move {
        // The thread ends with the process.
        if let Ok(name) = told.await {
            tracing::info!(signal = name, "stopping; a second signal stops at once");
        }
    }
}

fn wait(limit: Duration, tell: oneshot::Sender<&'static str>, installed: &SyncSender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime without threads can be made").block_on(async {
        let mut signals = Signals::new();
        // Nobody waits for either when the process ends already.
        installed.send(()).ok();
        tell.send(signals.next().await).ok();
        if timeout(limit, signals.next()).await.is_ok() {
            exit(IMPATIENT);
        }
        tracing::error!(
            seconds = limit.as_secs(),
            "the end takes too long: stopped at once. What was in hand is repeated"
        );
        exit(TOO_LONG);
    });
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
