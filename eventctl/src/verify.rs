//! `verify`: whether the system kept its promises, from what its parts say about themselves.
//!
//! No service's database is opened: each service exports its rows (`SERVICE audit`). Charges are counted in the gateway's
//! own ledger and mails at the mail server. Nothing is changed anywhere. Best run when the system is at rest: what is
//! under way is counted and not judged.

pub mod check;
pub mod exports;
pub mod facts;
pub mod gather;

use std::{
    fs::File,
    io::{BufReader, stdin},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use event_runtime::{
    cli::{BrokerArgs, Format, Output, Paint, announce, exit},
    config::{
        discovery::{Discovery, MAILPIT, PAYMENT_GATEWAY},
        duration,
    },
};
use serde::Serialize;

use self::{
    check::{Counts, Limits, Report, Violation, check},
    exports::Exports,
    facts::{Facts, Mail},
};

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// An export of `SERVICE audit`, repeatable; - for stdin
    #[arg(long, value_name = "FILE", required_unless_present = "audit_dir")]
    audit: Vec<PathBuf>,

    /// A folder of exports: every *.jsonl in it
    #[arg(long, value_name = "DIR")]
    audit_dir: Option<PathBuf>,

    /// The payment gateway, whose ledger counts
    #[arg(long, value_name = "URL")]
    gateway_url: Option<String>,

    /// Mailpit, where mails are counted
    #[arg(long, value_name = "URL", conflicts_with = "mail_dir")]
    mailpit_url: Option<String>,

    /// A folder of mails (email-service's MAIL_DIR) instead of Mailpit
    #[arg(long, value_name = "DIR")]
    mail_dir: Option<PathBuf>,

    /// What happened so shortly before the exports may still be on its way, and is not judged
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    grace: Duration,

    /// By how much the clocks of two instances may differ
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    clock_skew: Duration,

    /// Count copies of mails beyond the first of each as a violation when there are more than this
    #[arg(long, value_name = "N")]
    max_extra_mails: Option<u64>,

    /// How to write it; jsonl has a line for each violation and ends with the counts
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    brokers: BrokerArgs,
}

pub async fn run(args: VerifyArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let discovery = Discovery::from_process();
    let mut facts = exported(&args)?;
    facts.mails = mails(&args, &output, &discovery).await?;
    let gateway = announce(&output, &discovery, "payment gateway", args.gateway_url.as_deref(), PAYMENT_GATEWAY);
    facts.charges = gather::charges(&gateway.value).await?;
    let kafka = args.brokers.find(&output, &discovery);
    let facts = tokio::task::spawn_blocking(move || gather::topics(&kafka, &mut facts).map(|()| facts)).await??;
    let limits = Limits { grace: args.grace, clock_skew: args.clock_skew, max_extra_mails: args.max_extra_mails };
    let report = check(&facts, &limits);
    write(&output, &report)?;
    Ok(if report.violations.is_empty() { exit::OK } else { exit::FAILURE })
}

fn exported(args: &VerifyArgs) -> anyhow::Result<Facts> {
    let mut exports = Exports::default();
    let mut files = args.audit.clone();
    if let Some(folder) = &args.audit_dir {
        let unreadable = || format!("the exports in {} cannot be read", folder.display());
        for entry in std::fs::read_dir(folder).with_context(unreadable)? {
            let file = entry.with_context(unreadable)?.path();
            if file.extension().is_some_and(|extension| extension == "jsonl") {
                files.push(file);
            }
        }
    }
    for file in &files {
        if file == Path::new("-") {
            exports.read("stdin", stdin().lock())?;
            continue;
        }
        let opened = File::open(file).with_context(|| format!("the export {} cannot be read", file.display()))?;
        exports.read(&file.display().to_string(), BufReader::new(opened))?;
    }
    exports.complete()
}

async fn mails(args: &VerifyArgs, output: &Output, discovery: &Discovery) -> anyhow::Result<Vec<Mail>> {
    let folder = args.mail_dir.clone().or_else(|| discovery.local_stack("MAIL_DIR").map(PathBuf::from));
    match folder.filter(|_| args.mailpit_url.is_none()) {
        Some(folder) => {
            output.note_painted(Some(Paint::Dim), format_args!("mails in {}", folder.display()));
            gather::folder(&folder)
        }
        None => {
            let mailpit = announce(output, discovery, "Mailpit", args.mailpit_url.as_deref(), MAILPIT);
            gather::mailpit(&mailpit.value).await
        }
    }
}

fn write(output: &Output, report: &Report) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        kind: &'static str,
        #[serde(flatten)]
        violation: &'a Violation,
    }
    #[derive(Serialize)]
    struct Summary<'a> {
        kind: &'static str,
        violations: usize,
        #[serde(flatten)]
        counts: &'a Counts,
    }
    let Report { counts, violations } = report;
    match output.format() {
        Format::Table => table(output, report)?,
        Format::Json => output.value(report)?,
        Format::Jsonl => {
            let lines: Vec<_> = violations.iter().map(|violation| Line { kind: "violation", violation }).collect();
            output.rows(&lines)?;
            output.value(&Summary { kind: "summary", violations: violations.len(), counts })?;
        }
    }
    Ok(())
}

fn table(output: &Output, Report { counts, violations }: &Report) -> anyhow::Result<()> {
    if !violations.is_empty() {
        let rows: Vec<_> = violations
            .iter()
            .map(|violation| {
                let order = violation.order.map_or("-".to_owned(), |order| order.to_string());
                let subject = violation.subject.clone().unwrap_or_else(|| "-".to_owned());
                let cells = vec![
                    violation.rule.to_owned(),
                    order,
                    subject,
                    violation.expected.clone(),
                    violation.found.clone(),
                ];
                (Some(Paint::Bad), cells)
            })
            .collect();
        output.table(&["VIOLATION", "ORDER", "SUBJECT", "EXPECTED", "FOUND"], &rows)?;
        output.line("")?;
    }
    let Counts { orders, completed, cancelled, open, settling, beyond_retention, .. } = counts;
    output.line(format_args!(
        "orders        {orders}: {completed} completed, {cancelled} cancelled, {open} open; not judged: {settling} \
         just ended, {beyond_retention} older than the topics",
    ))?;
    output.line(format_args!("charges       {} kept, {} refunded", counts.charges_kept, counts.charges_refunded))?;
    output.line(format_args!(
        "mails         {}, of these {} extra copies; {} refused for good",
        counts.mails, counts.extra_mails, counts.mails_given_up
    ))?;
    output.line(format_args!("stock         {} pieces sold", counts.pieces_sold))?;
    output.line(format_args!(
        "events        {} records, {} of them duplicates; {} handled; {} wait for their time",
        counts.records, counts.duplicates, counts.handled, counts.outbox_delayed
    ))?;
    output.line(format_args!(
        "dead letters  {}, of these {} handled after all and {} unreadable",
        counts.dead_letters, counts.dead_letters_handled, counts.dead_letters_unreadable
    ))?;
    let (paint, verdict) = match violations.len() {
        0 => (Paint::Good, format!("no violations in {} orders judged", counts.judged)),
        1 => (Paint::Bad, format!("1 violation in {} orders judged", counts.judged)),
        several => (Paint::Bad, format!("{several} violations in {} orders judged", counts.judged)),
    };
    output.line(output.painted(Some(paint), verdict))?;
    Ok(())
}
