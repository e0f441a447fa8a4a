use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::MailSent;

use crate::{
    error::SagaError,
    store::{self, Entry},
};

/// The customer was told: a line in the timeline, nothing else.
pub struct NoteMail;

impl TransactionalHandler for NoteMail {
    type Event = MailSent;

    async fn handle(
        &self,
        tx: &mut Tx,
        _outbox: &mut Outbox,
        delivery: &Delivery<MailSent>,
    ) -> Result<(), HandlerError> {
        let MailSent { order_id, about, message_id } = &delivery.event;
        let entry = Entry::of_delivery(delivery, Some(format!("about {about}, {message_id}")));
        if !store::note_if_known(tx, *order_id, &entry).await.map_err(SagaError::from)? {
            return Err(SagaError::UnknownOrder(*order_id).into());
        }
        Ok(())
    }
}
