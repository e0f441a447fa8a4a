//! The command line from outside: the real binary against an embedded broker and stubs of the services.
#![expect(clippy::unwrap_used, reason = "a test ends where an unwrap fails")]

mod breaking;
mod explaining;
mod lagging;
mod moving;
mod replaying;
mod services;
mod tailing;
mod verifying;

use std::process::{Command, Stdio};

/// What a command wrote, and its exit code.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `eventctl` in an empty folder, with no address in its environment, off the async threads.
pub async fn eventctl(arguments: &[&str]) -> Ran {
    let mut command = command(arguments);
    let run = move || {
        let folder = tempfile::tempdir().unwrap();
        let ended = command.current_dir(folder.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: ended.status.code().unwrap_or(-1), stdout: text(ended.stdout), stderr: text(ended.stderr) }
    };
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(!ran.stderr.contains("panicked"), "no command may panic: {ran:?}");
    ran
}

/// `eventctl` with no address in its environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventctl"));
    let addresses = [
        "KAFKA_BROKERS",
        "ORDER_SERVICE_URL",
        "PAYMENT_SERVICE_URL",
        "INVENTORY_SERVICE_URL",
        "EMAIL_SERVICE_URL",
        "PAYMENT_GATEWAY_URL",
        "MAILPIT_URL",
        "DATABASE_URL",
    ];
    for variable in addresses {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The lines of a text with single blanks between words.
pub fn words(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
