//! Any service of the system, for the tests to start and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    end_to_end_tests::service::main()
}
