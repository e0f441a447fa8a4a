//! The command line from outside: the real binary against a stub of the HTTP API and an embedded broker.

#![expect(clippy::unwrap_used, reason = "a test ends where an unwrap fails")]

mod asking;
mod auditing;
mod placing;
mod placing_files;
mod set_aside;
mod stub;
mod watching;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// What a command wrote, and its exit code.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `order-service` in an empty folder, with no address in its environment.
pub fn order_service(arguments: &[&str]) -> Ran {
    order_service_with_stdin(arguments, "")
}

pub fn order_service_with_stdin(arguments: &[&str], stdin: &str) -> Ran {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    run_in(folder.path(), arguments, stdin)
}

pub fn run_in(folder: &Path, arguments: &[&str], stdin: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_order-service"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("ORDER_SERVICE_URL")
        .env_remove("KAFKA_BROKERS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with this test");
    let mut pipe = child.stdin.take().expect("stdin is piped");
    // A command that ends before it has read everything is judged by its exit code.
    pipe.write_all(stdin.as_bytes()).ok();
    drop(pipe);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("a child can be waited for");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("commands write UTF-8");
    let ran = Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
    assert!(!ran.stderr.contains("panicked"), "no command may panic: {ran:?}");
    ran
}

/// The lines of a text with single blanks between words.
pub fn words(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
