//! HTTP/1.1 request heads, ranges and responses, sans-IO.
