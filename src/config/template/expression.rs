//! What may stand in a placeholder: a key with filters, or a word of an `if`.

use super::Problem;
use crate::limits::TEMPLATE_FILTERS_MAX;

/// A placeholder, read.
#[derive(Debug)]
pub enum Tag<'a> {
    Value(Expression<'a>),
    If(Condition<'a>),
    /// `else`, or `else if …`.
    Else(Option<Condition<'a>>),
    End,
}

/// `.a.b | filter …`.
#[derive(Debug)]
pub struct Expression<'a> {
    /// As it was written.
    text: &'a str,
    /// Without the leading dot.
    pub path: &'a str,
    pub filters: Vec<Filter<'a>>,
}

impl Expression<'_> {
    /// For messages.
    #[must_use]
    pub fn shown(&self) -> String {
        shorten(self.text, 60)
    }
}

/// `.a.b` or `not .a.b`.
#[derive(Debug)]
pub struct Condition<'a> {
    /// Without the leading dot.
    pub path: &'a str,
    pub negated: bool,
}

/// `name` or `name argument`.
#[derive(Debug)]
pub struct Filter<'a> {
    pub name: &'a str,
    pub argument: Option<String>,
}

/// Reads the inside of a placeholder.
///
/// # Errors
/// [`Problem::Syntax`].
pub fn parse(inner: &str) -> Result<Tag<'_>, Problem> {
    tag(inner).map_err(|reason| Problem::Syntax { inner: shorten(inner, 60), reason })
}

fn tag(inner: &str) -> Result<Tag<'_>, String> {
    if inner.starts_with('.') {
        return expression(inner).map(Tag::Value);
    }
    let (word, rest) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
    let rest = rest.trim_start();
    match (word, rest) {
        ("if", condition) => self::condition(condition).map(Tag::If),
        ("else", "") => Ok(Tag::Else(None)),
        ("else", rest) => condition(rest.strip_prefix("if").unwrap_or(rest).trim_start()).map(|c| Tag::Else(Some(c))),
        ("end", "") => Ok(Tag::End),
        _ => Err(format!("{} is not known", shorten(word, 20))),
    }
}

fn condition(text: &str) -> Result<Condition<'_>, String> {
    let (negated, text) = match text.strip_prefix("not ") {
        Some(text) => (true, text.trim_start()),
        None => (false, text),
    };
    match path(text) {
        Ok((path, "")) => Ok(Condition { path, negated }),
        _ => Err("a condition is `.key` or `not .key`".to_owned()),
    }
}

fn expression(text: &str) -> Result<Expression<'_>, String> {
    let written = text;
    let (path, mut rest) = path(text)?;
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let Some(text) = rest.strip_prefix('|') else {
            return Err(format!(
                "`{}` behind the key; a shell test of a hidden file is written ./.file",
                shorten(rest, 20)
            ));
        };
        let (filter, behind) = filter(text.trim_start())?;
        filters.push(filter);
        if filters.len() > TEMPLATE_FILTERS_MAX {
            return Err(format!("more than {TEMPLATE_FILTERS_MAX} filters"));
        }
        rest = behind;
    }
    Ok(Expression { text: written, path, filters })
}

/// `.a.b` and what stands behind it.
fn path(text: &str) -> Result<(&str, &str), String> {
    let text = text.strip_prefix('.').ok_or("a key begins with a dot")?;
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    if path.split('.').any(str::is_empty) {
        return Err("a part of the key is empty".to_owned());
    }
    Ok((path, rest.trim_start()))
}

fn filter(text: &str) -> Result<(Filter<'_>, &str), String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return Err("a filter's name is missing behind `|`".to_owned());
    }
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('|') {
        return Ok((Filter { name, argument: None }, rest));
    }
    let (argument, rest) = argument(rest)?;
    Ok((Filter { name, argument: Some(argument) }, rest.trim_start()))
}

/// `"text with \" in it"`, `'text as it is'`, or a bare word such as `8080` or `true`.
fn argument(text: &str) -> Result<(String, &str), String> {
    if let Some(text) = text.strip_prefix('\'') {
        let (inside, rest) = text.split_once('\'').ok_or("a quote is not closed")?;
        return Ok((inside.to_owned(), rest));
    }
    let Some(text) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((out, chars.as_str())),
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c @ ('"' | '\\')) => out.push(c),
                _ => return Err("behind \\ stands n, t, \" or \\".to_owned()),
            },
            c => out.push(c),
        }
    }
    Err("a quote is not closed".to_owned())
}

fn shorten(text: &str, characters: usize) -> String {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", clean(&text[..end])),
        None => clean(text),
    }
}
