//! Tests of netboot.
