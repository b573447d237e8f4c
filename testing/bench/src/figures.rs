//! How are figures picked, shortened and set in columns?

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::probe::Label;

/// The label within which to compare: the one of which the subject with the fewest samples has most. None if under no
/// label all subjects were measured; all samples are then taken together.
pub(crate) fn common_label<S: Ord + Copy>(samples: &[(S, Label)]) -> Option<Label> {
    let mut counts: BTreeMap<S, BTreeMap<Label, usize>> = BTreeMap::new();
    for (subject, label) in samples {
        *counts.entry(*subject).or_default().entry(*label).or_default() += 1;
    }
    let fewest = |label: Label| counts.values().map(|of| of.get(&label).copied().unwrap_or(0)).min();
    [Label::Far, Label::Mix, Label::Near]
        .into_iter()
        .filter_map(|label| Some((fewest(label).filter(|count| *count > 0)?, label)))
        .max_by_key(|(count, _)| *count)
        .map(|(_, label)| label)
}

/// The value below or at which a share of `sorted` lies (nearest rank). None if there are none.
pub(crate) fn quantile(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Each of `values` once, in order.
pub(crate) fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// `value` with `digits` after the point.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Rows under a head, columns as wide as their widest cell: the first two to the left, the others to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in [&head].into_iter().chain(rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        // A write into a String cannot fail.
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// A line of progress.
#[allow(clippy::print_stderr, reason = "progress is for the person who waits; the result goes to stdout")]
pub(crate) fn say(line: &str) {
    eprintln!("bench: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_label_when_subjects_differ_is_one_that_all_have() {
        let samples = [(1, Label::Near), (1, Label::Near), (1, Label::Far), (2, Label::Far)];
        assert_eq!(common_label(&samples), Some(Label::Far));
        assert_eq!(common_label(&[(1, Label::Near), (2, Label::Far)]), None);
        assert_eq!(common_label::<u8>(&[]), None);
    }

    #[test]
    fn quantile_when_ranks_are_few_takes_the_nearest() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&values, 0.0), Some(1));
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn table_when_cells_differ_in_width_is_aligned() {
        let rows = [vec!["a".into(), "bb".into(), "1".into()], vec!["aaa".into(), "b".into(), "10.5".into()]];
        assert_eq!(table(&["x", "y", "z"], &rows), "x    y      z\na    bb     1\naaa  b   10.5\n");
    }

    #[test]
    fn round_when_given_digits_keeps_so_many() {
        assert_eq!(round(1.2345, 2), 1.23);
    }
}
