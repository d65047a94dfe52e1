//! Text for a terminal of which nothing is known but that it has 80 columns.

/// What is used of them: in the last one some terminals begin a new line, some do not.
pub(super) const COLUMNS: usize = 79;

/// How a character is shown: as it is, or as a question mark. Names of machines and lines of the log come from the network, so whatever
/// could steer a terminal (control characters, C1 ones included), turn the direction of writing or hide is not shown.
pub(super) fn shown(c: char) -> char {
    let is_plain = match c {
        '\t' | '\u{a0}' => return ' ',
        ' '..='~' => true,
        '\u{ad}' => false,
        '\u{a1}'..='\u{ff}' | '\u{2010}'..='\u{2027}' | '\u{20a0}'..='\u{20bf}' | '\u{2190}'..='\u{21ff}' => true,
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => false, // fillers
        _ => c.is_alphanumeric(),
    };
    if is_plain { c } else { '?' }
}

/// Columns that a character takes which [`shown`] let through: 2 for what Unicode's EastAsianWidth.txt calls wide.
pub(super) fn width(c: char) -> usize {
    let is_wide = matches!(u32::from(c),
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xa960..=0xa97f | 0xac00..=0xd7a3 | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x16fe0..=0x18cff | 0x1b000..=0x1b2ff | 0x20000..=0x3fffd);
    if is_wide { 2 } else { 1 }
}

/// Columns of a text.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// One line in which nothing steers the terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(shown).collect()
}

/// The lines that a text takes; what does not fit goes on `hang` columns further in, and breaks at a space where there is one.
pub(super) fn wrap(text: &str, hang: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest: Vec<char> = text.chars().map(shown).collect();
    let mut indent = String::new();
    loop {
        let fits = fitting(&rest, COLUMNS - indent.len());
        if fits == rest.len() {
            lines.push(indent + &String::from_iter(rest));
            return lines;
        }
        // A space in the indentation is no place to break, and neither is one that leaves a line half empty.
        let space = rest[..=fits].iter().rposition(|c| *c == ' ').filter(|at| *at > fits / 2);
        let mut next = rest.split_off(space.unwrap_or(fits));
        lines.push(indent + &String::from_iter(rest));
        let spaces = next.iter().take_while(|c| space.is_some() && **c == ' ').count();
        rest = next.split_off(spaces);
        indent = " ".repeat(hang);
    }
}

/// How many of these characters fit.
fn fitting(text: &[char], columns: usize) -> usize {
    let mut used = 0;
    let too_many = text.iter().position(|c| {
        used += width(*c);
        used > columns
    });
    too_many.unwrap_or(text.len())
}

/// Exactly so wide: filled with spaces, or cut with three dots.
pub(super) fn fit(text: &str, to: usize) -> String {
    let text = clean(text);
    if columns(&text) <= to {
        let missing = to - columns(&text);
        return text + &" ".repeat(missing);
    }
    let all: Vec<char> = text.chars().collect();
    let kept = String::from_iter(&all[..fitting(&all, to.saturating_sub(3))]);
    fit(&format!("{kept}{}", &"..."[..3.min(to)]), to)
}

/// A span of time in a word or two.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_steers_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r\n\u{9b}31m\u{7}\u{0}\tc"), "a?[2Jb???31m?? c");
        assert_eq!(clean("\u{202e}\u{200b}\u{feff}\u{ad}\u{3164}"), "?????");
        assert_eq!(clean("Müller → 東京 … 5 €"), "Müller → 東京 … 5 €");
    }

    #[test]
    fn long_lines_break_at_spaces_where_they_can() {
        assert_eq!(wrap("short", 4), ["short"]);
        assert_eq!(wrap("", 4), [""]);
        let words = wrap(&"four ".repeat(40), 2);
        assert_eq!((words[0].len(), &words[1][..7]), (79, "  four "), "{words:?}");
        let solid = wrap(&"x".repeat(200), 4);
        assert_eq!(solid.iter().map(|line| columns(line)).collect::<Vec<_>>(), [79, 79, 50]);
        let wide = wrap(&"東".repeat(60), 0);
        assert_eq!(wide.iter().map(|line| columns(line)).collect::<Vec<_>>(), [78, 42]);
        assert_eq!(wrap(&format!("{} {}", "x".repeat(79), "y"), 1), ["x".repeat(79), " y".to_owned()]);
    }

    #[test]
    fn columns_are_exact() {
        assert_eq!(
            (fit("ab", 4).as_str(), fit("abcdef", 5).as_str(), fit("東京東京", 6).as_str()),
            ("ab  ", "ab...", "東... ")
        );
        assert_eq!((fit("abcdef", 2).as_str(), fit("", 0).as_str()), ("..", ""));
        assert_eq!(
            [span(7), span(119), span(600), span(11_520), span(200_000)],
            ["7 s", "119 s", "10 min", "3 h 12 min", "2 days 7 h"]
        );
    }
}
