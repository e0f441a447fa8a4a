//! Another value for a record: from an editor, or from a file.

use std::{fs, io::Write, path::Path, process::Command};

use anyhow::{Context, ensure};
use tempfile::Builder;

/// The value in `file`, which must be JSON, as every event's is.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn from_file(file: &Path) -> anyhow::Result<Vec<u8>> {
    let value = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    checked(value).with_context(|| file.display().to_string())
}

/// What a person makes of `value` in an editor.
///
/// # Errors
/// When the editor fails, nothing is changed, or the result is no JSON; what was written is kept then.
pub fn by_hand(value: &[u8]) -> anyhow::Result<Vec<u8>> {
    let shown = match serde_json::from_slice::<serde_json::Value>(value) {
        Ok(json) => serde_json::to_vec_pretty(&json)?,
        Err(_) => value.to_vec(),
    };
    let mut file = Builder::new().prefix("dead-letter-").suffix(".json").tempfile()?;
    file.write_all(&[&shown, b"\n".as_slice()].concat())?;
    run_editor(file.path())?;
    // By its name: editors put a new file in the place of the old one.
    let edited = fs::read(file.path()).with_context(|| format!("{} cannot be read", file.path().display()))?;
    ensure!(edited.trim_ascii() != shown.trim_ascii(), "nothing was changed, so nothing is replayed");
    checked(edited).or_else(|error| {
        let (_, kept) = file.keep()?;
        Err(error.context(format!("what you wrote is kept in {}", kept.display())))
    })
}

fn checked(value: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    serde_json::from_slice::<serde::de::IgnoredAny>(&value).context("the new value is no JSON")?;
    Ok(value.trim_ascii().to_vec())
}

/// By a shell, since people put arguments into these variables.
fn run_editor(file: &Path) -> anyhow::Result<()> {
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|editor| !editor.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    let status = status.with_context(|| format!("{editor} cannot be run; set EDITOR"))?;
    ensure!(status.success(), "{editor} ended with {status}; nothing is replayed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_value_has_to_be_json() {
        assert_eq!(checked(b" {\"a\": 1}\n".to_vec()).unwrap(), b"{\"a\": 1}");
        for wrong in [b"".as_slice(), b"{\"half\":", b"\xff", b"{} {}"] {
            assert!(checked(wrong.to_vec()).is_err(), "{wrong:?}");
        }
    }
}
