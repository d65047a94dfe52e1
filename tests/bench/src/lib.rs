//! What the load generators share.
