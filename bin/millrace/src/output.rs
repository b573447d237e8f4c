//! How is an answer printed, for a person or for a program?

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// The shape of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people
    #[default]
    Table,
    /// JSON, for programs
    Json,
}

/// A line of a table.
pub(crate) trait Row {
    /// The columns' names.
    const HEADS: &'static [&'static str];

    /// One cell for each column.
    fn cells(&self) -> Vec<String>;
}

/// Writes `text` to stdout.
///
/// # Errors
/// Nobody reads any more; see [`is_closed`].
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes `answer` to stdout as JSON.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn print_json(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(answer)?;
    text.push('\n');
    print(&text)
}

/// The rows as aligned columns under their heads; what `nothing` says if there are none.
pub(crate) fn table<R: Row>(rows: &[R], nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let heads = R::HEADS.iter().map(|head| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows.iter().map(Row::cells)).collect();
    align(&lines)
}

/// Pads each column to its widest cell, two spaces apart. Columns of numbers are flush right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let numeric: Vec<bool> = (0..columns)
        .map(|column| lines.iter().skip(1).filter_map(|line| line.get(column)).all(|cell| is_number(cell)))
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, cell) in line.iter().enumerate() {
            let gap = if column == 0 { 0 } else { 2 };
            let pad = widths[column] - cell.chars().count();
            let (before, after) = if numeric[column] { (gap + pad, 0) } else { (gap, pad) };
            row += &format!("{:before$}{cell}{:after$}", "", "");
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

fn is_number(cell: &str) -> bool {
    let starts = cell.starts_with(|c: char| c.is_ascii_digit());
    // Neither an address nor a list.
    cell == "-" || starts && !cell.contains([':', '/', ' ', ',']) && cell.matches('.').count() < 2
}

/// True if `error` only means that the reader of stdout has gone (`millrace get flows | head`).
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells the error, with its causes, on stderr.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell if stderr is gone too.
    let _ = writeln!(io::stderr(), "millrace: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pod(&'static str, u64);

    impl Row for Pod {
        const HEADS: &'static [&'static str] = &["NAME", "FRAMES"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_string()]
        }
    }

    #[test]
    fn table_when_rows_differ_in_width_aligns_text_left_and_numbers_right() {
        let text = table(&[Pod("a", 5), Pod("longer", 12345)], "no pods");
        assert_eq!(text, "NAME    FRAMES\na            5\nlonger   12345\n");
    }

    #[test]
    fn is_number_when_it_is_an_address_says_no() {
        assert_eq!(["10.1.0.2", "fd00::2", "1,2", "up"].map(is_number), [false; 4]);
        assert_eq!(["-", "0", "12.3k", "99%", "1m05s"].map(is_number), [true; 5]);
    }

    #[test]
    fn table_when_there_is_nothing_says_so() {
        assert_eq!(table::<Pod>(&[], "no pods"), "no pods\n");
    }
}
