//! What event-runtime costs: each workload runs it and a loop written by hand on the same data, in turns, in the same run,
//! so that the noise of the machine falls on both.
//!
//! A workload makes its topics, groups and databases, and they are removed when it ends, also when it fails. What is
//! measured, how, and what came of it: `docs/BENCHMARKS.md`. Nothing here is asserted about time; what is asserted is that
//! both did all of the work: every record once, in the order of its key.

pub mod cli;
pub mod hot_paths;
pub mod start;

mod backlog;
mod databases;
mod figure;
mod journal;
mod keyed_io;
mod load;
mod measure;
mod orders;
mod pass_through;
mod poison;
mod relay;
mod scale;
mod site;
mod topics;
mod transactional;
