//! System calls that the standard library lacks: the only unsafe code.
#![allow(unsafe_code)]

pub mod port_holder;
pub mod sendfile;
