//! Errors that last until somebody does something: said once each, and with what to do.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use rdkafka::error::RDKafkaErrorCode;

/// Reasons differ in details such as times, which must not fill the memory either.
const REMEMBERED: usize = 100;

/// What has been said.
#[derive(Debug, Default)]
pub(super) struct Complaints(HashSet<String>);

impl Complaints {
    /// What to do about `code`, if it lasts and has not been said. Reasons of a missing topic or right name what it is
    /// about; those of a failed sign-in differ every time and are said once.
    pub(super) fn news(&mut self, code: RDKafkaErrorCode, reason: &str) -> Option<&'static str> {
        let (advice, about) = match code {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                ("create the topic, such as with `eventctl topics apply`, or correct its name", reason)
            }
            RDKafkaErrorCode::InvalidTopic => ("correct the topic's name", reason),
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                ("allow this user to read the topic (ACL: Read and Describe)", reason)
            }
            RDKafkaErrorCode::GroupAuthorizationFailed => {
                ("allow this user to join the consumer group (ACL: Read on the group)", reason)
            }
            RDKafkaErrorCode::ClusterAuthorizationFailed => ("give this user the rights on the cluster", reason),
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                ("check user, password and mechanism (`-X sasl.…`)", "")
            }
            _ => return None,
        };
        let new = self.0.len() < REMEMBERED && self.0.insert(format!("{code:?} {about}"));
        new.then_some(advice)
    }

    /// Whether an error of this kind is for [`Complaints::news`] alone.
    pub(super) fn lasts(code: RDKafkaErrorCode) -> bool {
        Complaints::default().news(code, "").is_some()
    }

    /// What was wrong may be right now, and go wrong again.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// Says `reason`, unless that is done or it passes by itself; whether it did.
pub(super) fn complain(complaints: &Mutex<Complaints>, group: &str, code: RDKafkaErrorCode, reason: &str) -> bool {
    let advice = complaints.lock().unwrap_or_else(PoisonError::into_inner).news(code, reason);
    if let Some(advice) = advice {
        tracing::error!(group, reason, "Kafka refuses: {advice}");
    }
    advice.is_some()
}

#[cfg(test)]
mod tests {
    use super::{Complaints, RDKafkaErrorCode as Code, REMEMBERED};

    #[test]
    fn what_lasts_is_said_once_each() {
        let mut complaints = Complaints::default();
        assert!(complaints.news(Code::UnknownTopicOrPartition, "no a").is_some_and(|advice| advice.contains("create")));
        assert_eq!(complaints.news(Code::UnknownTopicOrPartition, "no a"), None);
        assert!(complaints.news(Code::UnknownTopicOrPartition, "no b").is_some());
        assert!(complaints.news(Code::TopicAuthorizationFailed, "no a").is_some());
        assert!(complaints.news(Code::Authentication, "refused (after 3ms)").is_some());
        assert_eq!(complaints.news(Code::Authentication, "refused (after 4ms)"), None);
        complaints.forget();
        assert!(complaints.news(Code::UnknownTopicOrPartition, "no a").is_some());
    }

    #[test]
    fn what_passes_by_itself_is_not_for_here() {
        assert_eq!(Complaints::default().news(Code::BrokerTransportFailure, "gone"), None);
        assert!(!Complaints::lasts(Code::BrokerTransportFailure) && Complaints::lasts(Code::UnknownTopicOrPartition));
    }

    #[test]
    fn ever_new_reasons_take_no_more_memory() {
        let mut complaints = Complaints::default();
        let said = (0..1000).filter(|n| complaints.news(Code::UnknownTopic, &n.to_string()).is_some()).count();
        assert_eq!(said, REMEMBERED);
    }
}
