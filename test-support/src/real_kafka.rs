//! A real Apache Kafka of a test's own, by `scripts/kafka.sh`.

use std::path::{Path, PathBuf};

use event_runtime::config::KafkaConfig;
use tempfile::TempDir;
use tokio::process::Command;

/// A running broker; it and its data go when this is dropped.
pub struct RealKafka {
    config: KafkaConfig,
    folder: TempDir,
}

impl RealKafka {
    /// Starts a broker without topics.
    pub async fn start() -> RealKafka {
        let folder = TempDir::new().expect("temporary folders can be made");
        let printed = script("start", folder.path()).await;
        let brokers = printed.lines().find_map(|line| line.strip_prefix("export KAFKA_BROKERS="));
        let brokers = brokers.unwrap_or_else(|| panic!("scripts/kafka.sh did not print KAFKA_BROKERS but:\n{printed}"));
        let brokers = brokers.trim_matches(['"', '\'']).to_owned();
        RealKafka { config: KafkaConfig { brokers, settings: Vec::new() }, folder }
    }

    /// How clients reach it; the address stays through restarts.
    pub fn config(&self) -> KafkaConfig {
        self.config.clone()
    }

    /// Ends it in order, and starts it again with its data.
    pub async fn restart(&self) {
        script("restart", self.folder.path()).await;
    }

    /// Ends it as a crash does.
    pub async fn kill(&self) {
        script("kill", self.folder.path()).await;
    }

    /// Starts it again with its data.
    pub async fn come_back(&self) {
        script("start", self.folder.path()).await;
    }
}

impl Drop for RealKafka {
    fn drop(&mut self) {
        let stopped = std::process::Command::new(path()).arg("stop").arg("--dir").arg(self.folder.path()).output();
        let done = stopped.as_ref().is_ok_and(|output| output.status.success());
        assert!(done || std::thread::panicking(), "the test's Kafka broker did not stop: {stopped:?}");
    }
}

async fn script(verb: &str, folder: &Path) -> String {
    let output = Command::new(path()).arg(verb).arg("--dir").arg(folder).output().await;
    let output = output.expect("scripts/kafka.sh can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/kafka.sh {verb} failed:\n{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh")
}
