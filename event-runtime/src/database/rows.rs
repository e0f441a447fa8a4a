//! Statements over many rows: `VALUES ($1, $2), ($3, $4)`.
//!
//! The text of such a statement depends on how many rows it has, and a text that comes again is parsed once a connection.
//! So rows are taken in [`chunks`] of powers of two: a few texts do for all numbers.

use std::fmt::Write as _;

/// `$5, $6, $7` for `count` 3 after 4 others.
pub fn placeholders(after: usize, count: usize) -> String {
    let mut text = String::with_capacity(count * 5);
    for number in after + 1..=after + count {
        let comma = if number == after + 1 { "" } else { ", " };
        write!(text, "{comma}${number}").expect("writing to a string cannot fail");
    }
    text
}

/// `($2, $3), ($4, $5)` for 2 `rows` of 2 `columns` after 1 other.
pub fn values(after: usize, rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        let comma = if row == 0 { "" } else { ", " };
        write!(text, "{comma}({})", placeholders(after + row * columns, columns))
            .expect("writing to a string cannot fail");
    }
    text
}

/// A column of [`typed_values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Text, which PostgreSQL takes a placeholder for by itself.
    Text,
    /// A number.
    BigInt,
}

/// [`values`] for an `UPDATE … FROM (VALUES …)`, where PostgreSQL must be told which columns are numbers:
/// `($1, CAST($2 AS BIGINT)), ($3, CAST($4 AS BIGINT))`.
pub fn typed_values(rows: usize, columns: &[Column]) -> String {
    let row = |row: usize| {
        let column = |(place, column): (usize, &Column)| match (column, row * columns.len() + place + 1) {
            (Column::Text, number) => format!("${number}"),
            (Column::BigInt, number) => format!("CAST(${number} AS BIGINT)"),
        };
        format!("({})", columns.iter().enumerate().map(column).collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// The items in their order, in pieces whose lengths are those of [`sizes`].
pub fn chunks<T>(mut items: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    sizes(items.len(), most).map(move |size| {
        let (chunk, rest) = items.split_at(size);
        items = rest;
        chunk
    })
}

/// `count` as a sum of powers of two, the largest first, none above `most`, itself one: 13 is 8, 4 and 1.
pub fn sizes(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let mut left = count;
    std::iter::from_fn(move || {
        let size = left.checked_ilog2().map(|power| (1 << power).min(most))?;
        left -= size;
        Some(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_count_on() {
        assert_eq!(placeholders(0, 3), "$1, $2, $3");
        assert_eq!(placeholders(12, 2), "$13, $14");
        assert_eq!(values(0, 1, 2), "($1, $2)");
        assert_eq!(values(1, 2, 2), "($2, $3), ($4, $5)");
        let typed = typed_values(2, &[Column::Text, Column::BigInt]);
        assert_eq!(typed, "($1, CAST($2 AS BIGINT)), ($3, CAST($4 AS BIGINT))");
    }

    #[test]
    fn chunks_are_powers_of_two_and_leave_nothing_out() {
        let items: Vec<usize> = (0..150).collect();
        for count in 0..items.len() {
            let chunks: Vec<&[usize]> = chunks(&items[..count], 64).collect();
            assert!(chunks.iter().all(|chunk| chunk.len().is_power_of_two() && chunk.len() <= 64), "{count}");
            assert!(chunks.len() <= 9, "{count}: {} statements", chunks.len());
            assert_eq!(chunks.concat(), items[..count]);
        }
    }
}
