//! What email-service does about events on `orders`: one file an event, and what they have in common.

mod order_cancelled;
mod order_completed;

use std::{sync::Arc, time::Duration};

use event_runtime::{Delivery, HandlerError, Outbox, Prepared, RetryPolicy, Tx};
use lettre::message::Mailbox;
pub use order_cancelled::ExplainCancellation;
pub use order_completed::ConfirmOrder;
use shared_events::MailSent;

use crate::{
    error::MailError,
    letter::{self, Letter, masked},
    mailer::{Mailer, PROBE_TIMEOUT},
    store,
};

/// A mail is to go out sooner or later: only what the server refuses for good is given up.
const RETRY: RetryPolicy = RetryPolicy::unlimited();
/// What an attempt needs once the mail is sent, or was not: so long before its deadline the server is waited for no more.
const DATABASE_TIME: Duration = Duration::from_secs(2);

/// Sends letters: what the handlers share.
#[derive(Clone, Debug)]
pub struct Post(Arc<Office>);

#[derive(Debug)]
struct Office {
    mailer: Mailer,
    from: Mailbox,
}

/// A letter under way, with the Message-ID that all its copies share.
#[derive(Clone, Debug)]
pub struct Addressed {
    letter: Letter,
    message_id: String,
}

impl Post {
    /// Sends through `mailer`, from `from`.
    pub fn new(mailer: Mailer, from: Mailbox) -> Post {
        Post(Arc::new(Office { mailer, from }))
    }

    async fn prepare<E>(
        &self,
        tx: &mut Tx,
        delivery: &Delivery<E>,
        letter: Letter,
    ) -> Result<Prepared<Addressed>, MailError> {
        let message_id = letter::message_id(delivery.envelope.id, &self.0.from);
        match store::begin(tx, &letter, &message_id, delivery.now).await? {
            Some(message_id) => Ok(Prepared::Do(Addressed { letter, message_id })),
            None => {
                tracing::info!(order = %letter.order_id, about = letter.about, "the mail went out before");
                Ok(Prepared::Nothing)
            }
        }
    }

    async fn send<E>(&self, plan: &Addressed, delivery: &Delivery<E>) -> Result<Addressed, MailError> {
        let Addressed { letter, message_id } = plan;
        let mail = letter.message(&self.0.from, message_id, delivery.envelope.time)?;
        let until = delivery.deadline - PROBE_TIMEOUT - DATABASE_TIME;
        self.0.mailer.send(&format!("{}.{}", letter.order_id, letter.about), &mail, until).await?;
        Ok(plan.clone())
    }

    async fn complete<E>(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<E>,
        sent: Addressed,
    ) -> Result<(), MailError> {
        let Addressed { letter, message_id } = sent;
        store::sent(tx, letter.order_id, letter.about, delivery.now).await?;
        outbox.publish(&MailSent { order_id: letter.order_id, about: letter.about.to_owned(), message_id })?;
        tracing::info!(order = %letter.order_id, about = letter.about, to = %masked(&letter.to), "mail sent");
        Ok(())
    }

    async fn give_up<E>(
        &self,
        tx: &mut Tx,
        delivery: &Delivery<E>,
        letter: &Letter,
        error: &HandlerError,
    ) -> Result<(), MailError> {
        store::failed(tx, letter.order_id, letter.about, &chain(error), delivery.now).await?;
        Ok(())
    }
}

/// The causes of an error, from the outermost.
fn chain(error: &HandlerError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
