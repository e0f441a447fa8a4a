//! What is ordered, as flags: `--item SKU=N`, or pairs of `--sku S --quantity N`.

use super::api::NewItem;

/// Parses `SKU=N`; `SKU` alone is one of it.
pub fn parse_item(text: &str) -> Result<NewItem, String> {
    let (sku, quantity) = text.rsplit_once('=').unwrap_or((text, "1"));
    let sku = sku.trim();
    if sku.is_empty() {
        return Err("write it as SKU=N, such as COFFEE-1KG=2".to_owned());
    }
    let quantity = quantity
        .trim()
        .parse()
        .map_err(|_| format!("{quantity:?} is no quantity; write it as SKU=N, such as COFFEE-1KG=2"))?;
    Ok(NewItem { sku: sku.to_owned(), quantity })
}

/// Joins each `--sku` with its `--quantity`. Without any `--quantity`, one of each is meant.
pub fn pair(skus: &[String], quantities: &[u32]) -> Result<Vec<NewItem>, String> {
    let quantities = match quantities {
        [] => vec![1; skus.len()],
        some if some.len() == skus.len() => some.to_vec(),
        some => {
            return Err(format!(
                "there are {} --sku and {} --quantity: give each --sku its --quantity, or use --item SKU=N",
                skus.len(),
                some.len()
            ));
        }
    };
    Ok(skus.iter().zip(quantities).map(|(sku, quantity)| NewItem { sku: sku.clone(), quantity }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sku: &str, quantity: u32) -> NewItem {
        NewItem { sku: sku.to_owned(), quantity }
    }

    #[test]
    fn an_item_is_a_sku_and_a_quantity() {
        let table = [
            ("COFFEE-1KG=2", Ok(item("COFFEE-1KG", 2))),
            ("COFFEE-1KG", Ok(item("COFFEE-1KG", 1))),
            (" TEA = 3 ", Ok(item("TEA", 3))),
            // The service decides what quantities it takes, and says so.
            ("TEA=0", Ok(item("TEA", 0))),
            ("TEA=", Err("is no quantity")),
            ("TEA=-1", Err("is no quantity")),
            ("TEA=two", Err("is no quantity")),
            ("=2", Err("SKU=N")),
            ("", Err("SKU=N")),
        ];
        for (text, expected) in table {
            match (parse_item(text), expected) {
                (Ok(item), Ok(expected)) => assert_eq!(item, expected, "{text}"),
                (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
                (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn each_sku_takes_its_quantity() {
        let skus = ["A".to_owned(), "B".to_owned()];
        assert_eq!(pair(&skus, &[2, 3]), Ok(vec![item("A", 2), item("B", 3)]));
        assert_eq!(pair(&skus, &[]), Ok(vec![item("A", 1), item("B", 1)]));
        assert!(pair(&skus, &[2]).unwrap_err().contains("2 --sku and 1 --quantity"));
        assert!(pair(&[], &[2]).unwrap_err().contains("0 --sku and 1 --quantity"));
    }
}
