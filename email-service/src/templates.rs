//! Fills `{{name}}` in the files under `templates/`.
//!
//! Names, rows, and no more: what HTML needs escaped is escaped here, for every value, so that no template can forget it.

use std::fmt::{Display, Write};

/// A text and its HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    Completed,
    Cancelled,
    Item,
}

/// What is filled in.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<(&'static str, Value)>);

#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Rows(Template, Vec<Values>),
}

#[derive(Clone, Copy)]
enum Format {
    Text,
    Html,
}

impl Values {
    pub fn new() -> Values {
        Values::default()
    }

    /// `{{name}}` is `value`.
    pub fn text(mut self, name: &'static str, value: impl Display) -> Values {
        self.0.push((name, Value::Text(value.to_string())));
        self
    }

    /// `{{name}}` is `template`, once for each of `rows`.
    pub fn rows(mut self, name: &'static str, template: Template, rows: Vec<Values>) -> Values {
        self.0.push((name, Value::Rows(template, rows)));
        self
    }
}

impl Template {
    /// The plain text with `values` in it.
    pub fn text(self, values: &Values) -> String {
        self.fill(Format::Text, values)
    }

    /// The HTML with `values` in it, escaped.
    pub fn html(self, values: &Values) -> String {
        self.fill(Format::Html, values)
    }

    fn source(self, format: Format) -> &'static str {
        match (self, format) {
            (Template::Completed, Format::Text) => include_str!("../templates/completed.txt"),
            (Template::Completed, Format::Html) => include_str!("../templates/completed.html"),
            (Template::Cancelled, Format::Text) => include_str!("../templates/cancelled.txt"),
            (Template::Cancelled, Format::Html) => include_str!("../templates/cancelled.html"),
            (Template::Item, Format::Text) => include_str!("../templates/item.txt"),
            (Template::Item, Format::Html) => include_str!("../templates/item.html"),
        }
    }

    /// Goes through the template once, so that braces in a value are never taken for a name.
    fn fill(self, format: Format, values: &Values) -> String {
        let mut filled = String::new();
        let mut rest = self.source(format);
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").expect("the test below goes through every template");
            filled.push_str(before);
            let value = values.0.iter().find(|(known, _)| *known == name);
            match &value.expect("the test below goes through every template").1 {
                Value::Text(text) => push(&mut filled, format, text),
                Value::Rows(template, rows) => rows.iter().for_each(|row| filled.push_str(&template.fill(format, row))),
            }
            rest = after;
        }
        filled + rest
    }
}

fn push(filled: &mut String, format: Format, text: &str) {
    match format {
        Format::Text => filled.push_str(text),
        Format::Html => text.chars().for_each(|char| match char {
            '&' => filled.push_str("&amp;"),
            '<' => filled.push_str("&lt;"),
            '>' => filled.push_str("&gt;"),
            // Also safe inside attributes.
            '"' | '\'' => write!(filled, "&#{};", u32::from(char)).expect("a string takes all that is written to it"),
            _ => filled.push(char),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let row =
            Values::new().text("quantity", 2).text("sku", "A<b>").text("price", "1.00 EUR").text("sum", "2.00 EUR");
        Values::new().text("order", "{{total}}").text("reason", "\"so\" & 'so'").text("total", "2.00 EUR").rows(
            "items",
            Template::Item,
            vec![row.clone(), row],
        )
    }

    #[test]
    fn every_template_is_filled_to_the_last_name() {
        for template in [Template::Completed, Template::Cancelled] {
            for filled in [template.text(&values()), template.html(&values())] {
                // One is the value above, which is not filled in turn.
                assert_eq!(filled.matches("{{").count(), 1, "{filled}");
                assert_eq!(filled.matches("2.00 EUR").count(), 3, "{filled}");
            }
        }
    }

    #[test]
    fn html_is_escaped_and_text_is_not() {
        let (text, html) = (Template::Cancelled.text(&values()), Template::Cancelled.html(&values()));
        assert!(text.contains("2 x A<b> at 1.00 EUR: 2.00 EUR\n") && text.contains("Reason: \"so\" & 'so'."));
        assert!(html.contains("<td>A&lt;b&gt;</td>") && html.contains("Reason: &#34;so&#34; &amp; &#39;so&#39;."));
    }
}
