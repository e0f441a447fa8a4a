use tempfile::TempDir;

/// A SQLite database file in a folder of its own, which goes when this is dropped.
pub struct TempDatabase {
    folder: TempDir,
}

impl TempDatabase {
    /// A place for a database; the file is made by whoever connects.
    #[expect(clippy::new_without_default, reason = "a default that makes a folder would surprise")]
    pub fn new() -> TempDatabase {
        TempDatabase { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// For `DATABASE_URL` and [`Database::connect_lazy`](event_runtime::Database::connect_lazy).
    pub fn url(&self) -> String {
        let file = self.folder.path().join("test.db");
        format!("sqlite://{}?mode=rwc", file.to_str().expect("the temporary folder's name is UTF-8"))
    }
}
