//! Tests of rootfs.
