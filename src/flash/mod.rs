//! USB sticks: which devices may be written, what is written in which order, and what people see of it.
//!
//! ```text
//!  --to /dev/sdb ─▶ host: which disk is it, what uses it ─▶ checks: refusal, or a Target ─▶ question ─▶ write ▸ verify
//!  ISO, disk     ─▶ image: is it one, whole, which checksum ─┘        plan: order and sizes ─┘
//! ```
//! A stick boots only when all of it was read back and found equal: its first MiB is zeroed first and written last ([`write`]).
//! The kernel is read through [`host::Host`], which can be pointed at a copy of `/sys` and `/proc`.

pub mod checks;
pub mod contents;
pub mod host;
pub mod image;
pub mod plan;
pub mod progress;
pub mod question;
#[cfg(test)]
mod testing;
pub mod text;
pub mod write;
