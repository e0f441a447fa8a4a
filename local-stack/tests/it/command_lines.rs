//! docs/CLI.md lists what the command lines take. `UPDATE_DOCS=1` writes it anew.

use std::path::Path;

use clap::{Arg, Args, Command, CommandFactory};
use event_runtime::cli::ServiceCommand;

const BEGIN: &str = "<!-- made from the commands by local-stack/tests/it/command_lines.rs -->\n";

fn service<C: Args>(name: &'static str, about: &'static str) -> Command {
    ServiceCommand::<C>::augment_args(Command::new(name)).about(about)
}

/// What each program takes, in the order in which people meet them.
fn programs() -> Vec<Command> {
    vec![
        local_stack::Arguments::command().name("cargo run --"),
        order_service::cli::Cli::command(),
        eventctl::Cli::command(),
        service::<payment_service::Config>("payment-service", "Run the service"),
        service::<inventory_service::Config>("inventory-service", "Run the service"),
        service::<email_service::Config>("email-service", "Run the service"),
    ]
}

/// One row for each command that does something, and those below it.
fn rows(command: &Command, path: &str, rows: &mut Vec<String>) {
    let acts = !command.is_subcommand_required_set() && !command.is_arg_required_else_help_set();
    if acts {
        let arguments: Vec<_> = command.get_positionals().map(|argument| format!(" {}", value(argument))).collect();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let flags: Vec<_> = command.get_arguments().filter_map(flag).collect();
        rows.push(format!("| `{path}{}` | {about} | {} |", arguments.concat(), flags.join(" ")).replace("  |", " |"));
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        self::rows(below, &format!("{path} {}", below.get_name()), rows);
    }
}

fn flag(argument: &Arg) -> Option<String> {
    if argument.is_positional() || argument.is_hide_set() || matches!(argument.get_id().as_str(), "help" | "version") {
        return None;
    }
    let name = match (argument.get_long(), argument.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, short) => format!("-{}", short?),
    };
    let takes_value = argument.get_action().takes_values();
    Some(format!("`{name}{}`", if takes_value { format!(" {}", value(argument)) } else { String::new() }))
}

fn value(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| argument.get_id().to_string().to_uppercase(), ToString::to_string).replace('|', "\\|")
}

/// The tables. What all services share stands once.
fn tables() -> String {
    let mut text = String::new();
    let mut shared: Vec<String> = Vec::new();
    for mut command in programs() {
        command.build();
        let name = command.get_name().to_owned();
        let mut found = Vec::new();
        rows(&command, &name, &mut found);
        let as_any = |row: &String| row.replace(&format!("`{name} "), "`SERVICE ");
        let beside =
            |row: &String| ["audit", "outbox"].iter().any(|verb| row.starts_with(&format!("| `{name} {verb}")));
        let of_all: Vec<_> = found.iter().filter(|row| beside(row)).map(as_any).collect();
        if name == "payment-service" {
            shared.clone_from(&of_all);
        }
        if name.ends_with("-service") && name != "order-service" {
            assert_eq!(of_all, shared, "{name} takes something else");
            found.retain(|row| !beside(row));
        }
        text.push_str(&format!("\n## {name}\n\n| command | what it does | flags |\n| --- | --- | --- |\n"));
        text.push_str(&(found.join("\n") + "\n"));
    }
    text.push_str(
        "\n## SERVICE\n\nWhat `payment-service`, `inventory-service` and `email-service` do beside their work.\n\n",
    );
    text.push_str("| command | what it does | flags |\n| --- | --- | --- |\n");
    text.push_str(&(shared.join("\n") + "\n"));
    text
}

#[test]
fn every_command_and_flag_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLI.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (introduction, documented) = document.split_once(BEGIN).expect("docs/CLI.md says where its tables begin");
    let known = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{introduction}{BEGIN}{known}")).unwrap();
        return;
    }
    let (documented, known): (Vec<_>, Vec<_>) = (documented.lines().collect(), known.lines().collect());
    for (documented, known) in documented.iter().zip(&known) {
        assert_eq!(documented, known, "UPDATE_DOCS=1 writes docs/CLI.md anew");
    }
    assert_eq!(documented.len(), known.len(), "UPDATE_DOCS=1 writes docs/CLI.md anew");
}

/// The README names each command, and no other.
#[test]
fn the_readme_names_every_command() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    for mut program in [order_service::cli::Cli::command(), eventctl::Cli::command()] {
        program.build();
        let name = program.get_name().to_owned();
        let mut known = Vec::new();
        rows(&program, "", &mut known);
        // `| ` dlt show EVENT` | …`: what stands before the first argument.
        let verbs = known.iter().filter_map(|row| row.strip_prefix("| ` ")?.split('`').next());
        let known: Vec<_> = verbs
            .map(|verbs| {
                verbs.split(' ').filter(|word| word.chars().all(|c| !c.is_uppercase())).collect::<Vec<_>>().join(" ")
            })
            .collect();
        let row = readme.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` | "))).expect("a row for it");
        let named: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert_eq!(named, known, "{name}");
    }
}
