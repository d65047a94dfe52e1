//! Tests of squashfs.
