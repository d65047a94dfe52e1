//! The merged tree against what `umoci unpack` makes, and hostile layers.

mod hostile;
pub mod layers;
mod oracle;
