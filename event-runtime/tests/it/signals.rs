//! Signals, sent to a child process: this test binary again, told to run one test that waits for them.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use event_runtime::shutdown;

const STOPPING: &str = "stopping";

#[tokio::test]
#[ignore = "the child of the tests below"]
async fn child() {
    let signal = shutdown::signal();
    println!("waiting");
    // The first signal comes before anybody waits for it.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    signal.await;
    println!("{STOPPING}");
    // A drain that takes its time.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

struct Stopping {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Stopping {
    fn start() -> Stopping {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::child", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stopping = Stopping { child, lines };
        stopping.wait_for("waiting");
        stopping
    }

    fn wait_for(&mut self, wanted: &str) {
        assert!(self.lines.any(|line| line.unwrap().ends_with(wanted)), "the child ended without {wanted:?}");
    }

    fn go_on(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > deadline => panic!("the child did not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_first_signal_asks_and_the_second_ends_the_process_at_once() {
    for (first, second) in [("-TERM", "-INT"), ("-INT", "-TERM"), ("-INT", "-INT")] {
        let mut child = Stopping::start();
        child.send(first);
        child.go_on();
        child.wait_for(STOPPING);
        assert!(child.child.try_wait().unwrap().is_none(), "still at work after {first}");
        child.send(second);
        let status = child.end();
        assert_eq!((status.code(), status.signal()), (Some(130), None), "after {first} and {second}");
    }
}
