//! Domain names in their binary form, without compression (RFC 1035 §3.1).

use crate::Error;
use crate::writer::Writer;

/// Bytes of a label, and of a whole name with its lengths and its end (§2.3.4).
const MAX_LABEL_BYTES: usize = 63;
const MAX_NAME_BYTES: usize = 255;

/// A name as people write it: letters, digits, hyphens and underscores between dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// The name that `text` is, with or without a dot at its end.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn new(text: &'a str) -> Result<Self, Error> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() + 2 > MAX_NAME_BYTES || !name.split('.').all(is_label) {
            return Err(Error::Malformed("the text is no domain name"));
        }
        Ok(Self(name))
    }

    /// The name without a dot at its end.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// Appends its labels.
    pub fn put(&self, out: &mut Writer<'_>) {
        for label in self.0.split('.') {
            out.put(&[label.len() as u8]).put(label.as_bytes());
        }
        out.put(&[0]);
    }
}

/// Writes `names` one after another, and returns the bytes that hold them; `None` if they are more than `out`.
pub fn list<'o>(names: &[Name<'_>], out: &'o mut [u8]) -> Option<&'o [u8]> {
    let mut writer = Writer::new(out);
    names.iter().for_each(|name| name.put(&mut writer));
    let len = writer.finish()?;
    Some(&out[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_label_by_label() {
        let mut out = [0xaa; 32];
        let names = ["eng.example.org.", "a"].map(|text| Name::new(text).unwrap());
        assert_eq!(list(&names, &mut out), Some(&b"\x03eng\x07example\x03org\x00\x01a\x00"[..]));
        assert_eq!(list(&names, &mut out[..10]), None);
        assert_eq!(names[0].as_str(), "eng.example.org");
    }

    #[test]
    fn text_that_is_no_name_is_refused() {
        let (label, name) = ("a".repeat(64), "a.".repeat(128));
        for text in ["", ".", "a..b", ".a", "a b", "ü.org", &label, &name] {
            assert!(Name::new(text).is_err(), "{text:?}");
        }
        assert!(Name::new(&"a.".repeat(127)).is_ok(), "255 bytes");
    }
}
