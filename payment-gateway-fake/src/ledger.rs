//! The ledger: every charge, decline and refund, in memory and as one JSON line each in an append-only file.
//!
//! A line is handed to the operating system in one write before the request is answered, so what was answered survives a
//! `kill -9` of the gateway. It is not forced to the disk: a power cut may lose the last lines, which a fake may.

use std::{
    collections::HashMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Money as callers write it: minor units and an ISO 4217 code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub minor: i64,
    pub currency: String,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.minor.unsigned_abs();
        write!(f, "{}.{:02} {}", minor / 100, minor % 100, self.currency)
    }
}

/// What a caller wants charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeRequest {
    pub amount: Amount,
    pub token: String,
}

/// Money that was taken, and perhaps given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Charge {
    pub id: String,
    pub idempotency_key: String,
    pub amount: Amount,
    pub status: Status,
    pub token: String,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refunded_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Succeeded,
    Refunded,
}

/// Why the ledger refuses.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("idempotency key {0} was used with another body")]
    OtherBody(String),
    #[error("there is no charge {0}")]
    NoCharge(String),
    #[error("the ledger cannot be written")]
    Write(#[source] io::Error),
}

/// Why a ledger file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the ledger {path}: check that its folder exists and can be written")]
    Open { path: PathBuf, source: io::Error },
    #[error("the ledger {0} is in use by another gateway: stop that one, or name another file")]
    InUse(PathBuf),
    #[error("line {line} of the ledger {path} is damaged: mend it or move the file away")]
    Damaged { path: PathBuf, line: usize, source: serde_json::Error },
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Charged(Charge),
    /// Kept because a key that was declined may not come back with another body.
    Declined {
        #[serde(rename = "idempotencyKey")]
        key: String,
        request: ChargeRequest,
    },
    Refunded {
        id: String,
        at: Timestamp,
    },
}

/// Charges by key and by id. One lock, held for a write of a few hundred bytes: parallel requests under one key make
/// one charge.
pub struct Ledger(Mutex<Books>);

#[derive(Default)]
struct Books {
    /// In the order in which they were made.
    charges: Vec<Charge>,
    /// Position in `charges`.
    by_key: HashMap<String, usize>,
    /// Position in `charges`.
    by_id: HashMap<String, usize>,
    declined: HashMap<String, ChargeRequest>,
    file: Option<LineFile>,
}

impl Ledger {
    pub fn in_memory() -> Ledger {
        Ledger(Mutex::new(Books::default()))
    }

    /// Opens or creates the file and reads what it holds. A last line without its end is the trace of a crash during a
    /// write that was never answered: it is cut off.
    pub fn open(path: &Path) -> Result<Ledger, OpenError> {
        let (file, text) = LineFile::open(path)?;
        let mut books = Books::default();
        for (number, line) in text.lines().enumerate() {
            let line = serde_json::from_str(line).map_err(|source| OpenError::Damaged {
                path: path.to_owned(),
                line: number + 1,
                source,
            })?;
            books.apply(line);
        }
        if !books.charges.is_empty() {
            tracing::info!(charges = books.charges.len(), ledger = %path.display(), "the ledger was read");
        }
        books.file = Some(file);
        Ok(Ledger(Mutex::new(books)))
    }

    /// The charge made under `key`, now or before.
    pub fn charge(&self, key: &str, request: &ChargeRequest, now: Timestamp) -> Result<Charge, LedgerError> {
        let mut books = self.lock();
        if let Some(charge) = books.find(key, request)? {
            return Ok(charge);
        }
        let charge = Charge {
            id: format!("ch_{}", uuid::Uuid::now_v7().simple()),
            idempotency_key: key.to_owned(),
            amount: request.amount.clone(),
            status: Status::Succeeded,
            token: request.token.clone(),
            created_at: now,
            refunded_at: None,
        };
        books.write(Line::Charged(charge.clone()))?;
        Ok(charge)
    }

    /// Notes that `key` was declined.
    pub fn decline(&self, key: &str, request: &ChargeRequest) -> Result<(), LedgerError> {
        let mut books = self.lock();
        if books.find(key, request)?.is_none() && !books.declined.contains_key(key) {
            books.write(Line::Declined { key: key.to_owned(), request: request.clone() })?;
        }
        Ok(())
    }

    /// Gives a charge back, once.
    pub fn refund(&self, id: &str, now: Timestamp) -> Result<Charge, LedgerError> {
        let mut books = self.lock();
        let position = *books.by_id.get(id).ok_or_else(|| LedgerError::NoCharge(id.to_owned()))?;
        if books.charges[position].status == Status::Succeeded {
            books.write(Line::Refunded { id: id.to_owned(), at: now })?;
        }
        Ok(books.charges[position].clone())
    }

    /// The charge already made under `key`.
    ///
    /// # Errors
    /// When the key was used with another body.
    pub fn find(&self, key: &str, request: &ChargeRequest) -> Result<Option<Charge>, LedgerError> {
        self.lock().find(key, request)
    }

    pub fn by_key(&self, key: &str) -> Option<Charge> {
        let books = self.lock();
        books.by_key.get(key).map(|position| books.charges[*position].clone())
    }

    pub fn all(&self) -> Vec<Charge> {
        self.lock().charges.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A line is applied only after it was written: a panic in between leaves the books as they were.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn find(&self, key: &str, request: &ChargeRequest) -> Result<Option<Charge>, LedgerError> {
        let other_body = || LedgerError::OtherBody(key.to_owned());
        if let Some(declined) = self.declined.get(key) {
            return if declined == request { Ok(None) } else { Err(other_body()) };
        }
        let Some(charge) = self.by_key.get(key).map(|position| &self.charges[*position]) else { return Ok(None) };
        if charge.amount != request.amount || charge.token != request.token {
            return Err(other_body());
        }
        Ok(Some(charge.clone()))
    }

    fn write(&mut self, line: Line) -> Result<(), LedgerError> {
        if let Some(file) = &mut self.file {
            let mut text = serde_json::to_string(&line).map_err(|error| LedgerError::Write(error.into()))?;
            text.push('\n');
            file.append(text.as_bytes()).map_err(LedgerError::Write)?;
        }
        self.apply(line);
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Charged(charge) => {
                self.by_key.insert(charge.idempotency_key.clone(), self.charges.len());
                self.by_id.insert(charge.id.clone(), self.charges.len());
                self.charges.push(charge);
            }
            Line::Declined { key, request } => {
                self.declined.insert(key, request);
            }
            Line::Refunded { id, at } => {
                if let Some(position) = self.by_id.get(&id) {
                    let charge = &mut self.charges[*position];
                    charge.status = Status::Refunded;
                    charge.refunded_at = Some(at);
                }
            }
        }
    }
}

/// An append-only file of whole lines.
struct LineFile {
    file: File,
    /// Where the last whole line ends.
    length: u64,
}

impl LineFile {
    fn open(path: &Path) -> Result<(LineFile, String), OpenError> {
        let cannot_open = |source| OpenError::Open { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(cannot_open)?;
        // Two gateways on one file would each miss the other's charges, and charge twice.
        file.try_lock().map_err(|_| OpenError::InUse(path.to_owned()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(cannot_open)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        if whole < bytes.len() {
            tracing::warn!(ledger = %path.display(), bytes = bytes.len() - whole, "the ledger's last line was torn by a crash and is cut off");
            file.set_len(whole as u64).map_err(cannot_open)?;
            bytes.truncate(whole);
        }
        let text =
            String::from_utf8(bytes).map_err(|error| cannot_open(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Ok((LineFile { file, length: whole as u64 }, text))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            // Half a line would spoil the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }
}
