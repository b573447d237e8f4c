//! Do the pages for users name what the code has? What is added to the code and forgotten in the guide is found here.

use anyhow::{Context, Result};

/// A source file whose words users see, how to find them in its text, and the page that must name each.
type Rule = (&'static str, fn(&str) -> Vec<String>, &'static str);

const RULES: &[Rule] = &[
    ("datapath/frame/src/drop.rs", reasons, "docs/guide/observe.md"),
    ("control/model/src/network.rs", fields, "docs/guide/networks.md"),
    ("control/model/src/subnet.rs", fields, "docs/guide/networks.md"),
];

pub(crate) fn broken() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for (source, find, page) in RULES {
        let text = std::fs::read_to_string(source).with_context(|| (*source).to_owned())?;
        let page_text = std::fs::read_to_string(page).with_context(|| (*page).to_owned())?;
        let words = find(&text);
        if words.is_empty() {
            broken.push(format!("{source}: has no word for {page} any more, and the rule is void"));
        }
        broken.extend(
            words
                .iter()
                .filter(|word| !names(&page_text, word))
                .map(|word| format!("{page}: says nothing of `{word}` of {source}")),
        );
    }
    Ok(broken)
}

/// Names of drop reasons: what the arms of their table give.
fn reasons(text: &str) -> Vec<String> {
    words(text, " => \"", "\",\n").map(str::to_owned).collect()
}

/// Fields that a person writes: those of structs that serde reads without unknown fields, in camelCase.
fn fields(text: &str) -> Vec<String> {
    let written = text.split("#[serde(deny_unknown_fields").skip(1);
    let bodies = written.filter_map(|rest| rest.split_once(" {\n")?.1.split_once("\n}"));
    bodies.flat_map(|(body, _)| words(body, "    pub ", ": ").map(camel_case).collect::<Vec<_>>()).collect()
}

fn camel_case(word: &str) -> String {
    let mut parts = word.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + &part[..1].to_uppercase() + &part[1..])
}

/// True if `page` has `word` as code: in backquotes, alone or behind a dot, or as a key of an example.
fn names(page: &str, word: &str) -> bool {
    [format!("`{word}`"), format!(".{word}`"), format!(" {word}:")].iter().any(|form| page.contains(form))
}

/// What stands between `before` and `after`, where it is one word.
fn words<'a>(text: &'a str, before: &str, after: &str) -> impl Iterator<Item = &'a str> {
    let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    text.split(before)
        .skip(1)
        .filter_map(move |rest| rest.split_once(after).map(|(word, _)| word))
        .filter(is_word)
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_those_that_a_person_writes() {
        let text = "#[serde(deny_unknown_fields, rename)]\npub struct A {\n    /// It.\n    pub port_kind: K,\n}\n\n\
                    pub struct B {\n    pub other: u8,\n}\n";
        assert_eq!(super::fields(text), ["portKind"]);
        assert!(super::names("`portKind`", "portKind") && super::names("  portKind: tap", "portKind"));
        assert!(!super::names("portKindness", "portKind"));
    }

    #[test]
    fn words_between_marks_are_found_and_sentences_are_not() {
        let text = "A => \"one_word\",\nB => \"a sentence\",\nC => \"other\",\n";
        let found: Vec<_> = super::words(text, " => \"", "\",\n").collect();
        assert_eq!(found, ["one_word", "other"]);
    }
}
