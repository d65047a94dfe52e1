//! The merged tree against what `umoci unpack` makes, what boots in it, and hostile layers.

mod boot;
mod hostile;
pub mod layers;
pub mod oracle;
