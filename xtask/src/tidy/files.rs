//! Does every source file keep the house's rules: a question at its head, a bounded size, no unsafe outside the islands,
//! nothing unfinished, no path of somebody's machine?

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Lines a source file may have, tests at its end not counted.
const MAX_LINES: usize = 800;
/// Larger files, each with its number of lines: the list only shrinks.
const LARGER: &[(&str, usize)] = &[];
/// Crates that may have unsafe code; every other forbids it in its first file.
const UNSAFE_ISLANDS: &[&str] = &["datapath/frame", "datapath/vduse", "datapath/ports", "testing/guest"];
/// Words that stand for work not done. Split, so that this file does not hold them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
/// Pages that must exist.
const PAGES: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "STYLE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs/checks.md",
    "docs/guide/README.md",
    "docs/benchmarks.md",
    "docs/data-path.md",
];
/// The longest ARCHITECTURE.md that a newcomer reads.
const MAX_ARCHITECTURE_LINES: usize = 200;

pub(crate) fn broken() -> Result<Vec<String>> {
    let listed =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).output();
    let listed = String::from_utf8(listed.context("git ls-files")?.stdout).context("git ls-files")?;
    let files: Vec<PathBuf> = listed.lines().map(PathBuf::from).filter(|path| path.is_file()).collect();
    let mut broken = Vec::new();
    for path in &files {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        if path.extension().is_some_and(|end| end == "rs") {
            source(path, &text, &mut broken);
        }
        if text.contains(concat!("/wo", "rk/")) || text.contains(concat!("/ro", "ot/")) {
            broken.push(format!("{}: holds a path of one machine", path.display()));
        }
    }
    broken.extend(
        PAGES.iter().filter(|page| !Path::new(page).exists()).map(|page| format!("{page} is missing")),
    );
    let architecture = std::fs::read_to_string("ARCHITECTURE.md").unwrap_or_default();
    if architecture.lines().count() > MAX_ARCHITECTURE_LINES {
        broken.push(format!("ARCHITECTURE.md has more than {MAX_ARCHITECTURE_LINES} lines"));
    }
    Ok(broken)
}

fn source(path: &Path, text: &str, broken: &mut Vec<String>) {
    let name = path.to_string_lossy();
    let mut say = |what: String| broken.push(format!("{name}: {what}"));
    let is_test = name.contains("/tests/");
    if !text.starts_with("//!") {
        say("does not open with a `//!` that says which question it answers".into());
    }
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = body.lines().count();
    let limit = LARGER.iter().find(|(file, _)| *file == name).map_or(MAX_LINES, |(_, lines)| *lines);
    if lines > limit && !is_test {
        say(format!("has {lines} lines without its tests, more than {limit}: split it"));
    }
    let entry = ["src/lib.rs", "src/main.rs"].iter().any(|entry| name.ends_with(entry));
    let island = UNSAFE_ISLANDS.iter().any(|folder| name.starts_with(folder));
    if entry && !island && !text.contains("#![forbid(unsafe_code)]") {
        say("does not forbid unsafe code".into());
    }
    for word in UNFINISHED.iter().filter(|word| text.contains(**word)) {
        say(format!("holds {word}: do it, or write the reason it is not done without that word"));
    }
}
