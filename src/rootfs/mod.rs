//! The merged tree of an image's layers, without unpacking them.
