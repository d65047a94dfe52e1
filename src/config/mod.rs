//! Flags, file, --set and cloud config, resolved to one Config.
