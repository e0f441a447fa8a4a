//! What is written to whom, from the event alone, and as a mail.

use std::{
    error::Error as StdError,
    fmt::{self, Display},
    time::SystemTime,
};

use jiff::Timestamp;
use lettre::{
    Message,
    message::{Mailbox, MultiPart, SinglePart},
};
use shared_events::{Event, EventId, Money, OrderCancelled, OrderCompleted, OrderId, OrderItem};

use crate::templates::{Template, Values};

/// A mail before it has a sender and an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub order_id: OrderId,
    /// The type of the event it tells of.
    pub about: &'static str,
    pub to: String,
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Why a letter is no mail.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    #[error("{} is no mail address", masked(.0))]
    Recipient(String, #[source] lettre::address::AddressError),
    #[error("the mail cannot be put together")]
    Message(#[source] Box<dyn StdError + Send + Sync>),
}

impl Letter {
    /// The confirmation of a completed order.
    pub fn confirmation(event: &OrderCompleted) -> Letter {
        let values = Values::new().text("order", event.order_id).text("total", event.total).rows(
            "items",
            Template::Item,
            rows(&event.items),
        );
        Letter {
            order_id: event.order_id,
            about: OrderCompleted::TYPE,
            to: event.customer_email.clone(),
            subject: format!("Order {} is confirmed", event.order_id),
            text: Template::Completed.text(&values),
            html: Template::Completed.html(&values),
        }
    }

    /// The notice of a cancelled order.
    pub fn notice(event: &OrderCancelled) -> Letter {
        let values = Values::new()
            .text("order", event.order_id)
            .text("reason", event.reason.trim_end_matches('.'))
            .text("total", event.total)
            .rows("items", Template::Item, rows(&event.items));
        Letter {
            order_id: event.order_id,
            about: OrderCancelled::TYPE,
            to: event.customer_email.clone(),
            subject: format!("Order {} was cancelled", event.order_id),
            text: Template::Cancelled.text(&values),
            html: Template::Cancelled.html(&values),
        }
    }

    /// As a mail: the same bytes however often it is made.
    ///
    /// # Errors
    /// When the recipient is no address.
    pub fn message(&self, from: &Mailbox, message_id: &str, date: Timestamp) -> Result<Message, LetterError> {
        let to = self.to.parse().map_err(|error| LetterError::Recipient(self.to.clone(), error))?;
        let boundary = message_id.trim_matches(['<', '>']).split('@').next().unwrap_or_default().to_owned();
        let parts = MultiPart::alternative()
            .boundary(format!("part-{boundary}"))
            .singlepart(SinglePart::plain(self.text.clone()))
            .singlepart(SinglePart::html(self.html.clone()));
        Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(self.subject.clone())
            .message_id(Some(message_id.to_owned()))
            .date(SystemTime::from(date))
            .multipart(parts)
            .map_err(|error| LetterError::Message(error.into()))
    }
}

/// The Message-ID of the mail about an event: all its copies share it. Its domain is that of the sender.
pub fn message_id(event: EventId, from: &Mailbox) -> String {
    format!("<{event}@{}>", from.email.domain())
}

/// `a***@example.com`: enough to recognise an address one knows.
pub fn masked(address: &str) -> impl Display + '_ {
    fmt::from_fn(move |f| match address.rsplit_once('@') {
        Some((name, domain)) => write!(f, "{}***@{domain}", name.chars().take(1).collect::<String>()),
        None => f.write_str("***"),
    })
}

fn rows(items: &[OrderItem]) -> Vec<Values> {
    items.iter().map(row).collect()
}

fn row(item: &OrderItem) -> Values {
    // The order's total is what counts; a line that cannot be multiplied out is shown without its sum.
    let sum = item.unit_price.times(item.quantity).as_ref().map(Money::to_string).unwrap_or_default();
    Values::new().text("quantity", item.quantity).text("sku", &item.sku).text("price", item.unit_price).text("sum", sum)
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn addresses_are_masked_down_to_their_first_letter() {
        let table =
            [("ann@example.com", "a***@example.com"), ("é@b.c", "é***@b.c"), ("@b.c", "***@b.c"), ("ann", "***")];
        for (address, expected) in table {
            assert_eq!(masked(address).to_string(), expected);
        }
    }
}
