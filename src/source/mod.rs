//! Where images come from: OCI registries.
