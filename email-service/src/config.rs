use std::{convert::Infallible, path::PathBuf, time::Duration};

use event_runtime::config::{ServiceConfig, positive_duration};
use lettre::message::Mailbox;

use crate::mailer::{Folder, Mailer, Smtp, SmtpServer};

/// How email-service is configured.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub service: ServiceConfig,

    /// The mail server, smtp://host:port; either this or --mail-dir
    #[arg(long, env = "SMTP_URL", value_name = "URL")]
    pub smtp_url: Option<String>,

    /// A folder to write mails to as .eml files instead of sending them
    #[arg(long, env = "MAIL_DIR", value_name = "FOLDER", value_parser = folder)]
    pub mail_dir: Option<PathBuf>,

    /// Who mails are from: an address, or `Name <address>`
    #[arg(long, env = "MAIL_FROM", value_name = "ADDRESS", default_value = DEFAULT_FROM, value_parser = sender)]
    pub mail_from: Mailbox,

    /// How long the mail server may take for one mail, such as 5s
    #[arg(long, env = "SMTP_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    pub smtp_timeout: Duration,
}

const DEFAULT_FROM: &str = "Order service <orders@example.com>";

/// A way to send mail is missing, doubled, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MailConfigError {
    #[error(
        "it is not told where mails go; give --smtp-url smtp://host:port (or SMTP_URL) to send them, or --mail-dir \
         FOLDER (or MAIL_DIR) to write them as files"
    )]
    Neither,
    #[error(
        "it is told to send mails (SMTP_URL, --smtp-url) and to write them as files (MAIL_DIR, --mail-dir); give one of the two"
    )]
    Both,
    #[error("--smtp-url (or SMTP_URL) cannot be used: {0}")]
    Server(String),
    #[error("mails cannot be written to {}; make the folder writable or give another with --mail-dir (or MAIL_DIR)", .0.display())]
    Folder(PathBuf, #[source] std::io::Error),
}

impl Config {
    /// The defaults, with mails sent to the server at `url`: for tests and for processes that run several services.
    pub fn smtp(service: ServiceConfig, url: impl Into<String>) -> Config {
        Config { smtp_url: Some(url.into()), ..Config::unsent(service) }
    }

    /// The defaults, with mails written to `folder`.
    pub fn folder(service: ServiceConfig, folder: impl Into<PathBuf>) -> Config {
        Config { mail_dir: Some(folder.into()), ..Config::unsent(service) }
    }

    fn unsent(service: ServiceConfig) -> Config {
        Config {
            service,
            smtp_url: None,
            mail_dir: None,
            mail_from: sender(DEFAULT_FROM).expect("the default is an address"),
            smtp_timeout: Duration::from_secs(5),
        }
    }

    /// What sends mails, ready for use.
    ///
    /// # Errors
    /// When there is not exactly one way, the server's URL cannot be read, or the folder cannot be written to.
    pub async fn mailer(&self) -> Result<Mailer, MailConfigError> {
        // An empty value is as good as none: compose files write `SMTP_URL: ${SMTP_URL:-}`.
        let url = self.smtp_url.clone().filter(|url| !url.is_empty());
        let folder = self.mail_dir.clone().filter(|folder| !folder.as_os_str().is_empty());
        match (url, folder) {
            (None, None) => Err(MailConfigError::Neither),
            (Some(_), Some(_)) => Err(MailConfigError::Both),
            (Some(url), None) => {
                let server: SmtpServer = url.parse().map_err(MailConfigError::Server)?;
                Ok(Mailer::Smtp(Smtp::new(&server, self.smtp_timeout)))
            }
            (None, Some(path)) => {
                let folder = Folder::open(&path).await.map_err(|error| MailConfigError::Folder(path, error))?;
                Ok(Mailer::Folder(folder))
            }
        }
    }
}

/// Unlike clap's own parser for paths this takes an empty one, which means none.
fn folder(text: &str) -> Result<PathBuf, Infallible> {
    Ok(text.into())
}

fn sender(text: &str) -> Result<Mailbox, String> {
    text.parse()
        .map_err(|_| "that is no mail address; write orders@example.com or Name <orders@example.com>".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    fn parse(arguments: &[&str]) -> Result<Config, String> {
        let line = ["service", "--database-url", "sqlite:x.db"].iter().chain(arguments);
        Command::try_parse_from(line).map(|command| command.config).map_err(|error| error.to_string())
    }

    async fn error(arguments: &[&str]) -> String {
        parse(arguments).unwrap().mailer().await.map(drop).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn exactly_one_way_to_send_is_needed() {
        assert!(
            error(&[]).await.contains("give --smtp-url smtp://host:port (or SMTP_URL) to send them, or --mail-dir")
        );
        assert!(error(&["--smtp-url", "", "--mail-dir", ""]).await.contains("it is not told where mails go"));
        assert!(error(&["--smtp-url", "smtp://h:25", "--mail-dir", "x"]).await.contains("give one of the two"));
        let smtp = parse(&["--smtp-url", "smtp://h:25"]).unwrap().mailer().await.unwrap();
        assert!(matches!(smtp, Mailer::Smtp(_)));
    }

    #[tokio::test]
    async fn a_folder_is_made_and_tried_at_the_start() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        let mailer = parse(&["--mail-dir", folder.to_str().unwrap()]).unwrap().mailer().await.unwrap();
        assert!(matches!(mailer, Mailer::Folder(_)) && folder.is_dir());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the trial leaves nothing behind");
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        let message = error(&["--mail-dir", file.to_str().unwrap()]).await;
        assert!(
            message.starts_with("mails cannot be written to") && message.contains("give another with --mail-dir"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn values_that_cannot_be_used_say_how_to_write_them() {
        let servers = [
            ("mail.example.com:25", "write smtp://host:port"),
            ("smtps://mail.example.com", "TLS is not supported"),
            ("smtp://me:secret@mail.example.com", "cannot log in"),
        ];
        for (url, expected) in servers {
            let message = error(&["--smtp-url", url]).await;
            assert!(message.contains(expected) && !message.contains("secret"), "{url}: {message}");
        }
        let table = [
            (["--mail-from", "orders"], "write orders@example.com or Name <orders@example.com>"),
            (["--smtp-timeout", "0s"], "--smtp-timeout"),
        ];
        for (arguments, expected) in table {
            let message = parse(&arguments).unwrap_err();
            assert!(message.contains(expected), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn made_configurations_have_the_defaults_of_the_command_line() {
        let parsed = parse(&["--smtp-url", "smtp://h:25"]).unwrap();
        let made = Config::smtp(parsed.service.clone(), "smtp://h:25");
        assert_eq!(format!("{parsed:?}"), format!("{made:?}"));
    }
}
