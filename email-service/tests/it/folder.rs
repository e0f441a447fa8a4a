use email_service::{ConfirmOrder, ExplainCancellation};
use event_runtime::HandlerError;
use test_support::{
    handling::{delivery, effect},
    smtp::Mail,
};

use crate::{NOW, cancelled, completed, database, post_to};

#[tokio::test]
async fn mails_are_files_named_after_order_and_event() {
    let (_place, database) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let post = post_to(folder.path()).await;
    let done = delivery(completed("ann@example.com"), NOW);
    let ended = delivery(cancelled("bob@example.com"), NOW);
    effect(&database, &ConfirmOrder(post.clone()), &done).await.unwrap();
    effect(&database, &ExplainCancellation(post), &ended).await.unwrap();

    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let (done_name, ended_name) = (
        format!("{}.order.completed.eml", done.event.order_id),
        format!("{}.order.cancelled.eml", ended.event.order_id),
    );
    assert_eq!(names, [done_name.clone(), ended_name]);
    let mail = Mail::parse(String::new(), Vec::new(), &std::fs::read_to_string(folder.path().join(done_name)).unwrap());
    assert_eq!(mail.header("To"), Some("ann@example.com"));
    assert!(mail.text("text/plain").contains("Total: 50.30 EUR"));
}

#[tokio::test]
async fn a_mail_written_again_is_one_file_with_the_same_bytes() {
    let (_place, first) = database().await;
    let (_place, second) = database().await;
    let folder = tempfile::tempdir().unwrap();
    let handler = ConfirmOrder(post_to(folder.path()).await);
    let delivery = delivery(completed("ann@example.com"), NOW);
    let file = folder.path().join(format!("{}.order.completed.eml", delivery.event.order_id));
    effect(&first, &handler, &delivery).await.unwrap();
    let written = std::fs::read(&file).unwrap();
    // A database that has forgotten stands for a crash before the commit.
    effect(&second, &handler, &delivery).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), written);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_an_outage_until_it_is_back() {
    let (_place, database) = database().await;
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("mail");
    let handler = ConfirmOrder(post_to(&folder).await);
    std::fs::remove_dir(&folder).unwrap();
    let delivery = delivery(completed("ann@example.com"), NOW);
    let error = effect(&database, &handler, &delivery).await.unwrap_err();
    assert!(matches!(error, HandlerError::Unavailable(_)), "{error:?}");
    std::fs::create_dir(&folder).unwrap();
    effect(&database, &handler, &delivery).await.unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}
