//! ProxyDHCP: packets, options, and what to answer to whom.
