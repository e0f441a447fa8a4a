//! What an order must look like. All that is wrong with one is said at once, each problem with a JSON pointer to it.

use event_runtime::http::Problem;
use serde_json::{Value, json};
use shared_events::{Money, OrderItem};
use uuid::Uuid;

use crate::{catalogue, domain};

pub const MAX_LINES: usize = 50;
/// Of one product in one order, on however many lines.
pub const MAX_QUANTITY: u32 = 100;

/// An order that can be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub customer: String,
    /// One line a product, at the catalogue's price.
    pub items: Vec<OrderItem>,
    pub total: Money,
    pub payment_token: String,
}

/// Something wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: a JSON pointer, RFC 6901.
    pub pointer: String,
    pub detail: String,
}

impl Wanted {
    /// Equal for orders of the same things by the same customer and token, whatever they cost. A hash, because the token
    /// is nothing to keep.
    pub fn fingerprint(&self) -> String {
        let items: Vec<_> = self.items.iter().map(|item| (&item.sku, item.quantity)).collect();
        let text = json!([self.customer, items, self.payment_token]).to_string();
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).to_string()
    }
}

/// The order that `body` asks for. Members it does not know are ignored, so that newer clients can talk to older
/// services.
///
/// # Errors
/// Everything that is wrong with it, never empty.
pub fn order(body: &Value) -> Result<Wanted, Vec<Fault>> {
    if !body.is_object() {
        return Err(vec![fault("", "must be an object with customer, items and paymentToken")]);
    }
    let mut faults = Vec::new();
    let customer = keep(customer(&body["customer"]), &mut faults);
    let payment_token = keep(payment_token(&body["paymentToken"]), &mut faults);
    let items = items(&body["items"], &mut faults);
    let total = domain::total(&items).map_err(|error| fault("/items", error.to_string()));
    let total = keep(total, &mut faults);
    match (customer, payment_token, total) {
        (Some(customer), Some(payment_token), Some(total)) if faults.is_empty() => {
            Ok(Wanted { customer, items, total, payment_token })
        }
        _ => Err(faults),
    }
}

/// One problem that names every fault.
pub fn problem(faults: Vec<Fault>) -> Problem {
    let named: Vec<String> = faults
        .iter()
        .map(|Fault { pointer, detail }| match pointer.trim_start_matches('/') {
            "" => format!("the body {detail}"),
            place => format!("{}: {detail}", place.replace('/', ".")),
        })
        .collect();
    let errors: Vec<Value> =
        faults.iter().map(|fault| json!({ "pointer": fault.pointer, "detail": fault.detail })).collect();
    Problem::unprocessable(format!("the order was not accepted: {}", named.join("; "))).with("errors", errors)
}

fn items(lines: &Value, faults: &mut Vec<Fault>) -> Vec<OrderItem> {
    let lines = match lines.as_array() {
        Some(lines) if (1..=MAX_LINES).contains(&lines.len()) => lines,
        Some(lines) if lines.is_empty() => {
            faults.push(fault("/items", "must not be empty: name what to order"));
            return Vec::new();
        }
        Some(lines) => {
            faults.push(fault("/items", format!("has {} lines; an order takes up to {MAX_LINES}", lines.len())));
            return Vec::new();
        }
        None => {
            faults.push(fault("/items", r#"must be an array such as [{"sku":"COFFEE-1KG","quantity":1}]"#));
            return Vec::new();
        }
    };
    let mut items: Vec<OrderItem> = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        if !line.is_object() {
            faults.push(fault(
                &format!("/items/{index}"),
                r#"must be an object such as {"sku":"COFFEE-1KG","quantity":1}"#,
            ));
            continue;
        }
        let product = keep(product(&format!("/items/{index}/sku"), &line["sku"]), faults);
        let quantity = keep(quantity(&format!("/items/{index}/quantity"), &line["quantity"]), faults);
        if let (Some(product), Some(quantity)) = (product, quantity) {
            add(&mut items, product, quantity);
        }
    }
    for item in items.iter().filter(|item| item.quantity > MAX_QUANTITY) {
        let detail = format!("{} of {} in all; an order takes up to {MAX_QUANTITY}", item.quantity, item.sku);
        faults.push(fault("/items", detail));
    }
    items
}

/// Lines for one product become one line.
fn add(items: &mut Vec<OrderItem>, product: &catalogue::Product, quantity: u32) {
    match items.iter_mut().find(|item| item.sku == product.sku) {
        Some(item) => item.quantity += quantity,
        None => items.push(OrderItem { sku: product.sku.to_owned(), quantity, unit_price: product.price }),
    }
}

fn product(pointer: &str, sku: &Value) -> Result<&'static catalogue::Product, Fault> {
    let Some(sku) = sku.as_str() else { return Err(fault(pointer, "must be a text such as \"COFFEE-1KG\"")) };
    catalogue::find(sku).ok_or_else(|| {
        let similar = catalogue::PRODUCTS.iter().find(|product| product.sku.eq_ignore_ascii_case(sku.trim()));
        let hint = match similar {
            Some(product) => format!("did you mean {}?", product.sku),
            None => {
                let some: Vec<&str> = catalogue::PRODUCTS.iter().take(4).map(|product| product.sku).collect();
                format!("there are {} and others: GET /products lists them", some.join(", "))
            }
        };
        fault(pointer, format!("there is no product {:?}; {hint}", shortened(sku)))
    })
}

fn quantity(pointer: &str, quantity: &Value) -> Result<u32, Fault> {
    let number = quantity.as_u64().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| (1..=MAX_QUANTITY).contains(number))
        .ok_or_else(|| fault(pointer, format!("must be a whole number from 1 to {MAX_QUANTITY}")))
}

fn customer(customer: &Value) -> Result<String, Fault> {
    match customer.as_str().map(str::trim) {
        Some(address) if is_email(address) => Ok(address.to_owned()),
        Some(address) => {
            let detail = format!("{:?} is no e-mail address; it looks like ada@example.org", shortened(address));
            Err(fault("/customer", detail))
        }
        None => Err(fault("/customer", "must be an e-mail address such as \"ada@example.org\"")),
    }
}

fn payment_token(token: &Value) -> Result<String, Fault> {
    let usable = |text: &&str| (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    token
        .as_str()
        .filter(usable)
        .map(str::to_owned)
        .ok_or_else(|| fault("/paymentToken", "must be the payment provider's token, such as \"tok_visa\""))
}

/// What mail servers take: dot-atom@domain of RFC 5321 and 5322, in ASCII, with a dot in the domain. Narrower than the
/// standard, so that no order is accepted whose mails cannot be sent.
fn is_email(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let local_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    let local_is_fine =
        local.len() <= 64 && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(local_byte));
    let label_is_fine = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let domain_is_fine = domain.contains('.') && domain.split('.').all(label_is_fine);
    address.len() <= 254 && local_is_fine && domain_is_fine
}

fn keep<T>(result: Result<T, Fault>, faults: &mut Vec<Fault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn fault(pointer: &str, detail: impl Into<String>) -> Fault {
    Fault { pointer: pointer.to_owned(), detail: detail.into() }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
