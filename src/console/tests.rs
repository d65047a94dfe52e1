//! Whole dialogs, as traces of keys and screens.
