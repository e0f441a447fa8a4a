//! `order-service place --file` against services that run.

use serde_json::{Value, json};

use crate::{SOON, assert_stock_is_conserved, stack};

fn line(customer: &str, sku: &str, token: &str) -> String {
    let items = [json!({ "sku": sku, "quantity": 1 })];
    json!({ "customer": format!("{customer}@example.com"), "items": items, "paymentToken": token }).to_string()
}

/// How often each ending stands in the rows, and the ids of the orders that were placed.
fn endings(rows: &[Value]) -> (Vec<(u64, String)>, Vec<String>) {
    let mut endings: Vec<_> =
        rows.iter().map(|row| (row["line"].as_u64().unwrap(), row["outcome"].as_str().unwrap().to_owned())).collect();
    endings.sort();
    let ids = rows.iter().filter_map(|row| row["orderId"].as_str().map(str::to_owned)).collect();
    (endings, ids)
}

#[tokio::test]
async fn a_file_of_orders_ends_as_its_lines_should() {
    let stack = stack().start().await.unwrap();
    let good = [
        line("paid", "COFFEE-1KG", "tok_visa"),
        line("flaky", "COFFEE-1KG", "tok_flaky"),
        line("declined", "COFFEE-1KG", "tok_chargeDeclined"),
        line("short", "GIFT-CARD-RARE", "tok_visa"),
    ];
    let ran = stack.order_service(&["place", "--file", "-"], &good.join("\n")).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{stdout}{stderr}");
    let figures: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    for figure in ["placed 4", "completed 2", "cancelled 2", "refused 0", "unfinished 0"] {
        assert!(figures.iter().any(|words| words.join(" ") == figure), "no {figure} in\n{stdout}");
    }

    let mixed = [line("again", "COFFEE-1KG", "tok_visa"), line("nobody", "NO-SUCH-SKU", "tok_visa"), good[2].clone()];
    let ran = stack.order_service(&["place", "--file", "-", "-o", "jsonl"], &mixed.join("\n")).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("line 2 is refused") && stderr.contains("NO-SUCH-SKU"), "{stderr}");
    let rows: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (endings, ids) = endings(&rows);
    let expected = [(1, "completed"), (2, "refused"), (3, "cancelled")].map(|(line, ending)| (line, ending.to_owned()));
    assert_eq!((endings, ids.len()), (expected.to_vec(), 2), "{stdout}");

    for id in ids {
        stack.at_rest(&id, SOON).await;
    }
    stack.wait_until_handled(SOON).await;
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, 3).await;
    let mails: Vec<_> = stack.smtp().mails();
    assert_eq!(mails.len(), 6, "one mail an order, none for the line that was refused");
    assert_eq!(stack.verify().await.unwrap().violations, []);
}
