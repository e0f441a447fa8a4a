//! Signals, sent to a child process: this test binary again, told to run one test that waits for them.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use axum::Router;
use event_runtime::{
    ConsumerBuilder, Delivery, HandlerError, PlainHandler, Service,
    cli::{self, exit},
    service::App,
    shutdown,
};
use test_support::{MockKafka, TempDatabase, records};

use crate::service::scene::{Ping, SERVICE, service_config};

const STOPPING: &str = "stopping";
const BLOCKING: &str = "a handler blocks";
const ENDED: &str = "ended well";
/// How many handlers block, of the two threads there are.
const HANDLERS: &str = "BLOCKING_HANDLERS";
/// A fraction of what a service has unless it is told otherwise.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::test]
#[ignore = "the child of the tests below"]
async fn child() {
    let signal = shutdown::signal(Duration::from_secs(60));
    println!("waiting");
    // The first signal comes before anybody waits for it.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    signal.await;
    println!("{STOPPING}");
    // A drain that takes its time.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

struct Block;

impl PlainHandler for Block {
    type Event = Ping;

    #[expect(clippy::print_stdout, reason = "the parent waits for it")]
    async fn handle(&self, _: &Delivery<Ping>) -> Result<(), HandlerError> {
        println!("\n{BLOCKING}");
        loop {
            std::thread::park();
        }
    }
}

#[test]
#[ignore = "the child of the tests below"]
fn blocked_service() {
    let ended = cli::run(async {
        let (kafka, folder) = (MockKafka::start(1), TempDatabase::new());
        kafka.create("pings", 2);
        kafka.create("pings.ping-service.dlt", 2);
        let mut config = service_config(kafka.config(), &folder.url());
        config.shutdown_timeout = SHUTDOWN_TIMEOUT;
        let (routes, consumers) = (Router::new(), vec![ConsumerBuilder::new(SERVICE).plain(Block)]);
        let app = App { routes, consumers, topics: &[], migrations: &[], on_published: None };
        let service = Service::bind(SERVICE, 0, config).await?.build(app);
        let handlers: usize = std::env::var(HANDLERS)?.parse()?;
        for key in 0..handlers {
            records::publish(&kafka.config(), &Ping { key: key.to_string() }).await;
        }
        service.run_until_signal().await?;
        Ok(exit::OK)
    });
    assert_eq!(ended.unwrap(), exit::OK);
    println!("\n{ENDED}");
}

struct Stopping {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Stopping {
    fn start() -> Stopping {
        let mut stopping = Stopping::run("signals::child", 0);
        stopping.wait_for("waiting");
        stopping
    }

    /// A service on two threads, of which so many are blocked.
    fn blocked(handlers: usize) -> Stopping {
        let mut stopping = Stopping::run("signals::blocked_service", handlers);
        for _ in 0..handlers {
            stopping.wait_for(BLOCKING);
        }
        stopping
    }

    fn run(test: &str, handlers: usize) -> Stopping {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env("TOKIO_WORKER_THREADS", "2")
            .env(HANDLERS, handlers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Stopping { child, lines }
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

#[test]
fn a_blocked_thread_does_not_hold_up_the_end_of_the_process() {
    let mut child = Stopping::blocked(1);
    let asked = Instant::now();
    child.send("-TERM");
    child.wait_for(ENDED);
    assert!(child.end().success());
    println!("ended after {:?}", asked.elapsed());
}

#[test]
fn with_every_thread_blocked_the_process_ends_at_its_deadline_or_at_the_second_signal() {
    let mut child = Stopping::blocked(2);
    let asked = Instant::now();
    child.send("-TERM");
    assert_eq!(child.end().code(), Some(1));
    let took = asked.elapsed();
    assert!(took > SHUTDOWN_TIMEOUT, "{took:?}");
    println!("ended after {took:?}");

    let mut child = Stopping::blocked(2);
    child.send("-TERM");
    child.send("-INT");
    assert_eq!(child.end().code(), Some(130));
}
