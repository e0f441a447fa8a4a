//! A file of orders: one JSON object a line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::Context;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::api::{NewItem, NewOrder};

/// One line of the file.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderLine {
    customer: String,
    items: Vec<NewItem>,
    #[serde(default = "visa")]
    payment_token: String,
    pub idempotency_key: Option<String>,
}

/// How many lines are read ahead.
const READ_AHEAD: usize = 64;

/// The lines of `file`; `-` is stdin. Read by a thread of its own: stdin knows no other way, and a thread that waits for
/// a line that never comes does not keep the process from ending.
pub fn lines(file: &Path) -> anyhow::Result<mpsc::Receiver<io::Result<String>>> {
    let source: Box<dyn BufRead + Send> = if file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        anyhow::ensure!(!opened.metadata()?.is_dir(), "{} is a folder; name a file of orders", file.display());
        Box::new(BufReader::new(opened))
    };
    let (sender, lines) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        for line in source.lines() {
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                break;
            }
        }
    });
    Ok(lines)
}

/// How many lines a regular file has, for a progress bar; `None` for what can be read only once.
pub fn count_lines(file: &Path) -> Option<u64> {
    let opened = File::open(file).ok()?;
    if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let lines = BufReader::new(opened).split(b'\n');
    Some(lines.map_while(Result::ok).filter(|line| !line.trim_ascii().is_empty()).count() as u64)
}

impl OrderLine {
    /// Reads one line.
    pub fn parse(text: &str) -> Result<OrderLine, String> {
        serde_json::from_str(text).map_err(|error| {
            // The parser counts lines within the text, which is always the first.
            let said = error.to_string();
            let (what, column) = said.split_once(" at line 1 column ").unwrap_or((&said, "1"));
            format!(
                "not an order: {what} (column {column}); a line looks like \
                 {{\"customer\":\"a@b.c\",\"items\":[{{\"sku\":\"COFFEE-1KG\",\"quantity\":1}}]}}"
            )
        })
    }

    /// The order it asks for.
    pub fn order(&self) -> NewOrder {
        NewOrder {
            customer: self.customer.clone(),
            items: self.items.clone(),
            payment_token: self.payment_token.clone(),
        }
    }
}

fn visa() -> String {
    "tok_visa".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_needs_a_customer_and_items_only() {
        let line = OrderLine::parse(r#"{"customer":"a@b.c","items":[{"sku":"TEA","quantity":2}]}"#).unwrap();
        assert_eq!(line.order().payment_token, "tok_visa");
        assert_eq!(line.order().items, [NewItem { sku: "TEA".to_owned(), quantity: 2 }]);
        assert_eq!(line.idempotency_key, None);
        let line = r#"{"customer":"a@b.c","items":[],"paymentToken":"tok_flaky","idempotencyKey":"k"}"#;
        let line = OrderLine::parse(line).unwrap();
        assert_eq!((line.order().payment_token.as_str(), line.idempotency_key.as_deref()), ("tok_flaky", Some("k")));
    }

    #[test]
    fn a_malformed_line_says_what_and_in_which_column() {
        let table = [
            ("{", "EOF while parsing an object (column 1)"),
            ("coffee", "expected value (column 1)"),
            (r#"{"items":[]}"#, "missing field `customer` (column 12)"),
            (r#"{"customer":"a","items":[{"sku":"A","quantity":-1}]}"#, "invalid value: integer `-1`"),
            (r#"{"customer":"a","items":[],"paymentTokn":"x"}"#, "unknown field `paymentTokn`"),
        ];
        for (text, expected) in table {
            let message = OrderLine::parse(text).expect_err(text);
            assert!(message.starts_with("not an order: ") && message.contains(expected), "{text}: {message}");
        }
    }
}
