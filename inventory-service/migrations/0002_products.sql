-- The same skus as order-service's catalogue. A new product is a new migration; stock changes by PUT /stock/{sku}.
INSERT INTO stock (sku, name, price_minor, currency, seeded, adjustments, available, reserved, sold) VALUES
    ('COFFEE-1KG', 'Coffee beans, 1 kg', 1890, 'EUR', 10000, 0, 10000, 0, 0),
    ('TEA-GREEN-250G', 'Green tea, 250 g', 990, 'EUR', 10000, 0, 10000, 0, 0),
    ('MUG-BLUE', 'Blue mug', 1250, 'EUR', 100, 0, 100, 0, 0),
    ('GRINDER-HAND', 'Hand grinder', 5900, 'EUR', 10000, 0, 10000, 0, 0),
    ('FILTER-PAPER-100', 'Filter papers, 100', 450, 'EUR', 10000, 0, 10000, 0, 0),
    ('KETTLE-GOOSENECK', 'Gooseneck kettle', 7400, 'EUR', 10000, 0, 10000, 0, 0),
    ('SCALE-POCKET', 'Pocket scale', 3200, 'EUR', 10000, 0, 10000, 0, 0),
    ('FRENCH-PRESS-1L', 'French press, 1 l', 3900, 'EUR', 10000, 0, 10000, 0, 0),
    ('ESPRESSO-CUP-SET', 'Espresso cups, set of 4', 2800, 'EUR', 10000, 0, 10000, 0, 0),
    ('MILK-FROTHER', 'Milk frother', 2100, 'EUR', 10000, 0, 10000, 0, 0),
    ('DESCALER-500ML', 'Descaler, 500 ml', 790, 'EUR', 10000, 0, 10000, 0, 0),
    ('GIFT-CARD-RARE', 'Collector gift card', 15000, 'EUR', 0, 0, 0, 0, 0)
ON CONFLICT (sku) DO NOTHING;
