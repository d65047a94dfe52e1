//! TFTP (RFC 1350, 2347-2349, 7440) as a sans-IO core.
