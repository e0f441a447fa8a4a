//! Money without rounding: integer minor units and an ISO 4217 currency.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An ISO 4217 currency code: three upper-case letters, such as `EUR`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro, in which the sample catalogue is priced.
    pub const EUR: Currency = Currency(*b"EUR");

    /// The three letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is built from ASCII letters only")
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            [a, b, c] if text.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(Currency([*a, *b, *c])),
            _ => Err(MoneyError::Currency(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount: `{"minor": 1250, "currency": "EUR"}` is 12.50 euros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Minor units (cents).
    pub minor: i64,
    /// The currency they are counted in.
    pub currency: Currency,
}

/// Why an amount could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The text is no currency code.
    #[error("{0:?} is no ISO 4217 currency code (three upper-case letters)")]
    Currency(String),
    /// Amounts in two currencies cannot be added.
    #[error("cannot add {right} to {left}")]
    Mixed {
        /// The currency of the sum so far.
        left: String,
        /// The currency of what was to be added.
        right: String,
    },
    /// The sum does not fit.
    #[error("the amount is too large")]
    Overflow,
}

impl Money {
    /// `minor` cents.
    pub const fn eur(minor: i64) -> Money {
        Money { minor, currency: Currency::EUR }
    }

    /// The sum of both.
    ///
    /// # Errors
    /// [`MoneyError::Mixed`] for two currencies, [`MoneyError::Overflow`] when it does not fit.
    pub fn plus(self, other: Money) -> Result<Money, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed {
                left: self.currency.code().to_owned(),
                right: other.currency.code().to_owned(),
            });
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, ..self })
    }

    /// This amount `quantity` times.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] when it does not fit.
    pub fn times(self, quantity: u32) -> Result<Money, MoneyError> {
        let minor = self.minor.checked_mul(i64::from(quantity)).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, ..self })
    }
}

impl fmt::Display for Money {
    /// Two decimals, as every currency of the catalogue has them: `12.50 EUR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        let minor = self.minor.unsigned_abs();
        write!(f, "{sign}{}.{:02} {}", minor / 100, minor % 100, self.currency.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_with_two_decimals_and_their_currency() {
        for (minor, shown) in
            [(1250, "12.50 EUR"), (5, "0.05 EUR"), (0, "0.00 EUR"), (-5, "-0.05 EUR"), (-1250, "-12.50 EUR")]
        {
            assert_eq!(Money::eur(minor).to_string(), shown);
        }
        assert_eq!(Money::eur(i64::MIN).to_string(), "-92233720368547758.08 EUR");
    }

    #[test]
    fn sums_are_exact_or_an_error() {
        assert_eq!(Money::eur(1890).times(2).and_then(|twice| twice.plus(Money::eur(1250))), Ok(Money::eur(5030)));
        assert_eq!(Money::eur(i64::MAX).plus(Money::eur(1)), Err(MoneyError::Overflow));
        assert_eq!(Money::eur(i64::MAX / 2).times(3), Err(MoneyError::Overflow));
        let francs = Money { minor: 1, currency: "CHF".parse().unwrap() };
        assert_eq!(Money::eur(1).plus(francs).unwrap_err().to_string(), "cannot add CHF to EUR");
    }
}
