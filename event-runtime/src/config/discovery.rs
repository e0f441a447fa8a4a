//! Where a command line finds the services: a flag, else the environment, else the `.local-stack/env` that a running
//! embedded stack writes, else the ports of the compose stack.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
};

/// An address that can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its name in the environment and in `.local-stack/env`.
    pub variable: &'static str,
    /// Where the compose stack has it.
    pub default: &'static str,
}

/// Kafka's bootstrap servers.
pub const KAFKA: Address = Address { variable: "KAFKA_BROKERS", default: "127.0.0.1:9092" };
/// order-service.
pub const ORDER_SERVICE: Address = Address { variable: "ORDER_SERVICE_URL", default: "http://127.0.0.1:8080" };
/// payment-service.
pub const PAYMENT_SERVICE: Address = Address { variable: "PAYMENT_SERVICE_URL", default: "http://127.0.0.1:8081" };
/// inventory-service.
pub const INVENTORY_SERVICE: Address = Address { variable: "INVENTORY_SERVICE_URL", default: "http://127.0.0.1:8082" };
/// email-service.
pub const EMAIL_SERVICE: Address = Address { variable: "EMAIL_SERVICE_URL", default: "http://127.0.0.1:8083" };
/// payment-gateway-fake.
pub const PAYMENT_GATEWAY: Address = Address { variable: "PAYMENT_GATEWAY_URL", default: "http://127.0.0.1:8090" };
/// The mail server's web interface.
pub const MAILPIT: Address = Address { variable: "MAILPIT_URL", default: "http://127.0.0.1:8025" };

/// The file a running embedded stack writes, below the folder it was started in.
pub const LOCAL_STACK_FILE: &str = ".local-stack/env";
/// The variable in that file that says which process wrote it.
pub const LOCAL_STACK_PID: &str = "LOCAL_STACK_PID";

/// An address, and who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub value: String,
    /// Who said it.
    pub source: Source,
}

/// Who said an address. Displays as the end of a sentence: `order-service at http://… (from the environment, …)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag of this command.
    Flag,
    /// An environment variable.
    Environment(&'static str),
    /// The address file of a running embedded stack.
    LocalStack(PathBuf),
    /// Nobody: the compose stack's port.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("from the command line"),
            Self::Environment(variable) => write!(f, "from the environment, {variable}"),
            Self::LocalStack(path) => write!(f, "from {}", path.display()),
            Self::Default => f.write_str("the compose stack's port"),
        }
    }
}

/// Looks addresses up. Made once a process.
#[derive(Debug)]
pub struct Discovery {
    environment: HashMap<String, String>,
    local_stack: Option<(PathBuf, HashMap<String, String>)>,
    warning: Option<String>,
}

impl Discovery {
    /// From this process's environment and working folder.
    pub fn from_process() -> Discovery {
        let folder = std::env::current_dir().unwrap_or_default();
        // Variables that are no UTF-8 are no addresses either.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Discovery::new(environment.collect(), &folder, is_alive)
    }

    /// From these values: `is_alive` says whether the process with that id runs.
    pub fn new(environment: HashMap<String, String>, folder: &Path, is_alive: impl Fn(u32) -> bool) -> Discovery {
        let file = folder.ancestors().map(|parent| parent.join(LOCAL_STACK_FILE)).find(|file| file.is_file());
        let (local_stack, warning) = match file.map(|file| read(file, is_alive)) {
            Some(Ok(found)) => (Some(found), None),
            Some(Err(warning)) => (None, Some(warning)),
            None => (None, None),
        };
        Discovery { environment, local_stack, warning }
    }

    /// The address by its precedence: `flag`, environment, `.local-stack/env`, default. Empty values count as unset.
    pub fn find(&self, flag: Option<&str>, address: Address) -> Found {
        let Address { variable, default } = address;
        if let Some(value) = flag.filter(|value| !value.is_empty()) {
            return Found { value: value.to_owned(), source: Source::Flag };
        }
        if let Some(value) = self.environment.get(variable).filter(|value| !value.is_empty()) {
            return Found { value: value.clone(), source: Source::Environment(variable) };
        }
        if let Some((path, values)) = &self.local_stack
            && let Some(value) = values.get(variable).filter(|value| !value.is_empty())
        {
            return Found { value: value.clone(), source: Source::LocalStack(path.clone()) };
        }
        Found { value: default.to_owned(), source: Source::Default }
    }

    /// A value that only a running embedded stack has, such as `MAIL_DIR`.
    pub fn local_stack(&self, variable: &str) -> Option<&str> {
        self.local_stack.as_ref()?.1.get(variable).map(String::as_str)
    }

    /// Why an address file was ignored, for stderr.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

fn read(path: PathBuf, is_alive: impl Fn(u32) -> bool) -> Result<(PathBuf, HashMap<String, String>), String> {
    let shown = path.display();
    let text = fs::read_to_string(&path).map_err(|error| format!("{shown} is ignored: {error}"))?;
    let values = parse(&text);
    let pid = values.get(LOCAL_STACK_PID).and_then(|pid| pid.parse().ok());
    match pid {
        Some(pid) if is_alive(pid) => Ok((path, values)),
        Some(pid) => Err(format!("{shown} is ignored: the stack that wrote it (process {pid}) has ended")),
        None => Err(format!("{shown} is ignored: it has no {LOCAL_STACK_PID}")),
    }
}

/// The lines `NAME=value` of a dotenv file; comments, `export` and quotes around a value are understood.
fn parse(text: &str) -> HashMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), unquoted(value.trim()).to_owned()))
        .collect()
}

fn unquoted(value: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value)
}

/// Whether a process with this id runs. Without `unsafe` there is no `kill(pid, 0)`: `/proc` where there is one, else
/// the `kill` command. A process that has ended and was not yet waited for (a zombie) does not run.
fn is_alive(pid: u32) -> bool {
    if !Path::new("/proc/self").exists() {
        let probe = std::process::Command::new("kill").args(["-0", &pid.to_string()]).output();
        return probe.is_ok_and(|output| output.status.success());
    }
    // The state is the first word after the command's name, which stands in brackets and may hold anything.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(')')?.1.trim_start().chars().next()? != 'Z'))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str =
        "# written by local-stack\nORDER_SERVICE_URL=http://stack\nMAIL_DIR='/tmp/a b'\nLOCAL_STACK_PID=42\n";

    fn folder_with(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(".local-stack")).unwrap();
        fs::write(folder.path().join(LOCAL_STACK_FILE), text).unwrap();
        folder
    }

    fn environment(values: &[(&str, &str)]) -> HashMap<String, String> {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_stack_beats_the_default() {
        let folder = folder_with(STACK);
        let stack_file = folder.path().join(LOCAL_STACK_FILE);
        let set = &[("ORDER_SERVICE_URL", "http://environment")][..];
        let empty = &[("ORDER_SERVICE_URL", "")][..];
        let cases = [
            (Some("http://flag"), set, true, "http://flag", Source::Flag),
            (None, set, true, "http://environment", Source::Environment("ORDER_SERVICE_URL")),
            (Some(""), empty, true, "http://stack", Source::LocalStack(stack_file.clone())),
            (None, &[], true, "http://stack", Source::LocalStack(stack_file)),
            (None, &[], false, "http://127.0.0.1:8080", Source::Default),
        ];
        for (flag, variables, stack_runs, value, source) in cases {
            let discovery = Discovery::new(environment(variables), folder.path(), |_| stack_runs);
            assert_eq!(discovery.find(flag, ORDER_SERVICE), Found { value: value.to_owned(), source });
        }
    }

    #[test]
    fn the_stack_is_found_from_a_folder_below() {
        let folder = folder_with(STACK);
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let discovery = Discovery::new(HashMap::new(), &below, |_| true);
        assert_eq!(discovery.find(None, ORDER_SERVICE).value, "http://stack");
        assert_eq!(discovery.local_stack("MAIL_DIR"), Some("/tmp/a b"));
        assert_eq!(discovery.find(None, PAYMENT_SERVICE).source, Source::Default, "not in the file");
    }

    #[test]
    fn a_stale_or_strange_file_is_ignored_with_a_warning() {
        for (text, reason) in
            [(STACK, "(process 42) has ended"), ("ORDER_SERVICE_URL=http://stack", "has no LOCAL_STACK_PID")]
        {
            let folder = folder_with(text);
            let discovery = Discovery::new(HashMap::new(), folder.path(), |_| false);
            assert!(discovery.warning().unwrap().ends_with(reason), "{:?}", discovery.warning());
            assert_eq!(discovery.find(None, ORDER_SERVICE).source, Source::Default);
        }
    }

    #[test]
    fn only_a_running_process_is_alive() {
        assert!(is_alive(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }
}
