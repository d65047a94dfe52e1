//! What a cloud config will do, by a lenient look at it.
