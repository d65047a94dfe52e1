//! How deep the brackets of a YAML document nest, found without parsing it.

/// Whether `[` and `{` stand more than `max` deep within each other.
///
/// libyaml, and serde_yaml with it, looks through all open brackets at each token: 100,000 of them take 22 s (measured)
/// before serde_yaml's own bound of 128 is looked at. So this goes over the text once beforehand. It knows what may hide
/// brackets that are none (quotes, comments, block scalars: scripts with colour codes are full of them), and no more.
#[must_use]
pub fn is_deeper_than(max: usize, text: &[u8]) -> bool {
    let mut scan = Scan { text, at: 0, depth: 0, parent: 0 };
    while scan.line(max) {}
    scan.depth > max
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// Open brackets.
    depth: usize,
    /// Column of the innermost key or dash of the line.
    parent: usize,
}

impl Scan<'_> {
    /// Goes over one line, and over those that belong to its last scalar. False at the end, or when it is too deep.
    fn line(&mut self, max: usize) -> bool {
        let start = self.at;
        self.blanks();
        self.parent = (self.at - start).saturating_sub(1);
        let mut begins = true; // whether a value may begin here: quotes and block scalars are such only there
        while let Some(&byte) = self.text.get(self.at) {
            let column = self.at - start;
            let blank_before = column == 0 || matches!(self.text[self.at - 1], b' ' | b'\t');
            let blank_behind = self.text.get(self.at + 1).is_none_or(|next| next.is_ascii_whitespace());
            self.at += 1;
            match byte {
                b'\n' => return true,
                b' ' | b'\t' | b'\r' => {}
                b'#' if blank_before => self.rest_of_line(),
                b'"' | b'\'' if begins => {
                    self.quoted(byte);
                    begins = false;
                }
                b'[' | b'{' if begins || self.depth > 0 => {
                    self.depth += 1;
                    begins = true;
                    if self.depth > max {
                        return false;
                    }
                }
                b']' | b'}' if self.depth > 0 => {
                    self.depth -= 1;
                    begins = false;
                }
                b',' if self.depth > 0 => begins = true,
                b':' => begins |= blank_behind || self.text[self.at - 2..].starts_with(b"\":"),
                b'-' | b'?' if begins && blank_behind => self.parent = column,
                b'|' | b'>' if begins && self.depth == 0 => {
                    self.rest_of_line();
                    return self.indented_lines();
                }
                b'&' | b'!' if begins => self.word(),
                _ if begins && self.depth == 0 => {
                    if !self.is_key() {
                        self.rest_of_line(); // a plain scalar: no bracket in it counts
                        return self.indented_lines();
                    }
                    self.parent = column;
                    begins = false;
                }
                _ => begins = false,
            }
        }
        false
    }

    fn blanks(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// The line as far as it has not been read.
    fn rest(&self) -> &[u8] {
        self.text[self.at..].split(|byte| *byte == b'\n').next().unwrap_or_default()
    }

    fn rest_of_line(&mut self) {
        self.at += self.rest().len();
    }

    /// Whether the plain scalar that begins here ends with a colon in its line.
    fn is_key(&self) -> bool {
        let rest = self.rest().trim_ascii_end();
        rest.ends_with(b":") || rest.windows(2).any(|pair| pair == b": ")
    }

    /// The rest of an anchor or tag.
    fn word(&mut self) {
        self.at += self.rest().iter().take_while(|byte| !matches!(byte, b' ' | b'\t' | b',' | b'[' | b'{')).count();
    }

    /// A quoted scalar behind its first quote. One that never ends hides nothing.
    fn quoted(&mut self, quote: u8) {
        let mut at = self.at;
        while let Some(&byte) = self.text.get(at) {
            at += if byte == b'\\' && quote == b'"' { 2 } else { 1 };
            if byte == quote {
                self.at = at; // `''` within single quotes is one more quoted scalar as far as brackets go
                if quote != b'\'' || self.text.get(at) != Some(&quote) {
                    return;
                }
                at += 1;
            }
        }
    }

    /// Lines that belong to the scalar before them: those further to the right than its key, and empty ones.
    fn indented_lines(&mut self) -> bool {
        while self.at < self.text.len() {
            self.at += 1; // the line end before it
            let rest = self.rest();
            let indent = rest.iter().take_while(|byte| **byte == b' ').count();
            if !rest.trim_ascii().is_empty() && indent <= self.parent {
                return true;
            }
            self.rest_of_line();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(yaml: &str) -> usize {
        (0..).find(|max| !is_deeper_than(*max, yaml.as_bytes())).unwrap()
    }

    #[test]
    fn brackets_of_collections_count() {
        for (yaml, wanted) in [
            ("", 0),
            ("a: b\nc: [d, {e: [f]}, [g]]\nh: [[i]]\n", 3),
            ("[[\n[\n{a:\n  [", 5),
            ("{\"a\":[{\"a\":[{\"a\":[", 6),
            ("- - [&x [!t [a]]]\n- k: [b]\n", 3),
            ("a: b\n  \"c\nd: [[[[\n\"", 4),
            ("a: \"never closed [[[\nb: [[[", 3),
            ("'it''s': [a]\n\"q\": [[", 2),
            ("a:\n  b: |\n    [[[[\n  c: [[x]]\n", 2),
            ("- |\n [[[[\n- [", 1),
            ("a: |", 0),
            ("a: plain", 0),
        ] {
            assert_eq!(depth(yaml), wanted, "{yaml}");
        }
    }

    #[test]
    fn brackets_of_texts_do_not() {
        for yaml in [
            "a: |\n  x [[ -f /y ]]\n\n  [ [ [ {\nb: c\n",
            "- name: |2-\n    [[\n   {\n",
            "a: >-\n  [[[\n",
            "a: x[[[ \n",
            "a: x\n  [[[\n",
            "run: printf '\\033[1m' \"[[\"\n",
            "a: '[[ ''[ '\nb: \"\\\"[[\n [\"\n",
            "# [[[\na: b # [[[\n",
            "- echo [[[\n  [\n- http://[::1]\n",
        ] {
            assert_eq!(depth(yaml), 0, "{yaml}");
        }
    }
}
