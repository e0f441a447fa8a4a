use std::{fmt, str::FromStr, time::Duration};

use axum::http::Uri;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor, transport::smtp::Error};
use tokio::time::{Instant, timeout};

use super::SendError;

const DEFAULT_PORT: u16 = 25;
/// How long a server that failed may take to show that it is there.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// "Service not available, closing transmission channel" (RFC 5321): the server speaks for itself, not of the mail.
const CLOSING: u16 = 421;
/// Answers about who is sending (RFC 4954): every mail would get them.
const WRONG_CREDENTIALS: [u16; 4] = [530, 534, 535, 538];

/// Where a mail server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpServer {
    host: String,
    port: u16,
}

impl FromStr for SmtpServer {
    type Err = String;

    fn from_str(text: &str) -> Result<SmtpServer, String> {
        const FORM: &str = "that is no mail server; write smtp://host:port (TLS is not supported)";
        let uri: Uri = text.parse().map_err(|_| FORM.to_owned())?;
        let (Some("smtp"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(FORM.to_owned()) };
        if authority.as_str().contains('@') {
            return Err(
                "the service cannot log in at a mail server; write smtp://host:port, without user and password"
                    .to_owned(),
            );
        }
        if authority.host().is_empty() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(FORM.to_owned());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(SmtpServer { host, port: authority.port_u16().unwrap_or(DEFAULT_PORT) })
    }
}

/// Sends mails, each over a connection of its own.
#[derive(Clone)]
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    server: SmtpServer,
    timeout: Duration,
}

impl Smtp {
    /// Connects to nothing yet. `timeout` is for one mail, from the connection to the server's last answer.
    pub fn new(server: &SmtpServer, timeout: Duration) -> Smtp {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.as_str())
            .port(server.port)
            .timeout(Some(timeout))
            .build();
        Smtp { transport, server: server.clone(), timeout }
    }

    pub(super) async fn send(&self, mail: &Message, until: Instant) -> Result<(), SendError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SendError::NoTimeLeft);
        }
        let within = left.min(self.timeout);
        let failure = match timeout(within, self.transport.send_raw(mail.envelope(), &mail.formatted())).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => answered(error)?,
            Err(_) => None,
        };
        // The conversation broke off. Whether that is this mail's trouble or everyone's, the server must show.
        if !self.answers().await {
            return Err(SendError::Away(failure));
        }
        Err(failure.map_or(SendError::Slow, SendError::NotNow))
    }

    async fn answers(&self) -> bool {
        matches!(timeout(PROBE_TIMEOUT, self.transport.test_connection()).await, Ok(Ok(true)))
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("server", &self.server).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What the server answered, or the error back if it is none of its answers.
fn answered(error: Error) -> Result<Option<Error>, SendError> {
    let code = error.status().map(u16::from);
    match code {
        Some(CLOSING) => Err(SendError::Away(Some(error))),
        Some(code) if WRONG_CREDENTIALS.contains(&code) => Err(SendError::Away(Some(error))),
        Some(_) if error.is_permanent() => Err(SendError::Refused(error)),
        Some(_) => Err(SendError::NotNow(error)),
        // Our side cannot put this mail to this server, such as an address the server's protocol has no room for.
        None if error.is_client() => Err(SendError::Refused(error)),
        None => Ok(Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_from_its_url() {
        let table = [
            ("smtp://mail:1025", "mail", 1025),
            ("smtp://mail.example.com", "mail.example.com", 25),
            ("smtp://127.0.0.1:25/", "127.0.0.1", 25),
            ("smtp://[::1]:25", "::1", 25),
        ];
        for (url, host, port) in table {
            assert_eq!(url.parse(), Ok(SmtpServer { host: host.to_owned(), port }), "{url}");
        }
        for url in [
            "",
            "mail",
            "mail:25",
            "http://mail",
            "smtps://mail",
            "smtp://",
            "smtp://mail/path",
            "smtp://mail?tls=required",
        ] {
            assert!(url.parse::<SmtpServer>().is_err(), "{url}");
        }
    }
}
