//! A child process whose log is kept, and which does not outlive its test.

use std::{
    collections::VecDeque,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

const LISTENING: &str = "listening on ";
/// How many of its last lines are kept.
const LINES: usize = 200;

/// A running service.
pub struct Process {
    name: String,
    child: Child,
    url: String,
    log: Log,
}

type Log = Arc<Mutex<VecDeque<String>>>;

impl Process {
    /// Starts `program` and waits until it says where it listens.
    ///
    /// # Errors
    /// When it cannot be started, or says nothing within 20 s; the error shows its log.
    pub async fn start(name: &str, program: &Path, arguments: &[String]) -> anyhow::Result<Process> {
        let mut child = Command::new(program)
            .args(arguments)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} did not start", program.display()))?;
        let log = Log::default();
        let (said, mut url) = watch::channel(None);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        tokio::spawn(keep(stdout.context("stdout is piped")?, log.clone(), said.clone()));
        tokio::spawn(keep(stderr.context("stderr is piped")?, log.clone(), said));
        let url = match timeout(Duration::from_secs(20), url.wait_for(Option::is_some)).await {
            Ok(Ok(url)) => url.clone().unwrap_or_default(),
            _ => bail!("{name} does not say where it listens; its log:\n{}", joined(&log)),
        };
        Ok(Process { name: name.to_owned(), child, url, log })
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id; none once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The base URL it listens at.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The last lines it logged.
    pub fn log(&self) -> String {
        joined(&self.log)
    }

    /// Ends it as a crash would: SIGKILL. Returns its log.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn kill(mut self) -> anyhow::Result<String> {
        self.child.kill().await.with_context(|| format!("{} cannot be killed", self.name))?;
        Ok(self.log())
    }

    /// Ends it as an operator would: SIGTERM, then waits for the drain. Returns its log.
    ///
    /// # Errors
    /// When it does not end within 30 s, or not with success; the error shows its log.
    pub async fn stop(mut self) -> anyhow::Result<String> {
        let pid = self.child.id().context("the process has ended")?;
        Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await?;
        match timeout(Duration::from_secs(30), self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(self.log()),
            other => bail!("{} ended with {other:?}; its log:\n{}", self.name, self.log()),
        }
    }
}

async fn keep(stream: impl AsyncRead + Unpin, log: Log, said: watch::Sender<Option<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, url)) = line.split_once(LISTENING) {
            let url = url.split_whitespace().next().unwrap_or_default();
            said.send_replace(Some(url.trim_end_matches('"').to_owned()));
        }
        let mut lines = log.lock().expect("nobody panics while holding the log");
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

fn joined(log: &Log) -> String {
    let mut lines = log.lock().expect("nobody panics while holding the log");
    lines.make_contiguous().join("\n")
}
