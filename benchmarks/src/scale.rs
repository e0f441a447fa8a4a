//! How it grows: what more instances of a consumer bring, and what a record costs with more keys and with more partitions.
//! Work that is shared out should take as much less time as there are instances, and a record should cost what it costs
//! whatever there is beside it.

mod cost;
mod instances;

use clap::{Args, ValueEnum};

use crate::{
    figure::Results,
    site::Site,
    topics::topic::{
        SCALE_KEYS_1K, SCALE_KEYS_1M, SCALE_KEYS_10, SCALE_KEYS_100K, SCALE_PARTITIONS_6, SCALE_PARTITIONS_60,
        SCALE_PARTITIONS_600,
    },
};

#[derive(Args)]
pub struct Options {
    /// Which cases run; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,

    /// How many records more keys and more partitions are measured with
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(2..))]
    records: u64,

    /// How many records the instances share out
    #[arg(long, default_value_t = 24_000, value_parser = clap::value_parser!(u64).range(12..))]
    shared: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// 1, 2 and 4 instances, 12 partitions, handlers that wait 5 ms, 8 at once in each instance
    Instances,
    /// 10 to 1,000,000 keys in 6 partitions, an empty handler
    Keys,
    /// 6 to 600 partitions, 6,000 keys, an empty handler
    Partitions,
}

/// As many in each partition, whether there are 6 or 600.
const KEYS: u64 = 6000;

/// Runs the workload.
///
/// # Errors
/// When records were lost, repeated, or handled out of the order of their key.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    let cases = if options.cases.is_empty() { Case::value_variants() } else { &options.cases };
    let mut results = Vec::new();
    let records = options.records;
    for case in cases {
        match case {
            Case::Instances => results.extend(instances::run(site, options.shared).await?),
            Case::Keys => {
                results.extend(cost::run::<SCALE_KEYS_10>(site, "scale-keys-10", records, 10).await?);
                results.extend(cost::run::<SCALE_KEYS_1K>(site, "scale-keys-1k", records, 1000).await?);
                results.extend(cost::run::<SCALE_KEYS_100K>(site, "scale-keys-100k", records, 100_000).await?);
                results.extend(cost::run::<SCALE_KEYS_1M>(site, "scale-keys-1m", records, 1_000_000).await?);
            }
            Case::Partitions => {
                results.extend(cost::run::<SCALE_PARTITIONS_6>(site, "scale-partitions-6", records, KEYS).await?);
                results.extend(cost::run::<SCALE_PARTITIONS_60>(site, "scale-partitions-60", records, KEYS).await?);
                results.extend(cost::run::<SCALE_PARTITIONS_600>(site, "scale-partitions-600", records, KEYS).await?);
            }
        }
    }
    Ok(results)
}
