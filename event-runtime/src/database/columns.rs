//! Columns that hold more than the databases' common types: times as microseconds since 1970, values as JSON text.

use std::{error::Error, fmt};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{ColumnIndex, Error as SqlError, Row as _, any::AnyRow};

use super::Dialect;

/// A column by its name or its number.
pub trait Column: ColumnIndex<AnyRow> + fmt::Display + Copy {}

impl<C: ColumnIndex<AnyRow> + fmt::Display + Copy> Column for C {}

/// The moment in a column of microseconds since 1970.
///
/// # Errors
/// When the column holds none.
pub fn moment(row: &AnyRow, column: impl Column) -> Result<Timestamp, SqlError> {
    Timestamp::from_microsecond(row.try_get(column)?).map_err(|error| undecodable(column, error))
}

/// The same for a column that may be NULL.
///
/// # Errors
/// When the column holds something else.
pub fn optional_moment(row: &AnyRow, column: impl Column) -> Result<Option<Timestamp>, SqlError> {
    let microseconds: Option<i64> = row.try_get(column)?;
    microseconds.map(Timestamp::from_microsecond).transpose().map_err(|error| undecodable(column, error))
}

/// The value in a column of JSON text.
///
/// # Errors
/// When the column holds something else.
pub fn json<T: DeserializeOwned>(row: &AnyRow, column: impl Column) -> Result<T, SqlError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| undecodable(column, error))
}

/// The SQL of a text column as bytes, which need not be text: one value that is not fails a whole statement.
pub(crate) fn bytes_of(column: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => format!("convert_to({column}, 'UTF8')"),
        Dialect::Sqlite => format!("CAST({column} AS BLOB)"),
    }
}

/// The failure of a column whose value is not what it should be.
pub fn undecodable(column: impl fmt::Display, source: impl Into<Box<dyn Error + Send + Sync>>) -> SqlError {
    SqlError::ColumnDecode { index: column.to_string(), source: source.into() }
}
