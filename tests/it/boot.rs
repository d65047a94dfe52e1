//! Tests of boot.
