//! Commands that look into a service's database beside the service.

use std::fmt;

use crate::{Database, config::redact_url, database::DatabaseUrlError};

/// Which database.
#[derive(Clone, clap::Args)]
pub struct DatabaseArgs {
    /// Where the service keeps its data: postgres://… or sqlite:…
    // The environment's value may hold a password, which `--help` would print.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: String,
}

impl DatabaseArgs {
    /// The database, which is not made where it is missing.
    ///
    /// # Errors
    /// When the URL is for no database we know.
    pub fn existing(&self) -> Result<Database, DatabaseUrlError> {
        Database::existing_lazy(&self.database_url)
    }
}

impl fmt::Debug for DatabaseArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseArgs").field("database_url", &redact_url(&self.database_url)).finish()
    }
}
