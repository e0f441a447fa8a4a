//! What `eventctl verify` says of a stack: every service's own export, the gateway's ledger, the mail server's mails.

use std::{
    fs,
    io::BufReader,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use eventctl::verify::{
    check::{Limits, Report, check},
    exports::Exports,
    gather,
};
use tokio::{process::Command, time::sleep};

use crate::{Stack, stack::SERVICES};

/// Nothing is under way in a stack at rest, and one machine has one clock.
const AT_REST: Limits = Limits { grace: Duration::ZERO, clock_skew: Duration::ZERO, max_extra_mails: None };

/// How long an event that is due may stand in an outbox.
const OUTBOX_PATIENCE: Duration = Duration::from_secs(15);

impl Stack {
    /// Checks every rule of the system. Call it at rest.
    ///
    /// An order's deadline comes due in the outbox although the order has ended: what waits there must do so for longer than
    /// a relay needs to be a violation.
    ///
    /// # Errors
    /// When a part of the system does not say what it knows.
    pub async fn verify(&self) -> anyhow::Result<Report> {
        let until = Instant::now() + OUTBOX_PATIENCE;
        loop {
            let report = self.verify_now().await?;
            let waiting = report.violations.iter().any(|violation| violation.rule == "outbox-empty");
            if !waiting || Instant::now() >= until {
                return Ok(report);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn verify_now(&self) -> anyhow::Result<Report> {
        let mut exports = Exports::default();
        for service in SERVICES {
            let export = self.export(service).await?;
            exports.read(service, BufReader::new(export.as_bytes()))?;
        }
        let mut facts = exports.complete()?;
        facts.charges = gather::charges(self.gateway_url()).await?;
        let folder = tempfile::tempdir()?;
        self.save_mails(folder.path())?;
        facts.mails = gather::folder(folder.path())?;
        let kafka = self.servers().kafka();
        let facts = tokio::task::spawn_blocking(move || gather::topics(&kafka, &mut facts).map(|()| facts)).await??;
        Ok(check(&facts, &AT_REST))
    }

    /// What `SERVICE audit` prints.
    async fn export(&self, service: &str) -> anyhow::Result<String> {
        let url = self.servers().database_url(service).await?;
        let ran = Command::new(self.program()).args([service, "audit", "--database-url", &url]).output().await?;
        let stderr = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "{service} audit failed:\n{stderr}");
        Ok(String::from_utf8(ran.stdout)?)
    }

    /// Every copy of every mail as a file.
    fn save_mails(&self, folder: &Path) -> anyhow::Result<()> {
        for (number, mail) in self.smtp().mails().into_iter().enumerate() {
            let headers: Vec<_> = mail.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let text = format!("{}\r\n{}", headers.concat(), mail.body);
            fs::write(folder.join(format!("{number}.eml")), text).context("a mail cannot be written")?;
        }
        Ok(())
    }
}
