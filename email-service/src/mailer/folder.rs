use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::fs;
use uuid::Uuid;

/// Writes each mail as a file, whole or not at all.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder if need be, and tries whether it can be written to.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn open(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path).await?;
        let folder = Folder(path.to_owned());
        let trial = folder.temporary();
        fs::write(&trial, "").await?;
        fs::remove_file(&trial).await?;
        Ok(folder)
    }

    /// Writes `mail` to `name.eml`; what stood there is replaced.
    pub(super) async fn write(&self, name: &str, mail: &[u8]) -> io::Result<()> {
        // Under another name first: whoever lists the folder sees whole mails only.
        let temporary = self.temporary();
        let written = async {
            fs::write(&temporary, mail).await?;
            fs::rename(&temporary, self.0.join(format!("{name}.eml"))).await
        };
        let written = written.await;
        if written.is_err() {
            // The mail's error is the one to tell; a half-written file is a dot file that nobody reads.
            drop(fs::remove_file(&temporary).await);
        }
        written
    }

    fn temporary(&self) -> PathBuf {
        self.0.join(format!(".{}.tmp", Uuid::new_v4()))
    }
}
