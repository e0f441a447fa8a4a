//! payment-service as a process of its own: only a process can be killed; a task that is dropped still runs its destructors.

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How long it may take to stop in good order.
const GRACE: Duration = Duration::from_secs(25);

/// How a process is started, again and again.
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// Asks for a process to be killed and started again; answered once that is done.
pub type Kill = oneshot::Sender<()>;

impl Launch {
    /// Starts `program` with `arguments`.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Launch {
        Launch { program, arguments }
    }

    /// Runs it until `shutdown`, and kills it whenever that is asked for.
    ///
    /// # Errors
    /// When it cannot be started, or ends by itself.
    pub async fn supervise(
        self,
        mut kills: mpsc::Receiver<Kill>,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let mut child = self.start()?;
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return stop(child).await,
                ended = child.wait() => bail!("it ended by itself: {}", ended?),
                Some(killed) = kills.recv() => {
                    child.kill().await.context("it cannot be killed")?;
                    child = self.start()?;
                    // Whoever asked may have gone since.
                    killed.send(()).ok();
                }
            }
        }
    }

    fn start(&self) -> anyhow::Result<Child> {
        // Its log goes where the others' goes.
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(io::stderr()).kill_on_drop(true);
        command.spawn().with_context(|| format!("{} did not start", self.program.display()))
    }
}

/// SIGTERM, and the time to drain.
async fn stop(mut child: Child) -> anyhow::Result<()> {
    let Some(pid) = child.id() else { return Ok(()) };
    // Without `unsafe` there is no kill(2).
    Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.context("the kill command did not start")?;
    let status = timeout(GRACE, child.wait()).await.context("it did not stop in time")??;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// An address that nobody uses now, for a process that is to listen there each time it is started.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
