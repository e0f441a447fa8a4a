//! A PostgreSQL of a test's own, by `scripts/postgres.sh`: one that it may kill.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::Command;

/// A running server; it and its data go when this is dropped.
pub struct OwnPostgres {
    url: String,
    folder: String,
}

impl OwnPostgres {
    /// Starts an empty server, in a folder that the script makes: the server's user must be able to reach it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start() -> anyhow::Result<OwnPostgres> {
        let printed = script(&["start"]).await?;
        let exported = |name: &str| {
            let value =
                printed.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='));
            value
                .map(str::to_owned)
                .with_context(|| format!("scripts/postgres.sh did not print {name} but:\n{printed}"))
        };
        Ok(OwnPostgres { url: exported("DATABASE_URL")?, folder: exported("POSTGRES_DIR")? })
    }

    /// Its first database; the address stays through restarts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it in order, and starts it again with its data.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&self) -> anyhow::Result<()> {
        script(&["restart", "--dir", &self.folder]).await.map(drop)
    }

    /// Ends it as a crash does, and starts it again: it recovers its data from its log.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn crash(&self) -> anyhow::Result<()> {
        script(&["kill", "--dir", &self.folder]).await?;
        script(&["start", "--dir", &self.folder]).await.map(drop)
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        let stopped = std::process::Command::new(path()).args(["stop", "--dir", &self.folder]).output();
        if !stopped.as_ref().is_ok_and(|output| output.status.success()) {
            tracing::error!(?stopped, "the test's PostgreSQL did not stop");
        }
    }
}

async fn script(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(path()).args(arguments).output().await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "scripts/postgres.sh {} failed:\n{stderr}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres.sh")
}
