//! What a `| filter` does to a value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::expression::Filter;
use crate::config::node::Node;
use crate::limits::CLOUD_CONFIG_BYTES_MAX;

/// Why a filter does not work on a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("there is no value")]
    NoInput,
    #[error("there is no filter `{0}`; there are default, upper, lower, trim, quote, json, b64enc and indent")]
    Unknown(String),
    #[error("`{0}` takes text, not {1}")]
    NotText(&'static str, &'static str),
    #[error("`{0}` takes no value")]
    Argument(&'static str),
    #[error("`{0}` needs {1}")]
    NoArgument(&'static str, &'static str),
}

/// Applies one filter; only `default` takes what is not there.
pub fn apply(filter: &Filter<'_>, value: Option<Node>) -> Result<Option<Node>, FilterError> {
    let text = match filter.name {
        "default" => {
            let argument = filter.argument.as_deref();
            let argument = argument.ok_or(FilterError::NoArgument("default", "a value, such as `default \"x\"`"))?;
            return Ok(match value {
                None | Some(Node::Null) => Some(Node::Text(argument.to_owned())),
                Some(Node::Text(text)) if text.is_empty() => Some(Node::Text(argument.to_owned())),
                there => there,
            });
        }
        "upper" => plain("upper", filter, value)?.to_uppercase(),
        "lower" => plain("lower", filter, value)?.to_lowercase(),
        "trim" => plain("trim", filter, value)?.trim().to_owned(),
        "b64enc" => STANDARD.encode(plain("b64enc", filter, value)?),
        "quote" => json(&Node::Text(plain("quote", filter, value)?)).to_string(),
        "json" => {
            no_argument("json", filter)?;
            json(&present(value)?).to_string()
        }
        "indent" => {
            let needs = FilterError::NoArgument("indent", "a number, such as `indent 4`");
            let width = filter.argument.as_deref().and_then(|width| width.parse::<u8>().ok()).ok_or(needs)?;
            indent(&text("indent", value)?, width.into())
        }
        unknown => return Err(FilterError::Unknown(unknown.chars().take(40).collect())),
    };
    Ok(Some(Node::Text(text)))
}

/// The input of a filter without argument that works on text.
fn plain(name: &'static str, filter: &Filter<'_>, value: Option<Node>) -> Result<String, FilterError> {
    no_argument(name, filter)?;
    text(name, value)
}

fn no_argument(name: &'static str, filter: &Filter<'_>) -> Result<(), FilterError> {
    if filter.argument.is_some() { Err(FilterError::Argument(name)) } else { Ok(()) }
}

fn text(name: &'static str, value: Option<Node>) -> Result<String, FilterError> {
    match present(value)? {
        Node::Text(text) => Ok(text),
        other => Err(FilterError::NotText(name, other.kind())),
    }
}

fn present(value: Option<Node>) -> Result<Node, FilterError> {
    value.filter(|node| *node != Node::Null).ok_or(FilterError::NoInput)
}

/// JSON is YAML too, so this is how a value gets into a cloud config whatever characters it has.
fn json(node: &Node) -> serde_json::Value {
    match node {
        Node::Null => serde_json::Value::Null,
        Node::Text(text) => text.as_str().into(),
        Node::List(list) => list.iter().map(json).collect(),
        Node::Map(map) => map.iter().map(|(key, node)| (key.clone(), json(node))).collect(),
    }
}

/// Every line moved right, as a YAML block wants it.
fn indent(text: &str, width: usize) -> String {
    let margin = " ".repeat(width);
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if out.len() > CLOUD_CONFIG_BYTES_MAX {
            break; // too long for any cloud config already; the renderer refuses it
        }
        out.push_str(&margin);
        out.push_str(line);
    }
    out
}
