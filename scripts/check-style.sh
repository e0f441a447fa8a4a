#!/usr/bin/env bash
# The parts of the house style that a machine can judge and the compiler does not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
wrong=0
complain() { printf '%s\n' "$*"; wrong=1; }

while IFS= read -r file; do
  lines=$(wc -l <"$file")
  case "$file" in
    */main.rs|main.rs)
      case "$file" in */tests/*) ;; *) [ "$lines" -le 60 ] || complain "$file: $lines lines; a main.rs only wires (60)" ;; esac ;;
    */mod.rs) complain "$file: a module is foo.rs beside foo/" ;;
    */common.rs|*/utils.rs|*/util.rs|*/helpers.rs|*/types.rs|*/models.rs|*/misc.rs) complain "$file: name it after what it does" ;;
  esac
  [ "$lines" -le 600 ] || complain "$file: $lines lines; that is two things (600)"
done < <(git ls-files '*.rs')

# What belongs to one machine has no place in the tree.
if git grep -nIE '(^|[^[:alnum:]_.])/(root|work|home/[a-z]+)/' -- . ':!scripts/check-style.sh' ':!Cargo.lock'; then
  complain "the lines above name a folder of one machine"
fi
if git grep -nIiE '(artifactory|nexus|registry|proxy|mirror)\.[a-z0-9-]+\.[a-z]{2,}' -- . ':!scripts/check-style.sh' ':!Cargo.lock'; then
  complain "the lines above name a package registry or mirror"
fi
if git grep -nE '\b(todo|unimplemented)!\(' -- '*.rs'; then complain "the lines above are not written yet"; fi

while IFS= read -r script; do
  bash -n "$script" || wrong=1
done < <(git grep -lE '^#!.*\bbash' -- scripts ops .ci)
if command -v shellcheck >/dev/null; then
  git grep -lE '^#!.*\bbash' -- scripts ops .ci | xargs shellcheck -x -S warning || wrong=1
fi
exit $wrong
