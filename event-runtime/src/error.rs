//! What a handler may answer. Three classes, because that is all the loop can act on.

use std::{error::Error as StdError, fmt};

use crate::cli::one_line;

/// Any error with its causes.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a handler could not handle a record.
#[derive(Debug)]
pub enum HandlerError {
    /// This record may succeed later: it is tried again by the handler's [`RetryPolicy`](crate::RetryPolicy).
    Retry(BoxError),
    /// This record will never succeed: it goes to the dead-letter topic at once.
    Reject(BoxError),
    /// Nothing can succeed now, because something the handler needs is away: the consumer pauses and probes, and no
    /// attempt is used up. One request's timeout is [`Retry`](Self::Retry).
    Unavailable(BoxError),
}

impl HandlerError {
    /// [`HandlerError::Retry`] from any error.
    pub fn retry(source: impl Into<BoxError>) -> Self {
        Self::Retry(source.into())
    }

    /// [`HandlerError::Reject`] from any error.
    pub fn reject(source: impl Into<BoxError>) -> Self {
        Self::Reject(source.into())
    }

    /// [`HandlerError::Unavailable`] from any error.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable(source.into())
    }

    /// What went wrong underneath.
    pub fn source_error(&self) -> &BoxError {
        match self {
            Self::Retry(source) | Self::Reject(source) | Self::Unavailable(source) => source,
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry(_) => "the record could not be handled this time",
            Self::Reject(_) => "the record cannot be handled",
            Self::Unavailable(_) => "a dependency is unavailable",
        })
    }
}

impl StdError for HandlerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source_error().as_ref())
    }
}

impl From<sqlx::Error> for HandlerError {
    /// A database that cannot be reached is an outage; everything else may pass at the next attempt.
    fn from(error: sqlx::Error) -> Self {
        match is_unavailable(&error) {
            true => Self::unavailable(error),
            false => Self::retry(error),
        }
    }
}

/// Whether the database cannot be reached, or says that it is going or not there yet (PostgreSQL's 57P01 to 57P03):
/// nothing any other statement could change.
pub(crate) fn is_unavailable(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Tls};
    match error {
        Io(_) | Tls(_) | PoolTimedOut | PoolClosed => true,
        Database(refusal) => matches!(refusal.code().as_deref(), Some("57P01" | "57P02" | "57P03")),
        _ => false,
    }
}

/// The beginning of a text from outside, on one line, for an error that repeats it: the text may be as long as a record,
/// and an error stands in every log line, header and terminal that tells of it.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => one_line(&text[..end]) + "…",
        None => one_line(text),
    }
}

/// Shows an error with all its causes, separated by `: `. Some libraries repeat the cause in their own words; it is shown
/// once.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            cause = error.source();
        }
        Ok(())
    }
}
