//! Cuts what a program prints into lines.
#![forbid(unsafe_code)]

use crate::domain::log::MAX_LINE;

/// The unfinished line of one stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes in; calls `line` for each line that is complete with it, without its end.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.ends_with(b"\n") {
                self.partial.pop();
                self.cut(&mut line);
                line(&self.partial);
                self.partial.clear();
            } else {
                self.cut(&mut line);
            }
        }
    }

    /// The rest, when the stream has ended without a line's end.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(&std::mem::take(&mut self.partial));
        }
    }

    /// Lets go of pieces while the line is longer than any may be, not within a character.
    fn cut(&mut self, line: &mut impl FnMut(&[u8])) {
        while self.partial.len() > MAX_LINE {
            let continues = |byte: u8| byte & 0xc0 == 0x80;
            let back = (0..4).find(|back| !continues(self.partial[MAX_LINE - back])).unwrap_or(0);
            let rest = self.partial.split_off(MAX_LINE - back);
            line(&std::mem::replace(&mut self.partial, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| seen.push(line.to_vec()));
        }
        lines.finish(|line| seen.push(line.to_vec()));
        seen
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let text = "a".repeat(MAX_LINE - 1) + "ä" + &"b".repeat(MAX_LINE);
        let seen = lines(&[text.as_bytes()]);
        assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE - 1, MAX_LINE, 2]);
        assert!(seen.iter().all(|line| std::str::from_utf8(line).is_ok()));
        assert_eq!(lines(&["a".repeat(MAX_LINE).as_bytes(), b"\n"]).len(), 1, "exactly the limit is one line");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_arrives(text in "[ab\n]{0,60}", cut in 1usize..7) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            let expected: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines(&pieces), expected);
        }
    }
}
