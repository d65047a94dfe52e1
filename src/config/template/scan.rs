//! Finds the placeholders among all the other brackets.

use super::Problem;

/// A stretch of a template.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Copied as it is.
    Text(&'a [u8]),
    /// What stands between the brackets, trimmed.
    Tag(&'a str),
    /// The template is over.
    End,
}

/// The piece at `at`, and where the next one begins; an error has the offset of the placeholder.
pub fn next(source: &[u8], at: usize) -> Result<(Piece<'_>, usize), (usize, Problem)> {
    if at >= source.len() {
        return Ok((Piece::End, at));
    }
    let mut from = at;
    while let Some(opening) = find(source, b"[[", from) {
        match tag(&source[opening..]).map_err(|problem| (opening, problem))? {
            Some(_) if opening > at => return Ok((Piece::Text(&source[at..opening]), opening)),
            Some((inner, length)) => return Ok((Piece::Tag(inner), opening + length)),
            None => from = opening + 1,
        }
    }
    Ok((Piece::Text(&source[at..]), source.len()))
}

/// The placeholder that `text` begins with: its inside and its whole length.
fn tag(text: &[u8]) -> Result<Option<(&str, usize)>, Problem> {
    if let Some(inside) = text.strip_prefix(b"[[[")
        && opens(inside)
    {
        // `[[[.a]], 1]` is a list that begins with a placeholder, so here only `]]]` closes.
        let inside = line(inside);
        let end = closing(inside).filter(|&end| inside[end..].starts_with(b"]]]"));
        return Ok(end.and_then(|end| content(inside, end, 3)));
    }
    let inside = text.strip_prefix(b"[[").unwrap_or_default();
    if !opens(inside) {
        return Ok(None); // before a look for the line's end: `[[[[…` would make that quadratic
    }
    let inside = line(inside);
    match closing(inside) {
        Some(end) => Ok(content(inside, end, 2)),
        None => {
            let opening: String = String::from_utf8_lossy(inside).chars().take(40).collect();
            let opening: String = opening.chars().filter(|c| !c.is_control()).collect();
            Err(Problem::Unclosed { opening: format!("[[{}", opening.trim_end()) })
        }
    }
}

/// The text up to the end of its line.
fn line(text: &[u8]) -> &[u8] {
    text.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default()
}

/// The first thing that Go's templates understand and ours do not, and where: `[[ range .x ]]`, `[[[ index .x "y" ]]]`.
pub fn foreign(source: &[u8]) -> Option<(usize, &'static str)> {
    first_of(&FOREIGN, source)
}

/// The first of those that an `[[ end ]]` belongs to.
pub fn block(source: &[u8]) -> Option<(usize, &'static str)> {
    first_of(&FOREIGN[..BLOCKS], source)
}

/// How many of [`FOREIGN`] go on until an `[[ end ]]`.
const BLOCKS: usize = 4;
const FOREIGN: [&str; 13] =
    ["range", "with", "define", "block", "index", "eq", "ne", "and", "or", "not", "len", "printf", "template"];

fn first_of(words: &[&'static str], source: &[u8]) -> Option<(usize, &'static str)> {
    let mut from = 0;
    while let Some(opening) = find(source, b"[[", from) {
        from = opening + 1;
        let inside = skip_blanks(&source[opening + 2..]);
        // Only so far as the longest word and its blank reach, or `[[[[…` would make this quadratic.
        let first = inside[..inside.len().min(9)].split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
        let known = words.iter().find(|word| first.len() < 9 && word.as_bytes() == first);
        if let Some(word) = known.filter(|_| closing(line(inside)).is_some()) {
            return Some((opening, word));
        }
    }
    None
}

/// The inside without its margins, unless it is not text at all.
fn content(inside: &[u8], end: usize, brackets: usize) -> Option<(&str, usize)> {
    let text = std::str::from_utf8(&inside[..end]).ok()?;
    Some((text.trim(), end + 2 * brackets))
}

/// Whether this is how the inside of a placeholder begins: `.name`, `if …`, `else`, `end`.
fn opens(inside: &[u8]) -> bool {
    let inside = skip_blanks(inside);
    if let Some(rest) = inside.strip_prefix(b".") {
        return rest.first().is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80);
    }
    let word_end = inside.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(inside.len());
    let (word, rest) = inside.split_at(word_end);
    let closes = skip_blanks(rest).starts_with(b"]]");
    let goes_on = matches!(rest.first(), Some(b' ' | b'\t'));
    match word {
        b"if" => goes_on,
        b"else" => closes || (goes_on && skip_blanks(rest).starts_with(b"if ")),
        b"end" => closes,
        _ => false,
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

/// Where `]]` is, quoted text aside.
fn closing(inside: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, &byte) in inside.iter().enumerate() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(b'"') if byte == b'\\' => escaped = true,
            Some(mark) if byte == mark => quote = None,
            Some(_) => {}
            None if inside[at..].starts_with(b"]]") => return Some(at),
            None if matches!(byte, b'"' | b'\'') => quote = Some(byte),
            None => {}
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = haystack.get(from..)?;
    rest.windows(needle.len()).position(|window| window == needle).map(|at| from + at)
}
