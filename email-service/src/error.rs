use event_runtime::{HandlerError, outbox::EncodeError};

use crate::{letter::LetterError, mailer::SendError};

/// Why a customer was not told.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error(transparent)]
    Letter(#[from] LetterError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    #[error("the mail's event cannot be published")]
    Encode(#[from] EncodeError),
}

impl From<MailError> for HandlerError {
    fn from(error: MailError) -> Self {
        match error {
            MailError::Letter(_) | MailError::Send(SendError::Refused(_)) => HandlerError::reject(error),
            MailError::Send(SendError::NotNow(_) | SendError::Slow | SendError::NoTimeLeft) => {
                HandlerError::retry(error)
            }
            MailError::Send(SendError::Away(_) | SendError::Folder(_)) => HandlerError::unavailable(error),
            // Handed on as it is: the runtime tells an outage and a deadlock from a failure by the database's error.
            MailError::Database(error) => error.into(),
            MailError::Encode(error) => error.into(),
        }
    }
}
