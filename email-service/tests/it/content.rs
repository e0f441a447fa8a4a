use email_service::{ConfirmOrder, ExplainCancellation};
use jiff::Timestamp;
use shared_events::{Event, MailSent, OrderCancelled, OrderCompleted};
use test_support::{
    SmtpSink,
    handling::{delivery, effect, published},
    smtp::Mail,
};

use crate::{NOW, cancelled, completed, database, post};

fn only(sink: &SmtpSink) -> Mail {
    let [mail] = &sink.mails()[..] else { panic!("{:?}", sink.mails()) };
    mail.clone()
}

#[tokio::test]
async fn a_completed_order_is_confirmed_in_text_and_html() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let time: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let delivery = delivery(completed("ann@example.com"), time);
    let order = delivery.event.order_id;
    let rows = effect(&database, &ConfirmOrder(post(&sink)), &delivery).await.unwrap();

    let mail = only(&sink);
    assert_eq!((mail.from.as_str(), &mail.to[..]), ("shop@example.org", &["ann@example.com".to_owned()][..]));
    let message_id = format!("<{}@example.org>", delivery.envelope.id);
    let expected = [
        ("From", "Shop <shop@example.org>"),
        ("To", "ann@example.com"),
        ("Subject", &format!("Order {order} is confirmed")),
        ("Message-ID", &message_id),
        ("Date", "Fri, 02 Jan 2026 03:04:05 +0000"),
        ("MIME-Version", "1.0"),
    ];
    for (name, value) in expected {
        assert_eq!(mail.header(name), Some(value), "{name}");
    }
    assert!(mail.header("Content-Type").unwrap().starts_with("multipart/alternative"));
    let (text, html) = (mail.text("text/plain"), mail.text("text/html"));
    for line in [
        &format!("Order {order} is paid and on its way:"),
        "  2 x COFFEE-1KG at 18.90 EUR: 37.80 EUR\n",
        "  1 x MUG<BLUE> at 12.50 EUR: 12.50 EUR\n",
        "Total: 50.30 EUR",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    for line in [&format!("<code>{order}</code>"), "<td>MUG&lt;BLUE&gt;</td>", ">37.80 EUR</td>", ">50.30 EUR</th>"] {
        assert!(html.contains(line), "no {line:?} in {html}");
    }

    assert_eq!(rows.len(), 1);
    let said = published::<MailSent>(&rows[0]);
    assert_eq!(said, MailSent { order_id: order, about: OrderCompleted::TYPE.to_owned(), message_id });
}

#[tokio::test]
async fn a_cancelled_order_is_explained_with_its_reason() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let delivery = delivery(cancelled("ann@example.com"), NOW);
    let rows = effect(&database, &ExplainCancellation(post(&sink)), &delivery).await.unwrap();
    let mail = only(&sink);
    assert_eq!(mail.header("Subject"), Some(format!("Order {} was cancelled", delivery.event.order_id).as_str()));
    assert!(mail.text("text/plain").contains("Reason: your bank said \"no\" & <nothing> else.\n"));
    assert!(mail.text("text/html").contains("Reason: your bank said &#34;no&#34; &amp; &lt;nothing&gt; else."));
    assert_eq!(published::<MailSent>(&rows[0]).about, OrderCancelled::TYPE);
}

#[tokio::test]
async fn a_mail_that_went_out_is_not_sent_again_whoever_asks() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let handler = ConfirmOrder(post(&sink));
    let first = delivery(completed("ann@example.com"), NOW);
    assert_eq!(effect(&database, &handler, &first).await.unwrap().len(), 1);
    assert_eq!(effect(&database, &handler, &first).await.unwrap(), []);
    // Another event that says the same.
    let second = delivery(first.event.clone(), NOW);
    assert_eq!(effect(&database, &handler, &second).await.unwrap(), []);
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn text_beyond_ascii_and_long_lines_arrive_as_they_are() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let mut event = cancelled("ann@example.com");
    event.reason = format!("größer als möglich – {}", "sehr ".repeat(400));
    event.items[0].sku = ".\r\n.".to_owned();
    effect(&database, &ExplainCancellation(post(&sink)), &delivery(event.clone(), NOW)).await.unwrap();
    let text = only(&sink).text("text/plain");
    assert!(text.contains(event.reason.as_str()), "{text}");
    assert!(text.contains("2 x .\n. at"), "{text}");
}

#[tokio::test]
async fn lines_in_an_address_make_no_header() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    for address in ["ann@example.com\r\nBcc: all@example.com", "ann@example.com, bob@example.com", "", "ann"] {
        let sent = effect(&database, &ConfirmOrder(post(&sink)), &delivery(completed(address), NOW)).await;
        let error = sent.unwrap_err();
        assert!(matches!(error, event_runtime::HandlerError::Reject(_)), "{address:?}: {error:?}");
        assert!(!error.source_error().to_string().contains("all@"), "{error:?}");
    }
    assert!(sink.mails().is_empty());
}
