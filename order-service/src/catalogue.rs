//! What is for sale, and at which price. The one source of prices: a client names skus and quantities only.
//!
//! inventory-service seeds stock for the same skus; an order for a sku that has none there is rejected for lack of
//! stock, so the two lists may change at different times.

use shared_events::Money;

/// Something that can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub sku: &'static str,
    pub name: &'static str,
    /// The price of one.
    pub price: Money,
}

pub const PRODUCTS: &[Product] = &[
    product("COFFEE-1KG", "Coffee beans, 1 kg", 1890),
    product("TEA-GREEN-250G", "Green tea, 250 g", 990),
    product("MUG-BLUE", "Blue mug", 1250),
    product("GRINDER-HAND", "Hand grinder", 5900),
    product("FILTER-PAPER-100", "Filter papers, 100", 450),
    product("KETTLE-GOOSENECK", "Gooseneck kettle", 7400),
    product("SCALE-POCKET", "Pocket scale", 3200),
    product("FRENCH-PRESS-1L", "French press, 1 l", 3900),
    product("ESPRESSO-CUP-SET", "Espresso cups, set of 4", 2800),
    product("MILK-FROTHER", "Milk frother", 2100),
    product("DESCALER-500ML", "Descaler, 500 ml", 790),
    product("GIFT-CARD-RARE", "Collector gift card", 15000),
];

/// The product called `sku`.
pub fn find(sku: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.sku == sku)
}

const fn product(sku: &'static str, name: &'static str, cents: i64) -> Product {
    Product { sku, name, price: Money::eur(cents) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sku_is_there_once_and_found_by_its_name() {
        for product in PRODUCTS {
            assert_eq!(find(product.sku), Some(product));
            assert_eq!(PRODUCTS.iter().filter(|other| other.sku == product.sku).count(), 1, "{}", product.sku);
            assert!(product.price.minor > 0);
        }
        assert_eq!(find("coffee-1kg"), None, "skus are compared letter by letter");
    }
}
