//! Fields of any length, written one after another where the last ones may not fit.

/// Writes into a slice and remembers whether everything fitted. Unlike an `emit`, it never panics.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    fits: bool,
}

impl<'a> Writer<'a> {
    /// Writes to the front of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, fits: true }
    }

    /// Appends `bytes`, all or nothing; after something that did not fit, nothing.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let room = self.out.get_mut(self.len..).and_then(|rest| rest.get_mut(..bytes.len()));
        match room.filter(|_| self.fits) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.fits = false,
        }
        self
    }

    /// Appends `parts` behind what `header` makes of their bytes; does not fit if that is `None`.
    pub(crate) fn put_measured<const N: usize>(
        &mut self,
        parts: &[&[u8]],
        header: impl FnOnce(usize) -> Option<[u8; N]>,
    ) -> &mut Self {
        match header(parts.iter().map(|part| part.len()).sum()) {
            Some(header) => {
                self.put(&header);
                for part in parts {
                    self.put(part);
                }
            }
            None => self.fits = false,
        }
        self
    }

    /// The bytes written so far, to fill in what is known only now.
    pub fn written(&mut self) -> &mut [u8] {
        &mut self.out[..self.len]
    }

    /// How many bytes were written; `None` if something did not fit.
    pub fn finish(self) -> Option<usize> {
        self.fits.then_some(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_written_and_what_does_not_is_remembered() {
        let mut out = [0; 5];
        let mut writer = Writer::new(&mut out);
        writer.put(&[1, 2]).put(&[3]);
        assert_eq!(writer.written(), [1, 2, 3]);
        assert_eq!(writer.finish(), Some(3));
        let mut writer = Writer::new(&mut out);
        writer.put(&[1, 2, 3]).put(&[4, 5, 6]).put(&[7]);
        assert_eq!(writer.written(), [1, 2, 3], "nothing behind a gap");
        assert_eq!(writer.finish(), None);
        let mut writer = Writer::new(&mut out);
        writer.put_measured(&[&[9], &[8]], |len| Some([len as u8]));
        assert_eq!(writer.written(), [2, 9, 8]);
        writer.put_measured(&[], |_| None::<[u8; 1]>);
        assert_eq!(writer.finish(), None);
    }
}
