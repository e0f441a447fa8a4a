use serde::{Serialize, de::DeserializeOwned};

use crate::Topic;

/// Something that happened, as it is written to a topic: a type name, a topic, and a key that orders it.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The CloudEvents type, in the past tense, such as `order.created`.
    const TYPE: &'static str;
    /// The one topic this event is published to.
    const TOPIC: Topic;

    /// The record key. Events with one key are handled in the order in which they were published.
    fn key(&self) -> String;
}
