//! Who is served what: machines, scripts, names, events.
