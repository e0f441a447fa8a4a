use super::*;

fn valid() -> Value {
    json!({
        "customer": "ada@example.org",
        "items": [{ "sku": "COFFEE-1KG", "quantity": 2 }, { "sku": "MUG-BLUE", "quantity": 1 }],
        "paymentToken": "tok_visa",
    })
}

/// [`valid`] with `value` in the place of what `pointer` points to.
fn with(pointer: &str, value: Value) -> Value {
    let mut body = valid();
    *body.pointer_mut(pointer).expect("the pointer names a member of the valid order") = value;
    body
}

#[test]
fn an_order_is_priced_from_the_catalogue() {
    let mut body = valid();
    body["items"][0]["unitPrice"] = json!({ "minor": 1, "currency": "EUR" });
    body["total"] = json!(1);
    let wanted = order(&body).unwrap();
    assert_eq!(wanted.total, Money::eur(2 * 1890 + 1250));
    assert_eq!(wanted.items[0].unit_price, Money::eur(1890));
}

#[test]
fn each_fault_is_named_with_the_place_where_it_is() {
    let lines = |count: usize| Value::Array(vec![json!({ "sku": "MUG-BLUE", "quantity": 1 }); count]);
    let cases = [
        ("/items/0/sku", json!("TEAPOT"), "/items/0/sku", "no product \"TEAPOT\""),
        ("/items/0/sku", json!("TEAPOT"), "/items/0/sku", "COFFEE-1KG"),
        ("/items/1/sku", json!("coffee-1kg"), "/items/1/sku", "did you mean COFFEE-1KG?"),
        ("/items/0/sku", json!(7), "/items/0/sku", "must be a text"),
        ("/items/0/quantity", json!(0), "/items/0/quantity", "1 to 100"),
        ("/items/0/quantity", json!(101), "/items/0/quantity", "1 to 100"),
        ("/items/0/quantity", json!(-1), "/items/0/quantity", "1 to 100"),
        ("/items/0/quantity", json!(1.5), "/items/0/quantity", "whole number"),
        ("/items/0/quantity", json!("2"), "/items/0/quantity", "whole number"),
        ("/items/0/quantity", json!(u64::MAX), "/items/0/quantity", "1 to 100"),
        ("/items/0", json!("COFFEE-1KG"), "/items/0", "must be an object"),
        ("/items", json!([]), "/items", "must not be empty"),
        ("/items", json!({}), "/items", "must be an array"),
        ("/items", Value::Null, "/items", "must be an array"),
        ("/items", lines(51), "/items", "up to 50"),
        ("/customer", json!("ada"), "/customer", "no e-mail address"),
        ("/customer", Value::Null, "/customer", "must be an e-mail address"),
        ("/paymentToken", json!(""), "/paymentToken", "tok_visa"),
        ("/paymentToken", json!("tok visa"), "/paymentToken", "tok_visa"),
        ("/paymentToken", Value::Null, "/paymentToken", "tok_visa"),
    ];
    for (pointer, value, place, words) in cases {
        let faults = order(&with(pointer, value.clone())).expect_err(&format!("{pointer} = {value}"));
        assert_eq!(faults.len(), 1, "{pointer} = {value}: {faults:?}");
        assert_eq!(faults[0].pointer, place, "{pointer} = {value}");
        assert!(faults[0].detail.contains(words), "{pointer} = {value}: {}", faults[0].detail);
    }
}

#[test]
fn every_fault_is_named_at_once() {
    let body = json!({
        "customer": "nobody",
        "items": [{ "sku": "TEAPOT", "quantity": 0 }, { "quantity": 1 }, 7],
    });
    let faults = order(&body).unwrap_err();
    let places: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(places, ["/customer", "/paymentToken", "/items/0/sku", "/items/0/quantity", "/items/1/sku", "/items/2"]);
    let problem = problem(faults);
    for words in ["customer: \"nobody\"", "items.0.quantity: must be", "paymentToken: must be"] {
        assert!(problem.detail().contains(words), "{}", problem.detail());
    }
}

#[test]
fn a_body_that_is_no_object_is_one_fault() {
    for body in [json!([]), json!("order"), json!(null), json!(1)] {
        assert_eq!(order(&body).unwrap_err().len(), 1, "{body}");
    }
}

#[test]
fn lines_of_one_product_become_one_and_the_limit_holds_for_their_sum() {
    let line = |quantity| json!({ "sku": "COFFEE-1KG", "quantity": quantity });
    let wanted = order(&with("/items", json!([line(40), line(60)]))).unwrap();
    assert_eq!(wanted.items.len(), 1);
    assert_eq!(wanted.items[0].quantity, 100);
    let faults = order(&with("/items", json!([line(40), line(61)]))).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].detail.contains("101 of COFFEE-1KG"), "{}", faults[0].detail);
}

#[test]
fn members_it_does_not_know_are_ignored() {
    let mut body = valid();
    body["giftWrap"] = json!(true);
    body["items"][0]["engraving"] = json!("A. L.");
    assert_eq!(order(&body), order(&valid()));
}

#[test]
fn fingerprints_tell_orders_apart_by_what_they_ask_for() {
    let print = |body: &Value| order(body).unwrap().fingerprint();
    let first = print(&valid());
    let line = |sku, quantity| json!({ "sku": sku, "quantity": quantity });
    let split = json!([line("COFFEE-1KG", 1), line("MUG-BLUE", 1), line("COFFEE-1KG", 1)]);
    assert_eq!(print(&with("/items", split)), first, "the same order in other lines");
    for other in [
        with("/items/0/quantity", json!(3)),
        with("/items/0/sku", json!("TEA-GREEN-250G")),
        with("/customer", json!("bob@example.org")),
        with("/paymentToken", json!("tok_chargeDeclined")),
    ] {
        assert_ne!(print(&other), first, "{other}");
    }
    assert!(!first.contains("tok_visa"));
}

#[test]
fn addresses_that_mail_servers_take_are_taken_and_no_others() {
    for address in ["ada@example.org", "a.b+c@mail.example.co.uk", "o'neil@x-y.example", "1@2.de"] {
        assert!(is_email(address), "{address}");
    }
    let long_local = format!("{}@example.org", "a".repeat(65));
    let long_label = format!("a@{}.org", "a".repeat(64));
    let long = format!("a@{}.org", "abc.".repeat(70));
    let malformed = [
        "",
        "@",
        "a",
        "a@",
        "@b.org",
        "a@b",
        "a@@b.org",
        "a b@c.org",
        ".a@b.org",
        "a.@b.org",
        "a..b@c.org",
        "a@.org",
        "a@b.",
        "a@b..org",
        "a@-b.org",
        "a@b-.org",
        "a@b.org\n",
        "a\r\nBcc: x@y.org",
        "\"a\"@b.org",
        "ä@b.org",
        "a@b.org,c@d.org",
        "<a@b.org>",
        &long_local,
        &long_label,
        &long,
    ];
    for address in malformed {
        assert!(!is_email(address), "{address:?}");
    }
}
