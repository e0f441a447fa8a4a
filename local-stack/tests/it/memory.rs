//! What `cargo run` takes while nothing happens.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

/// Megabytes.
const MOST: u64 = 250;

/// What the process has in memory, in megabytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.map_or_else(|| panic!("no VmRSS in {status}"), |kilobytes: u64| kilobytes / 1000)
}

#[test]
fn a_stack_that_has_played_its_samples_takes_less_than_250_mb() {
    let folder = tempfile::tempdir().unwrap();
    let mut stack = Command::new(env!("CARGO_BIN_EXE_local-stack"))
        .arg("--dir")
        .arg(folder.path().join("stack"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It gives up by itself where a sample does not end.
    let said: Vec<String> = BufReader::new(stack.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.starts_with("Everything runs in this process"))
        .collect();
    let ended = stack.try_wait().unwrap();
    assert!(ended.is_none(), "{ended:?} after\n{}", said.join("\n"));
    let resident = resident(stack.id());
    Command::new("kill").args(["-INT", &stack.id().to_string()]).status().unwrap();
    assert!(stack.wait().unwrap().success());
    println!("the whole stack, idle: {resident} MB");
    assert!(resident < MOST, "{resident} MB");
}
