//! What may happen to an input.

use std::fmt::Write as _;

use rand::{RngExt as _, rngs::StdRng};

use super::{Input, pick};

/// Changes stop to make an input longer here.
const LONGEST: usize = 16 * 1024;

/// What has broken decoders before, whatever they decode.
const WORDS: [&str; 30] = [
    "",
    "0",
    "-0",
    "-1",
    "+1",
    "1e999",
    "NaN",
    "null",
    "true",
    "\"",
    "'",
    "\\",
    "{}",
    "[]",
    "%s",
    "=",
    ",",
    ":",
    "-",
    "@",
    " ",
    "\0",
    "\n",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{202e}",
    "\u{feff}",
    "é",
    "🦀",
];

/// Where numbers end, and one beyond.
const NUMBERS: [&str; 14] = [
    "0",
    "00000000000000000001",
    "127",
    "128",
    "255",
    "256",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
];

/// A record without its place: what a stranger can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Input for Vec<u8> {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut StdRng) {
        let (from, to) = range(self, random);
        match random.random_range(0..10) {
            0 if !self.is_empty() => {
                let at = random.random_range(0..self.len());
                self[at] ^= 1 << random.random_range(0..8);
            }
            1 => drop(self.splice(from..from, (0..random.random_range(1..9)).map(|_| random.random::<u8>()))),
            2 => drop(self.splice(from..from, word(words, random).bytes())),
            3 => drop(self.splice(from..to, word(words, random).bytes())),
            4 => drop(self.drain(from..to)),
            5 => {
                let times = if random.random_bool(0.1) { random.random_range(2..2000) } else { 1 };
                let again = self[from..to].repeat(times.min(LONGEST / (to - from).max(1)));
                self.splice(to..to, again);
            }
            6 => {
                let (begin, end) = range(other, random);
                self.splice(from..to, other[begin..end].iter().copied());
            }
            7 => self.truncate(from),
            _ => {
                // A number, if there is one behind that place.
                let digit = |at: usize| self[at].is_ascii_digit();
                let begin = (from..self.len()).find(|at| digit(*at)).unwrap_or(from);
                let end = (begin..self.len()).find(|at| !digit(*at)).unwrap_or(self.len());
                self.splice(begin..end, NUMBERS[random.random_range(0..NUMBERS.len())].bytes());
            }
        }
        self.truncate(LONGEST);
    }

    fn hex(&self) -> String {
        self.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        })
    }
}

impl Input for String {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut StdRng) {
        let mut bytes = std::mem::take(self).into_bytes();
        bytes.change(&other.clone().into_bytes(), words, random);
        *self = String::from_utf8_lossy(&bytes).into_owned();
    }

    fn hex(&self) -> String {
        self.as_bytes().to_vec().hex()
    }
}

impl Input for Fields {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut StdRng) {
        let all = self.headers.len();
        match random.random_range(0..12) {
            0 => change_bytes(&mut self.key, other.key.as_ref(), words, random),
            1 | 2 => change_bytes(&mut self.value, other.value.as_ref(), words, random),
            3 if all > 0 => drop(self.headers.remove(random.random_range(0..all))),
            4 if all > 0 => {
                let again = pick(&self.headers, random).clone();
                self.headers.insert(random.random_range(0..=all), again);
            }
            5 if all > 0 => {
                let (one, two) = (random.random_range(0..all), random.random_range(0..all));
                let value = self.headers[one].1.clone();
                self.headers[two].1 = value;
            }
            6 if !other.headers.is_empty() => self.headers.push(pick(&other.headers, random).clone()),
            7 => self.headers.push((word(words, random).to_owned(), Some(word(words, random).into()))),
            8 if all > 0 => {
                let at = random.random_range(0..all);
                self.headers[at].0.change(&word(words, random).to_owned(), words, random);
            }
            _ if all > 0 => {
                let at = random.random_range(0..all);
                let same = other.headers.iter().find(|(name, _)| *name == self.headers[at].0);
                let others = same.and_then(|(_, value)| value.clone());
                change_bytes(&mut self.headers[at].1, others.as_ref(), words, random);
            }
            _ => self.clone_from(other),
        }
    }

    fn hex(&self) -> String {
        let value = |value: &Option<Vec<u8>>| value.as_ref().map_or("none".to_owned(), Input::hex);
        let mut text = format!("key {}, value {}", value(&self.key), value(&self.value));
        for (name, header) in &self.headers {
            write!(text, ", header {} {}", name.hex(), value(header)).expect("writing to a string cannot fail");
        }
        text
    }
}

fn change_bytes(bytes: &mut Option<Vec<u8>>, other: Option<&Vec<u8>>, words: &[&str], random: &mut StdRng) {
    match bytes {
        Some(_) if random.random_bool(0.1) => *bytes = None,
        Some(some) => some.change(other.unwrap_or(&Vec::new()), words, random),
        None => *bytes = Some(word(words, random).into()),
    }
}

fn range(bytes: &[u8], random: &mut StdRng) -> (usize, usize) {
    let (one, two) = (random.random_range(0..=bytes.len()), random.random_range(0..=bytes.len()));
    (one.min(two), one.max(two))
}

fn word<'a>(words: &[&'a str], random: &mut StdRng) -> &'a str {
    let words = match random.random_range(0..4) {
        0 => &NUMBERS[..],
        1 => &WORDS[..],
        _ if words.is_empty() => &WORDS[..],
        _ => words,
    };
    words[random.random_range(0..words.len())]
}
