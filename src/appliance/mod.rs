//! The appliance: what the machine itself needs around the server, from the network up.

pub mod network;
