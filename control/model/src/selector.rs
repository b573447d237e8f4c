//! Which labels does a label selector choose?

use std::collections::BTreeMap;

use crate::object::{Checked, InvalidField, each, is_subdomain, start};

/// Labels, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Checks keys and values.
    pub(crate) fn new(labels: &BTreeMap<String, String>) -> Checked<Self> {
        for (key, value) in labels {
            check_key("labels", key)?;
            check_value("labels", value)?;
        }
        let pairs = labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into()));
        Ok(Self(pairs.collect()))
    }

    /// This one alone.
    pub(crate) fn one(key: &str, value: &str) -> Self {
        Self([(key.into(), value.into())].into())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// A label selector as a person writes it (`meta/v1`): all of it must hold; an empty one holds for everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelSelectorSpec {
    /// Labels that are there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// More than that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<RequirementSpec>,
}

/// What is asked of one key's value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RequirementSpec {
    /// The key.
    pub key: String,
    /// What is asked.
    pub operator: Operator,
    /// Of these; none for `Exists` and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What is asked of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Operator {
    /// One of some.
    In,
    /// None of some; a key that is not there is none of them.
    NotIn,
    /// Any.
    Exists,
    /// The key is not there.
    DoesNotExist,
}

/// A checked selector. Two that are written in another order are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LabelSelector(Box<[Requirement]>);

/// What is asked of one key's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// The key.
    pub key: Box<str>,
    /// What of it.
    pub of: Asked,
}

/// What is asked, of sorted values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asked {
    /// One of these.
    In(Box<[Box<str>]>),
    /// None of these; a key that is not there is none of them.
    NotIn(Box<[Box<str>]>),
    /// Any.
    Exists,
    /// The key is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Checks a spec.
    pub(crate) fn new(spec: &LabelSelectorSpec) -> Checked<Self> {
        let mut requirements = each("matchExpressions", &spec.match_expressions, Requirement::new)?;
        for (key, value) in &spec.match_labels {
            check_key("matchLabels", key)?;
            check_value("matchLabels", value)?;
            let of = Asked::In([value.as_str().into()].into());
            requirements.push(Requirement { key: key.as_str().into(), of });
        }
        requirements.sort_unstable();
        requirements.dedup();
        Ok(Self(requirements.into()))
    }

    /// True if it chooses them.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// What it asks: all of these.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }
}

impl Requirement {
    fn new(spec: &RequirementSpec) -> Checked<Self> {
        check_key("key", &spec.key)?;
        let needs_values = matches!(spec.operator, Operator::In | Operator::NotIn);
        match (needs_values, spec.values.is_empty()) {
            (true, true) => return Err(InvalidField::NoValues.of("values")),
            (false, false) => return Err(InvalidField::Values.of("values")),
            _ => {}
        }
        spec.values.iter().try_for_each(|value| check_value("values", value))?;
        let mut values: Vec<Box<str>> = spec.values.iter().map(|value| value.as_str().into()).collect();
        values.sort_unstable();
        values.dedup();
        let of = match spec.operator {
            Operator::In => Asked::In(values.into()),
            Operator::NotIn => Asked::NotIn(values.into()),
            Operator::Exists => Asked::Exists,
            Operator::DoesNotExist => Asked::DoesNotExist,
        };
        Ok(Self { key: spec.key.as_str().into(), of })
    }

    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let is_one =
            |values: &[Box<str>]| value.is_some_and(|value| values.iter().any(|one| **one == *value));
        match &self.of {
            Asked::In(values) => is_one(values),
            Asked::NotIn(values) => !is_one(values),
            Asked::Exists => value.is_some(),
            Asked::DoesNotExist => value.is_none(),
        }
    }
}

/// `NAME` or `DOMAIN/NAME`.
fn check_key(field: &'static str, key: &str) -> Checked<()> {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    if !name.is_empty() && is_word(name) && domain.is_none_or(is_subdomain) {
        return Ok(());
    }
    Err(InvalidField::LabelKey(start(key)).of(field))
}

fn check_value(field: &'static str, value: &str) -> Checked<()> {
    if is_word(value) {
        return Ok(());
    }
    Err(InvalidField::LabelValue(start(value)).of(field))
}

fn is_word(text: &str) -> bool {
    const MAX_CHARS: usize = 63;
    let bytes = text.as_bytes();
    bytes.len() <= MAX_CHARS
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Labels::new(&owned.collect()).unwrap()
    }

    fn selector(yaml: &str) -> Result<LabelSelector, String> {
        let spec: LabelSelectorSpec = serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
        LabelSelector::new(&spec).map_err(|wrong| wrong.of_object("it").to_string())
    }

    #[test]
    fn a_selector_when_empty_chooses_everything() {
        assert!(selector("{}").unwrap().matches(&labels(&[])));
        assert!(selector("{}").unwrap().matches(&labels(&[("app", "db")])));
    }

    #[test]
    fn requirements_hold_as_the_api_says() {
        let cases = [
            ("In", "[a, b]", true, false, false),
            ("NotIn", "[a, b]", false, true, true),
            ("Exists", "[]", true, true, false),
            ("DoesNotExist", "[]", false, false, true),
        ];
        for (operator, values, of_a, of_c, of_none) in cases {
            let text = format!("matchExpressions: [{{key: k, operator: {operator}, values: {values}}}]");
            let selector = selector(&text).unwrap();
            assert_eq!(selector.matches(&labels(&[("k", "a")])), of_a, "{operator}");
            assert_eq!(selector.matches(&labels(&[("k", "c")])), of_c, "{operator}");
            assert_eq!(selector.matches(&labels(&[("other", "a")])), of_none, "{operator}");
        }
    }

    #[test]
    fn selectors_in_another_order_are_equal() {
        let one = selector(
            "matchExpressions: [{key: b, operator: In, values: [y, x]}, {key: a, operator: In, values: [z]}]",
        );
        let other =
            selector("{matchLabels: {a: z}, matchExpressions: [{key: b, operator: In, values: [x, y, x]}]}");
        assert_eq!(one.unwrap(), other.unwrap());
    }

    #[test]
    fn selectors_when_wrong_are_refused_with_field_and_remedy() {
        let error = selector("matchExpressions: [{key: a, operator: Exists}, {key: b, operator: In}]");
        let expected = "it: matchExpressions[1].values: is empty: the operators In and NotIn need a value";
        assert_eq!(error.unwrap_err(), expected);
        for text in [
            "matchExpressions: [{key: a, operator: Exists, values: [x]}]",
            "matchExpressions: [{key: a, operator: Gt, values: ['1']}]",
            "matchLabels: {'': x}",
            "matchLabels: {'a/b/c': x}",
            "matchLabels: {a: '-x'}",
            "matchlabels: {a: x}",
        ] {
            assert!(selector(text).is_err(), "{text}");
        }
        assert!(selector("matchLabels: {example.com/app_1: ''}").is_ok());
    }
}
