//! Test tokens, in the manner of Stripe's: the token says how the charge will end.

/// What a token makes of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Charged and answered.
    Charge,
    /// Charged, but the answer never comes.
    ChargeAndHang,
    /// Fails with 500 [`FLAKY_FAILURES`] times for each idempotency key, then charged.
    Flaky,
    /// Declined, with a code and words for the customer.
    Decline(&'static str, &'static str),
}

/// How often `tok_flaky` fails for one key.
pub const FLAKY_FAILURES: u32 = 2;

/// What `token` stands for.
pub fn behaviour(token: &str) -> Behaviour {
    match token {
        "tok_visa" => Behaviour::Charge,
        "tok_timeout" => Behaviour::ChargeAndHang,
        "tok_flaky" => Behaviour::Flaky,
        "tok_chargeDeclined" => Behaviour::Decline("card_declined", "the card was declined"),
        "tok_insufficient_funds" => Behaviour::Decline("insufficient_funds", "the card has insufficient funds"),
        _ => Behaviour::Decline("invalid_token", "the payment token is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_tokens_are_declined() {
        for token in ["", "visa", "tok_", "tok_Visa", "tok_nobody"] {
            assert!(matches!(behaviour(token), Behaviour::Decline("invalid_token", _)), "{token:?}");
        }
        assert_eq!(behaviour("tok_visa"), Behaviour::Charge);
    }
}
