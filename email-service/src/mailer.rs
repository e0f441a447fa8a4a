//! Where mails go: a mail server, or a folder.

mod folder;
mod smtp;

pub use folder::Folder;
use lettre::Message;
pub(crate) use smtp::PROBE_TIMEOUT;
pub use smtp::{Smtp, SmtpServer};
use tokio::time::Instant;

/// One of the two.
#[derive(Clone, Debug)]
pub enum Mailer {
    /// Sends mails.
    Smtp(Smtp),
    /// Writes mails as files.
    Folder(Folder),
}

/// Why a mail did not go out. May be wrong about that after a broken connection: then it goes out twice.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The server will never take this mail.
    #[error("the mail server refuses the mail for good")]
    Refused(#[source] lettre::transport::smtp::Error),
    /// The server does not take this mail now.
    #[error("the mail server does not take the mail now")]
    NotNow(#[source] lettre::transport::smtp::Error),
    /// The time of whoever sends is up: the server was not asked.
    #[error("no time is left to send the mail")]
    NoTimeLeft,
    /// The server takes mails, and took too long over this one.
    #[error("the mail server took too long")]
    Slow,
    /// The server takes no mail at all.
    #[error("the mail server is away")]
    Away(#[source] Option<lettre::transport::smtp::Error>),
    /// The folder takes no mail.
    #[error("the mail cannot be written to its folder")]
    Folder(#[source] std::io::Error),
}

impl Mailer {
    /// Sends or writes a mail; a server has until `until` to take it. `name` names the file; a mail with the same name
    /// replaces it.
    ///
    /// # Errors
    /// When the mail did not go out.
    pub async fn send(&self, name: &str, mail: &Message, until: Instant) -> Result<(), SendError> {
        match self {
            Mailer::Smtp(smtp) => smtp.send(mail, until).await,
            Mailer::Folder(folder) => folder.write(name, &mail.formatted()).await.map_err(SendError::Folder),
        }
    }
}
