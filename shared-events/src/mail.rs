//! Events on the topic `mails`: what email-service says.

use serde::{Deserialize, Serialize};

use crate::{Event, OrderId, Topic, topics};

/// The mail server accepted a mail about an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailSent {
    /// The order.
    pub order_id: OrderId,
    /// Which mail: the type of the event it tells of, such as `order.completed`.
    pub about: String,
    /// Its Message-ID. Made from the event's id, so that a mail sent twice can be recognised.
    pub message_id: String,
}

impl Event for MailSent {
    const TYPE: &'static str = "mail.sent";
    const TOPIC: Topic = topics::MAILS;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}
