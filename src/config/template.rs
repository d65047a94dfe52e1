//! Templates of the cloud config: `[[ .a.b ]]`, filters, `[[ if .a ]] … [[ else ]] … [[ end ]]`.

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);
