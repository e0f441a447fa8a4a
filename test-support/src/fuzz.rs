//! Fuzzing on the stable compiler: inputs are made from valid and hostile examples by changes that know a little of what
//! they change, and a check looks at each of them.
//!
//! Without coverage there is nothing to remember from one input to the next, so an input follows from its number alone:
//! every run makes the same ones, `FUZZ_ITERATIONS=n` makes so many, and a failure says which `FUZZ_SEED=n` makes its
//! input again.

mod change;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub use change::Fields;

/// How many inputs a test makes when `FUZZ_ITERATIONS` does not say: about a second in a debug build.
const INPUTS: u64 = 5_000;

/// For so long a check may take. The slowest take milliseconds: what takes longer than this would hold up a consumer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many characters an error may have: as many as a dead letter keeps of it.
const LONGEST_ERROR: usize = 4096;

/// Something that can be changed at random.
pub trait Input: Clone {
    /// Changes one thing, with the help of another input and of words that mean something to whoever reads it.
    fn change(&mut self, other: &Self, words: &[&str], random: &mut StdRng);

    /// Every byte, for a failure to name.
    fn hex(&self) -> String;
}

/// Shows `check` each input of `corpus` as it is, and then changed ones. It answers whether the input was accepted, and
/// panics when something is wrong. `words` are what the grammar of the input is made of.
///
/// # Panics
/// When `check` does, or takes very long, after saying for which input; and when hardly any input was accepted, or none
/// was refused, so that the test shows less than it claims.
pub fn fuzz<I: Input>(corpus: &[I], words: &[&str], check: impl Fn(&I) -> bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FUZZ_ITERATIONS").unwrap_or(INPUTS),
    };
    run(corpus, words, seeds, check);
}

#[expect(clippy::print_stdout, reason = "the test harness shows it where somebody asks with --nocapture")]
fn run<I: Input>(corpus: &[I], words: &[&str], seeds: Range<u64>, check: impl Fn(&I) -> bool) {
    let name = std::thread::current().name().unwrap_or("fuzz").to_owned();
    let inputs = seeds.end - seeds.start;
    let mut accepted = 0;
    for seed in seeds {
        let input = make(corpus, words, seed);
        let timed = || {
            let began = Instant::now();
            let accepted = check(&input);
            assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
            accepted
        };
        match catch_unwind(AssertUnwindSafe(timed)) {
            Ok(well) => accepted += u64::from(well),
            Err(panic) => {
                eprintln!("{name} failed with FUZZ_SEED={seed}, input in hex: {}", input.hex());
                resume_unwind(panic);
            }
        }
    }
    println!("{name}: {inputs} inputs, {accepted} accepted");
    if inputs >= INPUTS {
        assert!(
            accepted * 100 > inputs && accepted < inputs,
            "{accepted} of {inputs} accepted: the changes are no good"
        );
    }
}

/// Holds the text of an error to what may stand in a log line or a terminal: bounded, and nothing that moves the cursor.
///
/// # Panics
/// When it does not hold.
pub fn assert_presentable(error: impl std::fmt::Display) {
    let text = error.to_string();
    let length = text.chars().count();
    assert!(length <= LONGEST_ERROR, "an error of {length} characters: {text:.200}…");
    assert!(!text.contains(char::is_control), "an error with control characters: {text:?}");
    assert!(!text.is_empty(), "an error that says nothing");
}

/// The first inputs are those of the corpus.
fn make<I: Input>(corpus: &[I], words: &[&str], seed: u64) -> I {
    if let Some(input) = usize::try_from(seed).ok().and_then(|index| corpus.get(index)) {
        return input.clone();
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut input = pick(corpus, &mut random).clone();
    // Mostly little: what is changed much is refused at the first look.
    for _ in 0..1_u32 << random.random_range(0..4) {
        let other = pick(corpus, &mut random);
        input.change(other, words, &mut random);
    }
    input
}

fn pick<'a, T>(list: &'a [T], random: &mut StdRng) -> &'a T {
    &list[random.random_range(0..list.len())]
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    const CORPUS: [&str; 3] = ["start", "@-10m", "42"];

    fn inputs(seeds: Range<u64>) -> Vec<String> {
        let corpus = CORPUS.map(str::to_owned);
        seeds.map(|seed| make(&corpus, &["end"], seed)).collect()
    }

    #[test]
    fn fuzzing_begins_with_the_corpus_and_makes_the_same_inputs_each_time() {
        let made = inputs(0..500);
        assert_eq!(made[..3], CORPUS);
        assert_eq!(made, inputs(0..500));
        assert_eq!(made[499], inputs(499..500)[0], "an input needs none before it");
        let mut different = made.clone();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() > 350, "{}", different.len());
        assert!(made.iter().any(|text| text.contains("end")), "no word was ever used");
    }

    #[test]
    fn fuzzing_hands_a_panic_on_and_stops_at_it() {
        let last = RefCell::new(String::new());
        let seen = Cell::new(0);
        let failing = catch_unwind(AssertUnwindSafe(|| {
            run(&CORPUS.map(str::to_owned), &[], 0..3, |text| {
                seen.set(seen.get() + 1);
                last.replace(text.clone());
                assert!(!text.starts_with('@'), "as a decoder may");
                true
            });
        }));
        assert!(failing.is_err());
        assert_eq!((seen.get(), last.into_inner().as_str()), (2, "@-10m"));
    }

    #[test]
    fn fuzzing_holds_errors_to_what_a_line_can_show() {
        assert_presentable("header ce_id is \"\\u{1b}\", which is no UUID");
        for wrong in ["", "red \u{1b}[31m", "two\nlines", &"x".repeat(LONGEST_ERROR + 1)] {
            assert!(catch_unwind(|| assert_presentable(wrong)).is_err(), "{wrong:.20?}");
        }
    }
}
