//! What the mail server may do to us, and what becomes of the mail.

use std::time::Duration;

use email_service::ConfirmOrder;
use event_runtime::{EffectHandler as _, HandlerError};
use test_support::{
    SmtpSink,
    handling::{delivery, effect},
    smtp::Answer,
};

use tokio::time::Instant;

use crate::{NOW, completed, database, post, post_within};

/// The class of a failure, and its words.
fn class(error: &HandlerError) -> (&'static str, String) {
    let class = match error {
        HandlerError::Retry(_) => "retry",
        HandlerError::Reject(_) => "reject",
        HandlerError::Unavailable(_) => "unavailable",
    };
    (class, error.source_error().to_string())
}

#[tokio::test]
async fn every_answer_of_the_server_has_its_class() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let table = [
        (Answer::NotNow, "retry", "the mail server does not take the mail now"),
        (Answer::Never, "reject", "the mail server refuses the mail for good"),
        (Answer::HangUp, "retry", "the mail server does not take the mail now"),
        (Answer::After(Duration::from_secs(60)), "retry", "the mail server took too long"),
    ];
    let handler = ConfirmOrder(post_within(&sink, Duration::from_millis(300)));
    for (answer, expected, words) in table {
        sink.answer(answer);
        let error = effect(&database, &handler, &delivery(completed("ann@example.com"), NOW)).await.unwrap_err();
        assert_eq!(class(&error), (expected, words.to_owned()), "{answer:?}");
    }
}

#[tokio::test]
async fn one_customers_mailbox_does_not_stop_the_others() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    sink.answer_to("gone@example.com", Answer::Never);
    let handler = ConfirmOrder(post(&sink));
    let gone = effect(&database, &handler, &delivery(completed("gone@example.com"), NOW)).await;
    assert_eq!(class(&gone.unwrap_err()).0, "reject");
    effect(&database, &handler, &delivery(completed("ann@example.com"), NOW)).await.unwrap();
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_an_outage_and_the_mail_goes_out_when_it_is_back() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let handler = ConfirmOrder(post(&sink));
    effect(&database, &handler, &delivery(completed("ann@example.com"), NOW)).await.unwrap();

    let address = sink.stop().await;
    let delivery = delivery(completed("bob@example.com"), NOW);
    for _ in 0..3 {
        let error = effect(&database, &handler, &delivery).await.unwrap_err();
        assert_eq!(class(&error), ("unavailable", "the mail server is away".to_owned()));
    }

    let sink = SmtpSink::start_at(address).await.unwrap();
    assert_eq!(effect(&database, &handler, &delivery).await.unwrap().len(), 1);
    assert_eq!(sink.copies(), [(format!("<{}@example.org>", delivery.envelope.id), 1)].into());
}

/// As after a crash between the server's answer and the commit: the effect is repeated.
#[tokio::test]
async fn copies_of_a_mail_share_one_message_id_and_every_byte() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let handler = ConfirmOrder(post(&sink));
    let delivery = delivery(completed("ann@example.com"), NOW);
    sink.answer(Answer::HangUp);
    for _ in 0..2 {
        assert_eq!(class(&effect(&database, &handler, &delivery).await.unwrap_err()).0, "retry");
    }
    sink.answer(Answer::Accept);
    effect(&database, &handler, &delivery).await.unwrap();
    assert_eq!(sink.copies().into_values().collect::<Vec<_>>(), [3]);
    let mails = sink.mails();
    assert!(mails.iter().all(|mail| *mail == mails[0]), "{mails:?}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_an_outage() {
    let (_place, database) = database().await;
    let smtp = email_service::mailer::Smtp::new(&"smtp://mail.invalid:25".parse().unwrap(), Duration::from_secs(5));
    let post = email_service::Post::new(email_service::mailer::Mailer::Smtp(smtp), "shop@example.org".parse().unwrap());
    let error = effect(&database, &ConfirmOrder(post), &delivery(completed("ann@example.com"), NOW)).await.unwrap_err();
    assert_eq!(class(&error).0, "unavailable");
}

#[tokio::test]
async fn a_mail_is_tried_for_ever_unless_it_is_refused() {
    let sink = SmtpSink::start().await;
    assert!(!ConfirmOrder(post(&sink)).retry().is_last(u32::MAX));
}

#[tokio::test]
async fn the_server_is_waited_for_no_longer_than_the_attempt_may_run_and_not_asked_after_that() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let handler = ConfirmOrder(post_within(&sink, Duration::from_secs(60)));
    sink.answer(Answer::After(Duration::from_secs(60)));
    let mut delivery = delivery(completed("ann@example.com"), NOW);
    for (left, words) in [(4, "the mail server took too long"), (2, "no time is left to send the mail")] {
        delivery.deadline = Instant::now() + Duration::from_secs(left);
        let error = effect(&database, &handler, &delivery).await.unwrap_err();
        assert_eq!(class(&error), ("retry", words.to_owned()));
        assert!(delivery.remaining() > Duration::from_secs(1), "{:?}", delivery.remaining());
    }
}
