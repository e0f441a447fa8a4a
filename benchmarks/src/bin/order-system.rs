//! Any service of the order system, which the workload `orders` starts.

use std::process::ExitCode;

fn main() -> ExitCode {
    end_to_end_tests::service::main()
}
