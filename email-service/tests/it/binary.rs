//! The program itself: what it says when it cannot start, and how it ends.

use std::{process::Stdio, time::Duration};

use test_support::{MockKafka, TempDatabase};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::Command,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_email-service"));
    command.env_clear().env("RUST_BACKTRACE", "1").args(arguments).kill_on_drop(true);
    command
}

/// Its exit code and its standard error.
async fn ends(arguments: &[&str]) -> (Option<i32>, String) {
    let output = timeout(PATIENCE, program(arguments).output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said_in_one_line_without_a_backtrace() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = ["--database-url", "sqlite::memory:"];
    let table: [(&[&str], i32, &str); 4] = [
        (&[], 1, "give --smtp-url smtp://host:port (or SMTP_URL)"),
        (&["--smtp-url", "smtp://h:25", "--mail-dir", "x"], 1, "give one of the two"),
        (&["--smtp-url", "smtp://h:25", "--listen", &address], 1, "is in use; choose another"),
        (&["--mail-from", "me"], 2, "write orders@example.com"),
    ];
    for (arguments, code, expected) in table {
        let (ended, said) = ends(&[&database[..], arguments].concat()).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected) && !said.contains("backtrace"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn it_says_where_it_listens_and_ends_well_at_sigterm() {
    let (kafka, place, mails) = (MockKafka::start(1), TempDatabase::new(), tempfile::tempdir().unwrap());
    let (url, brokers, folder) = (place.url(), kafka.config().brokers, mails.path().to_str().unwrap().to_owned());
    let arguments = ["--database-url", &url, "-b", &brokers, "-X", "group.protocol=consumer"];
    let arguments = [&arguments[..], &["--listen", "127.0.0.1:0", "--mail-dir", &folder]].concat();
    let mut child = program(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listening = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it runs on");
            if let Some((_, address)) = line.split_once("listening on ") {
                return address.split_whitespace().next().unwrap().to_owned();
            }
        }
    };
    let address = timeout(PATIENCE, listening).await.unwrap();
    let healthy = timeout(PATIENCE, reqwest::get(format!("{address}/health"))).await.unwrap().unwrap();
    assert!(healthy.status().is_success());
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
}
