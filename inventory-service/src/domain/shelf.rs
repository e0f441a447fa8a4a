//! The products that some orders need, and what moves between their places. A piece is available, reserved or sold; it is
//! never made or lost here.

use std::collections::BTreeMap;

use shared_events::StockItem;

use super::Rejection;

/// Some products, as they stand while nobody else can change them.
#[derive(Debug, Default)]
pub struct Shelf(BTreeMap<String, Place>);

#[derive(Debug)]
struct Place {
    available: i64,
    reserved: i64,
    moves: Moves,
}

/// How many pieces of a product move to each of its places; together they are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

impl Shelf {
    /// Puts a product on the shelf.
    pub fn put(&mut self, sku: String, available: i64, reserved: i64) {
        self.0.insert(sku, Place { available, reserved, moves: Moves::default() });
    }

    /// Sets all of `items` aside, or nothing and says why. Each sku is named once.
    ///
    /// # Errors
    /// When there is too little of one of them.
    pub fn reserve(&mut self, items: &[StockItem]) -> Result<(), Rejection> {
        for item in items {
            let sku = item.sku.clone();
            match self.0.get(&sku).map(Place::available) {
                Some(left) if left >= i64::from(item.quantity) => {}
                Some(left) => return Err(Rejection::OutOfStock { sku, left }),
                None => return Err(Rejection::UnknownSku(sku)),
            }
        }
        for item in items {
            self.shift(item, |moves, pieces| {
                moves.available -= pieces;
                moves.reserved += pieces;
            });
        }
        Ok(())
    }

    /// Makes reserved `items` available again.
    ///
    /// # Errors
    /// The sku of which less is reserved.
    pub fn release(&mut self, items: &[StockItem]) -> Result<(), String> {
        self.leave(items, |moves, pieces| moves.available += pieces)
    }

    /// Makes reserved `items` sold.
    ///
    /// # Errors
    /// The sku of which less is reserved.
    pub fn commit(&mut self, items: &[StockItem]) -> Result<(), String> {
        self.leave(items, |moves, pieces| moves.sold += pieces)
    }

    /// What has moved, by sku.
    pub fn moves(&self) -> Vec<(&str, Moves)> {
        let moved = self.0.iter().filter(|(_, place)| place.moves != Moves::default());
        moved.map(|(sku, place)| (sku.as_str(), place.moves)).collect()
    }

    fn leave(&mut self, items: &[StockItem], arrive: impl Fn(&mut Moves, i64)) -> Result<(), String> {
        for item in items {
            let reserved = self.0.get(&item.sku).map_or(0, Place::reserved);
            if reserved < i64::from(item.quantity) {
                return Err(item.sku.clone());
            }
            self.shift(item, |moves, pieces| {
                moves.reserved -= pieces;
                arrive(moves, pieces);
            });
        }
        Ok(())
    }

    fn shift(&mut self, item: &StockItem, shift: impl Fn(&mut Moves, i64)) {
        if let Some(place) = self.0.get_mut(&item.sku) {
            shift(&mut place.moves, i64::from(item.quantity));
        }
    }
}

impl Place {
    fn available(&self) -> i64 {
        self.available + self.moves.available
    }

    fn reserved(&self) -> i64 {
        self.reserved + self.moves.reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> Shelf {
        let mut shelf = Shelf::default();
        shelf.put("MUG".to_owned(), 5, 2);
        shelf.put("TEA".to_owned(), 10, 0);
        shelf
    }

    fn items(of: &[(&str, u32)]) -> Vec<StockItem> {
        of.iter().map(|(sku, quantity)| StockItem { sku: (*sku).to_owned(), quantity: *quantity }).collect()
    }

    fn moves(available: i64, reserved: i64, sold: i64) -> Moves {
        Moves { available, reserved, sold }
    }

    #[test]
    fn what_one_order_takes_the_next_does_not_find() {
        let mut shelf = shelf();
        shelf.reserve(&items(&[("MUG", 3)])).unwrap();
        let left = Rejection::OutOfStock { sku: "MUG".to_owned(), left: 2 };
        assert_eq!(shelf.reserve(&items(&[("MUG", 3)])), Err(left));
        shelf.reserve(&items(&[("MUG", 2)])).unwrap();
        assert_eq!(shelf.moves(), [("MUG", moves(-5, 5, 0))]);
    }

    #[test]
    fn an_order_is_served_whole_or_not_at_all() {
        let mut shelf = shelf();
        let left = Rejection::OutOfStock { sku: "TEA".to_owned(), left: 10 };
        assert_eq!(shelf.reserve(&items(&[("MUG", 1), ("TEA", 11)])), Err(left));
        assert_eq!(shelf.reserve(&items(&[("MUG", 1), ("TIN", 1)])), Err(Rejection::UnknownSku("TIN".to_owned())));
        assert_eq!(shelf.moves(), []);
    }

    #[test]
    fn what_one_order_gives_back_another_may_have() {
        let mut shelf = shelf();
        shelf.release(&items(&[("MUG", 2)])).unwrap();
        shelf.reserve(&items(&[("MUG", 7)])).unwrap();
        shelf.commit(&items(&[("MUG", 7)])).unwrap();
        assert_eq!(shelf.moves(), [("MUG", moves(-5, -2, 7))]);
    }

    #[test]
    fn nothing_leaves_that_was_not_reserved() {
        let mut shelf = shelf();
        assert_eq!(shelf.commit(&items(&[("MUG", 3)])), Err("MUG".to_owned()));
        assert_eq!(shelf.release(&items(&[("TEA", 1)])), Err("TEA".to_owned()));
        assert_eq!(shelf.release(&items(&[("TIN", 1)])), Err("TIN".to_owned()));
        assert_eq!(shelf.moves(), []);
    }
}
