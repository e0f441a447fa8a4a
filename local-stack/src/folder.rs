//! `.local-stack/`: databases, ledger and mails of one run, and the `env` file by which the command lines find it.
//!
//! Every start empties the folder, so it must be ours: only a folder that holds our marker file is ever emptied, and only
//! by the process that has locked this file. The system gives the lock back when the process ends, however it does.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    process,
};

use event_runtime::config::discovery::LOCAL_STACK_FILE;

const MARKER: &str = "made-by-local-stack";
const ENV: &str = "env";
const PID: &str = "LOCAL_STACK_PID";

/// The folder of a running stack. Its address file goes when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The marker, locked for as long as it is open.
    _marker: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A stack runs there already.
    #[error(
        "a local stack ({process}) already runs in {path}: use that one, end it with ctrl-c, or choose another folder with --dir"
    )]
    InUse {
        /// The folder.
        path: String,
        /// The process that holds it, such as `process 12`.
        process: String,
    },
    /// The folder holds things we did not put there.
    #[error("{0} is not empty and was not made by the local stack: choose another folder with --dir")]
    NotOurs(String),
    /// The folder cannot be written.
    #[error("cannot write in {path}: choose another folder with --dir")]
    Unwritable {
        /// The folder.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Folder {
    /// Takes `path` for this process: creates it, or empties what an earlier run left there.
    ///
    /// # Errors
    /// When another stack runs there, when it holds files that are not ours, or when it cannot be written.
    pub fn claim(path: &Path) -> Result<Folder, FolderError> {
        let shown = || path.display().to_string();
        let unwritable = |source| FolderError::Unwritable { path: shown(), source };
        if holds_files(path) && !path.join(MARKER).is_file() {
            return Err(FolderError::NotOurs(shown()));
        }
        fs::create_dir_all(path).map_err(unwritable)?;
        let marker = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(MARKER));
        let marker = marker.map_err(unwritable)?;
        match marker.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::InUse { path: shown(), process: running_in(path) });
            }
            // Not every file system has locks: without one nobody is refused.
            Err(TryLockError::Error(error)) => tracing::warn!(%error, "{} cannot be locked", shown()),
        }
        let folder = Folder { path: path.to_owned(), _marker: marker };
        folder.begin_anew().map_err(unwritable)?;
        Ok(folder)
    }

    /// Removes what an earlier run left. The marker stays: a process that has just opened it would lock a file which nobody
    /// finds any more.
    fn begin_anew(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false if entry.file_name() == MARKER => {}
                false => fs::remove_file(entry.path())?,
            }
        }
        fs::create_dir_all(self.mails())?;
        fs::write(self.path.join(MARKER), "Every start of the local stack empties this folder.\n")?;
        fs::write(self.path.join(ENV), format!("{PID}={}\n", process::id()))
    }

    /// Writes where everything listens, so that the command lines find it without flags.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, addresses: &[(&str, String)]) -> Result<(), FolderError> {
        let mut text = format!("{PID}={}\n", process::id());
        for (name, value) in addresses {
            text.push_str(&format!("{name}={value}\n"));
        }
        fs::write(self.path.join(ENV), text)
            .map_err(|source| FolderError::Unwritable { path: self.path.display().to_string(), source })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that [`announce`](Folder::announce) writes.
    pub fn addresses(&self) -> PathBuf {
        self.path.join(ENV)
    }

    /// Whether the command lines look for that file here, from this folder and those below.
    pub fn is_found(&self) -> bool {
        self.addresses() == Path::new(LOCAL_STACK_FILE)
    }

    /// Where mails are written.
    pub fn mails(&self) -> PathBuf {
        self.path.join("mail")
    }

    /// The database of `service`.
    pub fn database_url(&self, service: &str) -> String {
        format!("sqlite:{}", self.path.join(format!("{service}.db")).display())
    }

    /// The payment gateway's ledger.
    pub fn ledger(&self) -> PathBuf {
        self.path.join("gateway-ledger.jsonl")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A file left behind is recognised by its dead process id.
        if let Err(error) = fs::remove_file(self.path.join(ENV)) {
            tracing::debug!(%error, "the address file was gone already");
        }
    }
}

fn holds_files(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

/// The process that holds `path`, as far as it has said so already.
fn running_in(path: &Path) -> String {
    let text = fs::read_to_string(path.join(ENV)).unwrap_or_default();
    let pid = text.lines().find_map(|line| line.strip_prefix(PID)?.strip_prefix('='));
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_emptied_only_if_it_is_ours() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("stack");
        drop(Folder::claim(&path).unwrap());
        fs::write(path.join("order-service.db"), "old").unwrap();
        drop(Folder::claim(&path).unwrap());
        assert!(!path.join("order-service.db").exists(), "an earlier run's files go");

        fs::remove_file(path.join(MARKER)).unwrap();
        fs::write(path.join("thesis.txt"), "precious").unwrap();
        let refused = Folder::claim(&path).unwrap_err();
        assert!(matches!(refused, FolderError::NotOurs(_)), "{refused}");
        assert!(path.join("thesis.txt").exists());
    }

    #[test]
    fn a_second_stack_is_refused_by_name_and_a_dead_one_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("stack");
        let folder = Folder::claim(&path).unwrap();
        folder.announce(&[]).unwrap();
        fs::write(path.join("order-service.db"), "mine").unwrap();
        let refused = Folder::claim(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", process::id())), "{refused}");
        assert!(path.join("order-service.db").exists(), "nothing of the first is touched");
        drop(folder);

        // What a killed one leaves: its file, with an id that somebody else may have by now, and no lock.
        fs::write(path.join(ENV), format!("{PID}={}\n", std::os::unix::process::parent_id())).unwrap();
        drop(Folder::claim(&path).unwrap());
    }

    #[test]
    fn the_address_file_goes_with_the_stack() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("stack");
        let folder = Folder::claim(&path).unwrap();
        folder.announce(&[("KAFKA_BROKERS", "127.0.0.1:1".to_owned())]).unwrap();
        assert!(fs::read_to_string(path.join(ENV)).unwrap().contains("KAFKA_BROKERS=127.0.0.1:1"));
        drop(folder);
        assert!(!path.join(ENV).exists());
    }
}
