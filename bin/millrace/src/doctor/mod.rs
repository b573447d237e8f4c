//! `millrace doctor`: what can this node do, and what is to be done about the rest?
//!
//! It only looks: nothing is loaded, written or bound.

mod findings;
mod node;
#[cfg(test)]
mod tests;

use anyhow::bail;
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::output::{self, Format, Row};
use findings::{Finding, NAMES, Verdict};
use node::Node;

const EXAMPLES: &str = "\
Examples:
  millrace doctor                        what this node can do, and what is missing
  millrace doctor -o json                the same for a program
  millrace doctor --need vduse,iommu     fails unless both work";

/// What to look at.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Fail unless these work
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", value_parser = PossibleValuesParser::new(NAMES))]
    need: Vec<String>,
}

impl Row for Finding {
    const HEADS: &'static [&'static str] = &["WHAT", "STATE", "FOR", "FOUND"];

    fn cells(&self) -> Vec<String> {
        let words = [self.name, self.verdict.as_str(), self.purpose];
        words.map(str::to_owned).into_iter().chain([self.found.clone()]).collect()
    }
}

/// Looks, and tells.
///
/// # Errors
/// Something that is needed does not work: its remedy.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let found = findings::all(&Node::at("/"), node::xdp_socket());
    match args.output {
        Format::Table => output::print(&told(&found))?,
        Format::Json => output::print_json(&found)?,
    }
    check(&found, &args.need)
}

/// As people read it: how it is, then what to do.
fn told(found: &[Finding]) -> String {
    let mut text = output::table(found, "nothing was looked at");
    text += "\nWhat can be done, where it is wanted:\n";
    for Finding { name, remedy, .. } in found.iter().filter(|finding| !finding.remedy.is_empty()) {
        text += &format!("  {name}: {remedy}\n");
    }
    text
}

fn check(found: &[Finding], need: &[String]) -> anyhow::Result<()> {
    let unmet = |finding: &&Finding| {
        finding.verdict == Verdict::Missing && need.iter().any(|name| name == finding.name)
    };
    let text = |finding: &Finding| format!("{}: {} ({})", finding.name, finding.found, finding.remedy);
    let unmet: Vec<_> = found.iter().filter(unmet).map(text).collect();
    if unmet.is_empty() { Ok(()) } else { bail!("this node lacks what is needed: {}", unmet.join("; ")) }
}
