//! What a handler takes: an event, or one of several.

use shared_events::{Event, Topic};

/// Names an event type and where it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    /// The CloudEvents type, such as `order.created`.
    pub name: &'static str,
    /// The topic.
    pub topic: Topic,
}

impl EventType {
    /// That of `E`.
    pub const fn of<E: Event>() -> EventType {
        EventType { name: E::TYPE, topic: E::TOPIC }
    }
}

/// What a [`BatchHandler`](crate::BatchHandler) takes: every [`Event`] alone, or several as an enum, see
/// [`events!`](crate::events).
pub trait Events: Sized + Send + Sync + 'static {
    /// All it may be.
    fn types() -> Vec<EventType>;

    /// Reads the event of this type, one of [`Events::types`], from a record's value.
    ///
    /// # Errors
    /// When the value is none.
    fn decode(event_type: &str, value: &[u8]) -> Result<Self, serde_json::Error>;

    /// The key of its record.
    fn key(&self) -> String;
}

impl<E: Event> Events for E {
    fn types() -> Vec<EventType> {
        vec![EventType::of::<E>()]
    }

    fn decode(_event_type: &str, value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    fn key(&self) -> String {
        Event::key(self)
    }
}

/// An enum of events that one handler takes, such as those a saga waits for. Each variant is named after its event.
///
/// ```
/// use shared_events::{PaymentFailed, PaymentSucceeded};
///
/// event_runtime::events! {
///     /// What payment-service answers.
///     pub enum PaymentAnswer {
///         PaymentSucceeded,
///         PaymentFailed,
///     }
/// }
///
/// let value = br#"{"orderId":"0199aa10-7c1f-7d02-b7c2-2f0c9e6b1d55","reason":"no funds"}"#;
/// let answer = <PaymentAnswer as event_runtime::Events>::decode("payment.failed", value).unwrap();
/// assert!(matches!(answer, PaymentAnswer::PaymentFailed(PaymentFailed { reason, .. }) if reason == "no funds"));
/// ```
#[macro_export]
macro_rules! events {
    ($(#[$attribute:meta])* $visible:vis enum $name:ident { $($event:ident),+ $(,)? }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug)]
        $visible enum $name {
            $(
                #[doc = concat!("A [`", stringify!($event), "`].")]
                $event($event)
            ),+
        }

        $(
            impl ::std::convert::From<$event> for $name {
                fn from(event: $event) -> Self {
                    Self::$event(event)
                }
            }
        )+

        impl $crate::Events for $name {
            fn types() -> ::std::vec::Vec<$crate::EventType> {
                ::std::vec![$($crate::EventType::of::<$event>()),+]
            }

            fn decode(event_type: &str, value: &[u8]) -> ::std::result::Result<Self, $crate::macros::JsonError> {
                $(
                    if event_type == <$event as $crate::macros::Event>::TYPE {
                        return $crate::macros::from_slice(value).map(Self::$event);
                    }
                )+
                ::std::result::Result::Err($crate::macros::not_one_of(event_type, stringify!($name)))
            }

            fn key(&self) -> ::std::string::String {
                match self {
                    $(Self::$event(event) => $crate::macros::Event::key(event)),+
                }
            }
        }
    };
}

/// What [`events!`] writes into other crates.
#[doc(hidden)]
pub mod macros {
    pub use serde_json::{Error as JsonError, from_slice};
    pub use shared_events::Event;

    pub fn not_one_of(event_type: &str, name: &str) -> JsonError {
        serde::de::Error::custom(format_args!("{event_type} is none of {name}"))
    }
}
