//! Tests of dhcp.
