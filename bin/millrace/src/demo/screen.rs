//! How does the demo speak? Numbered steps with dots while they run, plain tables, no cursor tricks in a pipe.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The steps so far.
#[derive(Default)]
pub(super) struct Steps {
    count: u32,
}

impl Steps {
    /// Says the next step's title and leaves the line open for its outcome.
    pub(super) fn begin(&mut self, title: &str) {
        self.count += 1;
        print!("\n{:2}  {title}", self.count);
        let _ = std::io::stdout().flush();
    }
}

/// Waits until `what` is so.
///
/// # Errors
/// It was not so for long, or cannot be known.
pub(super) fn wait_for(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    #[allow(clippy::disallowed_methods, reason = "a deadline for what never comes")]
    let start = Instant::now();
    while !so()? {
        ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Ends the open line with a step's outcome, if there is one in a few words.
pub(super) fn outcome(text: &str) {
    println!("{}{text}", if text.is_empty() { "" } else { ": " });
}

/// A line that belongs to the step above.
pub(super) fn detail(text: &str) {
    println!("{}", format!("    {text}").trim_end());
}

/// Rows of text under a head, columns as wide as their widest cell; all but the first are right-aligned.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let print = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        detail(cells.collect::<Vec<_>>().join("   ").trim_end());
    };
    print(&head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    for row in rows {
        print(row);
    }
}

/// 1234567 as 1,234,567.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people say them: 64 B, 16 KB.
pub(super) fn size(bytes: usize) -> String {
    if bytes.is_multiple_of(1024) { format!("{} KB", bytes / 1024) } else { format!("{bytes} B") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
