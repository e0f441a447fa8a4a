use event_runtime::{Database, Migration};
use shared_events::EventId;
use tempfile::TempDir;

/// `postgres://…` of a server that is there for tests: then tests that ask for any database run on it.
const SERVER: &str = "TEST_DATABASE_URL";

/// An empty database of its own. A SQLite file goes when this is dropped; a database on a server stays, as the server is
/// there for tests only.
pub struct TempDatabase {
    url: String,
    _folder: Option<TempDir>,
}

impl TempDatabase {
    /// A SQLite file; it is made by whoever connects.
    #[expect(clippy::new_without_default, reason = "a default that makes a folder would surprise")]
    pub fn new() -> TempDatabase {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("test.db");
        let url = format!("sqlite://{}?mode=rwc", file.to_str().expect("the temporary folder's name is UTF-8"));
        TempDatabase { url, _folder: Some(folder) }
    }

    /// A new database on the server `TEST_DATABASE_URL` names, or a SQLite file where that is not set.
    pub async fn any() -> TempDatabase {
        match std::env::var(SERVER) {
            Ok(server) => TempDatabase { url: on_server(&server).await, _folder: None },
            Err(_) => TempDatabase::new(),
        }
    }

    /// For `DATABASE_URL` and [`Database::connect_lazy`].
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Connected, with the runtime's tables and those of `migrations`.
    pub async fn migrated(&self, migrations: &[Migration]) -> Database {
        let database = Database::connect_lazy(&self.url).expect("the URL is one of ours");
        database
            .migrate(migrations)
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        database
    }
}

async fn on_server(server: &str) -> String {
    let name = format!("test_{}", EventId::new().0.simple());
    let (prefix, _) = server.rsplit_once('/').unwrap_or_else(|| panic!("{SERVER} must name a database: {server}"));
    let database = Database::connect_lazy(server).unwrap_or_else(|error| panic!("{SERVER}: {error}"));
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    let created = sqlx::raw_sql(create).execute(database.pool()).await;
    created.unwrap_or_else(|error| panic!("{SERVER} takes no new database: {error}"));
    database.close().await;
    format!("{prefix}/{name}")
}
