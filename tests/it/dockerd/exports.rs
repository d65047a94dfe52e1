//! Exporting images from real daemons.
