//! Tests of tftp.
