//! Templates of the cloud config: `[[ .a.b | filter ]]`, `[[ if .a ]] … [[ end ]]`.
//!
//! A cloud config is full of double brackets that are none of ours: `[[ -f /x ]]` in a script, `[[plugins]]` in a TOML snippet,
//! `[[1,2],[3,4]]`. So the text is scanned for what begins like a placeholder (a dot and a letter, or `if`, `else`, `end`), and
//! every other byte is copied. `[[[ .a ]]]`, the form of the original since 2023, means the same as `[[ .a ]]`.
//!
//! upon compiles `[[ -f /x ]]` as an expression and fails, wants `default: "x"` for `default "x"`, takes text only
//! where a cloud config is bytes, and its errors know neither our lines nor the flag to add; hence an own evaluator.

mod expression;
mod filter;
mod scan;

use std::collections::BTreeSet;

use self::expression::{Condition, Expression, Tag};
use self::filter::FilterError;
use self::scan::Piece;
use super::node::Node;
use super::suggest::closest;
use crate::limits::{CLOUD_CONFIG_BYTES_MAX, TEMPLATE_IFS_NESTED_MAX};
use crate::units::ByteSize;

/// A placeholder that cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct TemplateError {
    /// The cloud config's name and the line.
    pub place: String,
    pub problem: Problem,
}

/// What is wrong with a placeholder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("[[ .{path} ]] has no value; add it below `values:`, or --set {path}=VALUE{}", .suggestion.as_ref().map(|path| format!(" (or did you mean .{path}?)")).unwrap_or_default())]
    Missing { path: String, suggestion: Option<String> },
    #[error("[[ .{path} ]] is {found}; name one of its values, or add `| json`")]
    NotText { path: String, found: &'static str },
    #[error("`{opening}` is not closed on its line")]
    Unclosed { opening: String },
    #[error("[[ {inner} ]] cannot be read: {reason}")]
    Syntax { inner: String, reason: String },
    #[error("[[ {expression} ]]: {error}")]
    Filter { expression: String, error: FilterError },
    #[error("[[ {0} … ]] is not supported; there are [[ .key | filter ]] and [[ if .key ]]")]
    Block(&'static str),
    #[error("[[ {0} ]] without an [[ if ]]")]
    NoIf(&'static str),
    #[error("[[ if ]] without an [[ end ]]")]
    NoEnd,
    #[error("a second [[ else ]] for one [[ if ]]")]
    SecondElse,
    #[error("more than {0} [[ if ]] within each other")]
    TooDeep(usize),
    #[error("the cloud config grows above {}", ByteSize(*.0 as u64))]
    TooBig(usize),
}

/// A rendered template.
#[derive(Debug, Default)]
pub struct Rendered {
    pub bytes: Vec<u8>,
    /// Every path the template names, without the leading dot.
    pub used: BTreeSet<String>,
    /// The place of something in the language of the original's templates that was left as it is.
    pub foreign: Option<String>,
}

/// Replaces the placeholders in `source` by `data`; `place` names a line of the source in errors.
///
/// # Errors
/// The first placeholder that cannot be replaced. Nothing is ever left out silently.
pub fn render(source: &[u8], data: &Node, place: &dyn Fn(usize) -> String) -> Result<Rendered, TemplateError> {
    let mut renderer = Renderer { data, out: Rendered::default(), ifs: Vec::new() };
    let mut at = 0;
    let error = |offset: usize, problem: Problem| {
        // Within a `range` of the original everything is an error, and the least of its reasons is the one found.
        let (offset, problem) = match problem {
            Problem::NoIf(_) | Problem::Missing { .. } => match scan::block(&source[..offset]) {
                Some((offset, word)) => (offset, Problem::Block(word)),
                None => (offset, problem),
            },
            other => (offset, other),
        };
        TemplateError { place: place(line_of(source, offset)), problem }
    };
    loop {
        let (piece, end) = scan::next(source, at).map_err(|(offset, problem)| error(offset, problem))?;
        match piece {
            Piece::End => break,
            Piece::Text(text) => renderer.text(text),
            Piece::Tag(inner) => expression::parse(inner).and_then(|tag| renderer.tag(tag, at)),
        }
        .map_err(|problem| error(at, problem))?;
        at = end;
    }
    match renderer.ifs.last() {
        Some(open) => Err(error(open.offset, Problem::NoEnd)),
        None => {
            let foreign = scan::foreign(source).map(|(offset, _)| place(line_of(source, offset)));
            Ok(Rendered { foreign, ..renderer.out })
        }
    }
}

/// An `[[ if ]]` whose `[[ end ]]` has not come yet.
struct OpenIf {
    /// Where it begins, for the error if it never ends.
    offset: usize,
    /// Whether the text around it is kept.
    outer: bool,
    /// Whether the branch at hand is kept.
    keeps: bool,
    /// Whether a branch was kept already.
    kept: bool,
    seen_else: bool,
}

struct Renderer<'a> {
    data: &'a Node,
    out: Rendered,
    ifs: Vec<OpenIf>,
}

impl Renderer<'_> {
    fn keeps(&self) -> bool {
        self.ifs.last().is_none_or(|open| open.keeps)
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Problem> {
        if self.keeps() {
            // Values are the operator's, but a template from a URL decides how often they are repeated.
            if self.out.bytes.len() + text.len() > CLOUD_CONFIG_BYTES_MAX {
                return Err(Problem::TooBig(CLOUD_CONFIG_BYTES_MAX));
            }
            self.out.bytes.extend_from_slice(text);
        }
        Ok(())
    }

    fn tag(&mut self, tag: Tag<'_>, offset: usize) -> Result<(), Problem> {
        match tag {
            Tag::Value(expression) => {
                self.out.used.insert(expression.path.to_owned());
                if self.keeps() { self.text(self.value(&expression)?.as_bytes()) } else { Ok(()) }
            }
            Tag::If(condition) => {
                if self.ifs.len() == TEMPLATE_IFS_NESTED_MAX {
                    return Err(Problem::TooDeep(TEMPLATE_IFS_NESTED_MAX));
                }
                let outer = self.keeps();
                let keeps = self.holds(&condition) && outer;
                self.ifs.push(OpenIf { offset, outer, keeps, kept: keeps, seen_else: false });
                Ok(())
            }
            Tag::Else(condition) => {
                let holds = condition.as_ref().is_none_or(|condition| self.holds(condition));
                let open = self.ifs.last_mut().ok_or(Problem::NoIf("else"))?;
                if open.seen_else {
                    return Err(Problem::SecondElse);
                }
                open.seen_else = condition.is_none();
                open.keeps = open.outer && !open.kept && holds;
                open.kept |= open.keeps;
                Ok(())
            }
            Tag::End => self.ifs.pop().map(|_| ()).ok_or(Problem::NoIf("end")),
        }
    }

    fn value(&self, expression: &Expression<'_>) -> Result<String, Problem> {
        let path = || expression.path.to_owned();
        let missing = || Problem::Missing { path: path(), suggestion: self.near(expression.path) };
        let mut value = self.lookup(expression.path).cloned();
        for filter in &expression.filters {
            value = filter::apply(filter, value).map_err(|error| match error {
                FilterError::NoInput => missing(),
                error => Problem::Filter { expression: expression.shown(), error },
            })?;
            // `quote` doubles every quote and backslash, so a few in a row would grow without end.
            if matches!(&value, Some(Node::Text(text)) if text.len() > CLOUD_CONFIG_BYTES_MAX) {
                return Err(Problem::TooBig(CLOUD_CONFIG_BYTES_MAX));
            }
        }
        match value {
            Some(Node::Text(text)) => Ok(text),
            Some(other @ (Node::List(_) | Node::Map(_))) => Err(Problem::NotText { path: path(), found: other.kind() }),
            Some(Node::Null) | None => Err(missing()),
        }
    }

    /// False are: no value, an empty one, `false`.
    fn holds(&mut self, condition: &Condition<'_>) -> bool {
        self.out.used.insert(condition.path.to_owned());
        let truth = match self.lookup(condition.path) {
            None | Some(Node::Null) => false,
            Some(Node::Text(text)) => !text.is_empty() && !text.eq_ignore_ascii_case("false"),
            Some(Node::List(list)) => !list.is_empty(),
            Some(Node::Map(map)) => !map.is_empty(),
        };
        truth != condition.negated
    }

    fn lookup(&self, path: &str) -> Option<&Node> {
        self.data.lookup(path.split('.'))
    }

    /// A path that has a value and looks like this one.
    fn near(&self, path: &str) -> Option<String> {
        let leaves = self.data.leaves();
        let values = leaves.iter().filter(|(_, node)| **node != Node::Null).map(|(path, _)| path.as_str());
        closest(path, values).map(str::to_owned)
    }
}

fn line_of(source: &[u8], offset: usize) -> usize {
    source.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TEMPLATE_FILTERS_MAX;

    fn data() -> Node {
        let yaml = "kairos: {password: foobar}\ngithub: {user: mudler}\nempty: ''\noff: 'false'\nlist: [a, b]\nno: ~\n\
                    quoted: 'say \"hi\"'\nlines: \"one\\ntwo\"\nhas-dash: {x_1: v}\n";
        super::super::yaml::parse(yaml.as_bytes()).unwrap()
    }

    fn rendered(source: &str) -> Result<String, String> {
        match render(source.as_bytes(), &data(), &|line| format!("c.yaml:{line}")) {
            Ok(rendered) => Ok(String::from_utf8(rendered.bytes).unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn values_in_both_forms() {
        for (source, wanted) in [
            ("passwd: \"[[.kairos.password]]\"", "passwd: \"foobar\""),
            ("- github:[[.github.user]]\n", "- github:mudler\n"),
            ("[[[ .kairos.password ]]]", "foobar"),
            ("[[   .kairos.password\t]]x[[.github.user]]", "foobarxmudler"),
            ("[[ .list.1 ]][[ .has-dash.x_1 ]]", "bv"),
            ("a: [[[.list.0]], [[.list.1]]]", "a: [a, b]"),
            ("[[ .empty ]]", ""),
            ("é[[ .list.0 ]]é", "éaé"),
        ] {
            assert_eq!(rendered(source), Ok(wanted.to_owned()), "{source}");
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for source in [
            "if [[ -f /etc/x && ! -d /y ]]; then",
            "[[ \"$a\" == b ]] && [[ $x =~ ^[[:space:]]+$ ]]",
            "[[ ./x -nt ../y ]]",
            "[[plugins]]\n  [[plugins.opt]]\n",
            "a: [[1,2],[3,4]]",
            "[[.5, .7]]",
            "[[ . ]]",
            "[[ ..a ]]",
            "{{ trunc 4 .MachineID }} {% if .a %}",
            "[[",
            "[[[",
            "[ [.a] ]",
            "[[ ifs ]] [[ endless ]] [[ elsewhere ]]",
            "[[end.x]]",
            "\r\n\u{feff}\0",
        ] {
            assert_eq!(rendered(source), Ok(source.to_owned()));
        }
        let bytes = b"\xff[[ .list.0 ]]\xfe[[ \xff ]]".to_vec();
        let out = render(&bytes, &data(), &|_| String::new()).unwrap();
        assert_eq!(out.bytes, b"\xffa\xfe[[ \xff ]]");
    }

    #[test]
    fn filters() {
        for (source, wanted) in [
            ("[[ .nobody | default \"x y\" ]]", "x y"),
            ("[[ .nobody.at.all | default 8080 ]]", "8080"),
            ("[[ .no | default 'a\\b' ]]", "a\\b"),
            ("[[ .empty | default \"a ]] \\\"b\\\"\" ]]", "a ]] \"b\""),
            ("[[ .github.user | default \"x\" | upper ]]", "MUDLER"),
            ("[[ .nobody | default \"ABC\" | lower ]]", "abc"),
            ("[[ .nobody | default \" a \" | trim ]]", "a"),
            ("[[ .quoted | quote ]]", "\"say \\\"hi\\\"\""),
            ("[[ .list | json ]]", "[\"a\",\"b\"]"),
            ("[[ .kairos | json ]]", "{\"password\":\"foobar\"}"),
            ("[[ .github.user | b64enc ]]", "bXVkbGVy"),
            ("[[ .lines | indent 2 ]]", "  one\n  two"),
        ] {
            assert_eq!(rendered(source), Ok(wanted.to_owned()), "{source}");
        }
    }

    #[test]
    fn conditions() {
        for (source, wanted) in [
            ("[[ if .github.user ]]yes[[ else ]]no[[ end ]]", "yes"),
            ("[[if .nobody]]yes[[else]]no[[end]]", "no"),
            ("[[[ if not .nobody ]]]yes[[[ end ]]]", "yes"),
            ("[[ if .empty ]]1[[ else if .off ]]2[[ else if .list ]]3[[ else if .kairos ]]4[[ else ]]5[[ end ]]", "3"),
            ("[[ if .no ]][[ .nobody ]][[ if .list ]]x[[ else ]]y[[ end ]][[ end ]]z", "z"),
            ("[[ if .list ]]a[[ if .no ]]b[[ else ]]c[[ end ]]d[[ end ]]e", "acde"),
            ("[[ if .list ]]a[[ else if .kairos ]]b[[ else ]]c[[ end ]]", "a"),
        ] {
            assert_eq!(rendered(source), Ok(wanted.to_owned()), "{source}");
        }
    }

    #[test]
    fn each_mistake_names_its_line_and_what_to_do() {
        for (source, message) in [
            (
                "\n\n[[ .user.name ]]",
                "c.yaml:3: [[ .user.name ]] has no value; add it below `values:`, or --set user.name=VALUE",
            ),
            (
                "[[.kairos.pasword]]",
                "c.yaml:1: [[ .kairos.pasword ]] has no value; add it below `values:`, or --set kairos.pasword=VALUE (or did you mean .kairos.password?)",
            ),
            ("[[ .no ]]", "c.yaml:1: [[ .no ]] has no value; add it below `values:`, or --set no=VALUE"),
            (
                "[[ .nobody | upper ]]",
                "c.yaml:1: [[ .nobody ]] has no value; add it below `values:`, or --set nobody=VALUE",
            ),
            ("[[ .kairos ]]", "c.yaml:1: [[ .kairos ]] is a group of keys; name one of its values, or add `| json`"),
            ("[[ .list | upper ]]", "c.yaml:1: [[ .list | upper ]]: `upper` takes text, not a list"),
            ("a\n[[ .github.user ]\n]", "c.yaml:2: `[[ .github.user ]` is not closed on its line"),
            ("[[ .env -nt /x ]]", "c.yaml:1: [[ .env -nt /x ]] cannot be read: `-nt /x` behind the key"),
            ("[[ .a | ]]", "c.yaml:1: [[ .a | ]] cannot be read: a filter's name is missing behind `|`"),
            ("[[ .a. ]]", "c.yaml:1: [[ .a. ]] cannot be read: a part of the key is empty"),
            (
                "[[ .github.user | uper ]]",
                "c.yaml:1: [[ .github.user | uper ]]: there is no filter `uper`; there are default, ",
            ),
            ("[[ .a | default ]]", "c.yaml:1: [[ .a | default ]]: `default` needs a value, such as `default \"x\"`"),
            ("[[ .github.user | upper 2 ]]", "c.yaml:1: [[ .github.user | upper 2 ]]: `upper` takes no value"),
            ("[[ .github.user | indent x ]]", "c.yaml:1: [[ .github.user | indent x ]]: `indent` needs a number"),
            ("[[ .a | default \"x ]]", "c.yaml:1: `[[ .a | default \"x ]]` is not closed on its line"),
            (&format!("[[ .a {} ]]", "| trim".repeat(17)), "c.yaml:1: [[ .a | trim"),
            (
                "[[ if eq .a \"b\" ]]",
                "c.yaml:1: [[ if eq .a \"b\" ]] cannot be read: a condition is `.key` or `not .key`",
            ),
            ("[[ if .a ]]", "c.yaml:1: [[ if ]] without an [[ end ]]"),
            ("\n[[ end ]]", "c.yaml:2: [[ end ]] without an [[ if ]]"),
            (
                "a\n[[ range .list ]]\n- [[ .name ]]\n[[ end ]]",
                "c.yaml:2: [[ range … ]] is not supported; there are [[ .key | filter ]] and [[ if .key ]]",
            ),
            ("[[with .list]]\n[[ end ]]", "c.yaml:1: [[ with … ]] is not supported"),
            ("[[ end ]]\n[[ range .list ]]", "c.yaml:1: [[ end ]] without an [[ if ]]"),
            ("[[ else ]]", "c.yaml:1: [[ else ]] without an [[ if ]]"),
            ("[[ if .a ]][[ else ]]\n[[ else ]][[ end ]]", "c.yaml:2: a second [[ else ]] for one [[ if ]]"),
        ] {
            let error = rendered(source).unwrap_err();
            assert!(error.starts_with(message), "{source:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_line_of_brackets_takes_no_quadratic_time() {
        for brackets in ["[[ [[[", "[[["] {
            let source = brackets.repeat(1 << 17); // minutes, were the line's end looked for at each
            assert_eq!(rendered(&source), Ok(source));
        }
    }

    #[test]
    fn the_originals_language_is_told_apart_from_other_brackets() {
        let foreign = |source: &str| render(source.as_bytes(), &data(), &|line| line.to_string()).unwrap().foreign;
        for source in ["\n[[ range .list ]]", "\nx [[[ index .kairos \"password\" ]]]", "\n[[[[eq .a .b]]]]"] {
            assert_eq!(foreign(source), Some("2".to_owned()), "{source}");
        }
        for source in ["[[ -f /x ]]", "[[plugins]]", "[[range]]", "[[ with", "[[ .list.0 ]] or .x", "[[ order .x ]]"] {
            assert_eq!(foreign(source), None, "{source}");
        }
    }

    #[test]
    fn the_paths_a_template_names_are_known() {
        let source = "[[ if .a.b ]][[ .c ]][[ else ]][[ .d | default 1 ]][[ end ]]";
        let used = render(source.as_bytes(), &data(), &|_| String::new()).unwrap().used;
        assert_eq!(used.into_iter().collect::<Vec<_>>(), ["a.b", "c", "d"]);
    }

    #[test]
    fn nesting_and_growth_are_bounded() {
        let nested = |depth: usize| "[[ if .list ]]".repeat(depth) + &"[[ end ]]".repeat(depth);
        assert_eq!(rendered(&nested(TEMPLATE_IFS_NESTED_MAX)), Ok(String::new()));
        assert!(rendered(&nested(TEMPLATE_IFS_NESTED_MAX + 1)).unwrap_err().contains("within each other"));

        let mut data = Node::default();
        data.insert(["a"].into_iter(), &"x".repeat(1 << 20));
        let times = |n: usize| render("[[.a]]".repeat(n).as_bytes(), &data, &|_| String::new());
        assert_eq!(times(CLOUD_CONFIG_BYTES_MAX >> 20).unwrap().bytes.len(), CLOUD_CONFIG_BYTES_MAX);
        assert_eq!(
            times((CLOUD_CONFIG_BYTES_MAX >> 20) + 1).unwrap_err().problem,
            Problem::TooBig(CLOUD_CONFIG_BYTES_MAX)
        );

        let quoted = format!("[[.a | default '\"' | quote {}]]", "| quote ".repeat(TEMPLATE_FILTERS_MAX - 2));
        let mut data = Node::default();
        data.insert(["a"].into_iter(), &"\"".repeat(1 << 20));
        let error = render(quoted.as_bytes(), &data, &|_| String::new()).unwrap_err();
        assert_eq!(error.problem, Problem::TooBig(CLOUD_CONFIG_BYTES_MAX));
    }
}
