//! A multi-core squashfs 4.0 writer.
