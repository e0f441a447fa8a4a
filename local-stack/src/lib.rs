//! The whole order system in one process, for trying it out: an embedded broker, a SQLite file a service, the payment
//! gateway fake, a folder that mails are written to, and the services exactly as they run in production.
//!
//! Reading order: [`Folder`] (what is on disk), [`Stack`] (what runs), [`samples`] (the orders placed at the start),
//! [`chaos`] (what is broken on purpose meanwhile), [`guide`] (what is printed about it), [`run`] (all of it).
//! Beside it stands [`idempotency_demo`], which needs no stack.

pub mod chaos;
mod folder;
pub mod guide;
pub mod idempotency_demo;
mod run;
pub mod samples;
mod stack;

pub use folder::{Folder, FolderError};
pub use run::{Arguments, run};
pub use stack::{Addresses, Stack, StackOptions};
