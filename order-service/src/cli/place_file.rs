//! `place --file`: many orders at once, and what became of them.

mod following;
mod summary;

use std::{
    cell::Cell,
    path::Path,
    time::{Duration, Instant},
};

use event_runtime::cli::{Format, Output, Paint};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shared_events::OrderId;
use tokio::{sync::Semaphore, time::sleep};
use uuid::Uuid;

use self::{following::Following, summary::Summary};
use super::{
    ServiceArgs,
    api::{Api, ApiError, Order, Placed},
    orders_file::{OrderLine, count_lines, lines},
};

/// How many orders are placed at the same time.
const PLACING: usize = 16;
/// How many orders are followed at the same time; reading the file waits above it.
const FOLLOWED: usize = 4096;
/// How long an order-service that went away may take to come back.
const AWAY_FOR: Duration = Duration::from_secs(30);

/// What became of one line of the file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    line: usize,
    order_id: Option<OrderId>,
    outcome: Ending,
    reason: Option<String>,
    /// From the request to its answer.
    answer_ms: Option<f64>,
    /// From created to ended, by order-service's clock.
    end_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Completed,
    Cancelled,
    /// Placed, and not waited for.
    Placed,
    /// Placed, and without an end in time.
    Unfinished,
    /// Not placed.
    Refused,
}

/// Places every order of `file`, waits up to `wait` for each one's end, and says what became of them.
pub async fn run(service: &ServiceArgs, file: &Path, wait: Option<Duration>, output: &Output) -> anyhow::Result<u8> {
    let lines = lines(file)?;
    let api = service.api(output)?;
    let placer = Placer {
        following: Following::new(api.clone()),
        api,
        wait,
        placing: Semaphore::new(PLACING),
        answered: Cell::new(false),
        output,
        progress: progress(file),
    };
    let lines = stream::unfold((lines, 0), |(mut lines, number)| async move {
        let line = lines.recv().await?;
        let numbered = line.map(|line| (number + 1, line)).map_err(anyhow::Error::from);
        Some((numbered, (lines, number + 1)))
    });
    let outcomes = lines
        .try_filter(|(_, line)| std::future::ready(!line.trim().is_empty()))
        .map_ok(|(number, line)| placer.line(number, line))
        .try_buffer_unordered(FOLLOWED);
    let summary = tokio::select! {
        summary = placer.collect(outcomes) => summary?,
        never = placer.following.run() => match never {},
    };
    Ok(summary.exit_code())
}

fn progress(file: &Path) -> ProgressBar {
    // Drawn on stderr, and only where that is a terminal.
    let bar = match count_lines(file) {
        Some(lines) => ProgressBar::new(lines),
        None => ProgressBar::new_spinner(),
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} orders, {elapsed}, {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

struct Placer<'a> {
    api: Api,
    following: Following,
    wait: Option<Duration>,
    placing: Semaphore,
    /// Whether order-service has answered at all: one that never did is not waited for.
    answered: Cell<bool>,
    output: &'a Output,
    progress: ProgressBar,
}

impl Placer<'_> {
    async fn line(&self, number: usize, text: String) -> anyhow::Result<Outcome> {
        let refused = |reason| Outcome { reason: Some(reason), ..Outcome::new(number, Ending::Refused) };
        let line = match OrderLine::parse(&text) {
            Ok(line) => line,
            Err(reason) => return Ok(refused(reason)),
        };
        let begun = self.placing.acquire().await?;
        let (placed, answer) = match self.place(&line).await {
            Ok(placed) => placed,
            Err(error @ ApiError::Unreachable { .. }) if !self.answered.get() => return Err(error.into()),
            Err(error) => return Ok(refused(error.to_string())),
        };
        drop(begun);
        let mut outcome = Outcome::new(number, Ending::Placed);
        outcome.order_id = Some(placed.order_id);
        outcome.answer_ms = Some(answer.as_secs_f64() * 1000.0);
        if let Some(wait) = self.wait {
            let until = tokio::time::Instant::now() + wait;
            match self.following.end_of(placed.order_id, until).await {
                Ok(order) => outcome.ended(&order),
                Err(trouble) => {
                    outcome.outcome = Ending::Unfinished;
                    outcome.reason = trouble;
                }
            }
        }
        Ok(outcome)
    }

    /// Places an order, again and again while order-service is away. Every line goes under a key, its own or one made
    /// for it: when an answer is lost, sending the order again must not double it.
    async fn place(&self, line: &OrderLine) -> Result<(Placed, Duration), ApiError> {
        let key = line.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let give_up = Instant::now() + AWAY_FOR;
        let mut pause = Duration::from_millis(100);
        loop {
            let asked = Instant::now();
            match self.api.place(&line.order(), Some(&key)).await {
                Ok((placed, _)) => {
                    self.answered.set(true);
                    return Ok((placed, asked.elapsed()));
                }
                Err(error) if error.is_transient() && self.answered.get() && Instant::now() < give_up => {
                    self.progress.set_message(format!("waiting: {error}"));
                }
                Err(error) => {
                    self.answered.set(self.answered.get() || !matches!(error, ApiError::Unreachable { .. }));
                    return Err(error);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn collect(&self, outcomes: impl Stream<Item = anyhow::Result<Outcome>>) -> anyhow::Result<Summary> {
        let mut outcomes = std::pin::pin!(outcomes);
        let mut summary = Summary::default();
        let mut kept = Vec::new();
        while let Some(outcome) = outcomes.next().await.transpose()? {
            self.progress.inc(1);
            summary.add(&outcome);
            self.progress.set_message(summary.in_short());
            self.tell(&outcome)?;
            if self.output.format() == Format::Json {
                kept.push(outcome);
            }
        }
        self.progress.finish_and_clear();
        match self.output.format() {
            Format::Table => summary.lines().iter().try_for_each(|line| self.output.line(line))?,
            Format::Jsonl => summary.lines().iter().for_each(|line| self.output.note(line)),
            Format::Json => self.output.value(&serde_json::json!({ "orders": kept, "summary": summary.figures() }))?,
        }
        Ok(summary)
    }

    fn tell(&self, outcome: &Outcome) -> std::io::Result<()> {
        let note = match outcome.outcome {
            Ending::Refused => {
                let reason = outcome.reason.as_deref().unwrap_or_default();
                Some((Paint::Bad, format!("line {} is refused: {reason}", outcome.line)))
            }
            Ending::Unfinished => {
                let id = outcome.order_id.map_or(String::new(), |id| id.to_string());
                Some((Paint::Open, format!("line {}, order {id}, has not ended: eventctl explain {id}", outcome.line)))
            }
            Ending::Completed | Ending::Cancelled | Ending::Placed => None,
        };
        // Lines and the bar share the terminal: it makes way for them.
        if let Some((paint, note)) = note {
            self.progress.suspend(|| self.output.note_painted(Some(paint), note));
        }
        match self.output.format() {
            Format::Jsonl => self.progress.suspend(|| self.output.value(outcome)),
            Format::Table | Format::Json => Ok(()),
        }
    }
}

impl Outcome {
    fn new(line: usize, outcome: Ending) -> Outcome {
        Outcome { line, order_id: None, outcome, reason: None, answer_ms: None, end_ms: None }
    }

    fn ended(&mut self, order: &Order) {
        self.outcome = if order.is_cancelled() { Ending::Cancelled } else { Ending::Completed };
        self.reason.clone_from(&order.reason);
        if let (Some(ended), Some(created)) = (order.ended_at, order.created_at) {
            self.end_ms = Some(ended.duration_since(created).as_secs_f64() * 1000.0);
        }
    }
}
