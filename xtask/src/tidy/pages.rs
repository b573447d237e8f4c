//! Do the pages for users name what the code has? What is added to the code and forgotten in the guide is found here.

use anyhow::{Context, Result};

/// Source file, the texts before and after each word that users see, and the page that must have it in backquotes.
const WORDS: &[(&str, &str, &str, &str)] = &[
    ("datapath/frame/src/drop.rs", " => \"", "\",\n", "docs/guide/observe.md"),
    ("control/model/src/network.rs", "\n    #[serde(default)]\n    pub ", ": bool", "docs/guide/networks.md"),
];

pub(crate) fn broken() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for (source, before, after, page) in WORDS {
        let text = std::fs::read_to_string(source).with_context(|| (*source).to_owned())?;
        let page_text = std::fs::read_to_string(page).with_context(|| (*page).to_owned())?;
        for word in words(&text, before, after) {
            if !page_text.contains(&format!("`{word}`")) {
                broken.push(format!("{page}: says nothing of `{word}` of {source}"));
            }
        }
    }
    Ok(broken)
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
    fn words_between_marks_are_found_and_sentences_are_not() {
        let text = "A => \"one_word\",\nB => \"a sentence\",\nC => \"other\",\n";
        let found: Vec<_> = super::words(text, " => \"", "\",\n").collect();
        assert_eq!(found, ["one_word", "other"]);
    }
}
