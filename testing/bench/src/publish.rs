//! How does a report reach people? As a table on stdout, as JSON, and as a picture, in the same way for every row.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::chart::Figure;
use crate::options::Files;

/// All results of a run. Its JSON is what serde makes of it.
pub(crate) trait Report: Serialize {
    /// The picture's file name, without what tells its format.
    fn name(&self) -> &'static str;

    /// The table, and how to read it.
    fn text(&self) -> String;

    /// The picture.
    fn figure(&self) -> Figure;
}

/// Prints the table, and writes the files that are asked for.
pub(crate) fn publish(report: &impl Report, files: &Files) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(report.text().as_bytes()).context("cannot write to stdout")?;
    if let Some(path) = &files.json {
        write_json(report, path)?;
    }
    if let Some(folder) = &files.chart {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the directory {}", folder.display()))?;
        report.figure().write(folder, report.name())?;
    }
    Ok(())
}

fn write_json(report: &impl Serialize, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Answer {
        value: u32,
    }

    impl Report for Answer {
        fn name(&self) -> &'static str {
            "answer"
        }

        fn text(&self) -> String {
            String::new()
        }

        fn figure(&self) -> Figure {
            let text = String::new;
            Figure { title: text(), subtitle: text(), footer: text(), panels: Vec::new() }
        }
    }

    #[test]
    fn files_when_asked_for_are_written_into_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (json, chart) = (folder.path().join("answer.json"), folder.path().join("a/b"));
        publish(&Answer { value: 42 }, &Files::default()).unwrap();
        publish(&Answer { value: 42 }, &Files { json: Some(json.clone()), chart: Some(chart.clone()) })
            .unwrap();
        assert_eq!(std::fs::read_to_string(json).unwrap(), "{\n  \"value\": 42\n}\n");
        assert!(chart.join("answer.svg").exists() && chart.join("answer.png").exists());
    }
}
