//! What a running server tells of itself, and the questions that it takes: plain data, the same for every console.
//!
//! One question is one line of JSON, and so is its answer; who asks and over which channel is not known here.

use crate::units::MacAddr;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A question to a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    Status,
    /// What happened to one machine, step by step.
    Machine(MacAddr),
    /// Answer machines that boot from the network, or leave them alone.
    Netboot(bool),
    /// Whether every loop still turns.
    Health,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Status(Status),
    Machine(Vec<Step>),
    Done,
    /// One sentence for the operator.
    Refused(String),
}

/// What the server does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub phase: Phase,
    /// What is booted, in a few words and without secrets.
    pub image: Option<String>,
    /// How far a download or a build is, in the words of the log.
    pub progress: Option<String>,
    /// On which interfaces and addresses machines are served.
    pub serving: Option<String>,
    /// Whether machines that boot from the network are answered.
    pub netboot: bool,
    /// Those seen lately, the latest first.
    pub machines: Vec<Machine>,
}

/// How far the server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Starting,
    /// It fetches or builds the image.
    Preparing,
    Serving,
    Stopping,
}

/// A machine that was seen lately, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub mac: MacAddr,
    pub address: Option<IpAddr>,
    /// Such as `kernel sent` or `has everything`.
    pub state: String,
    /// Seconds since this boot of it was first seen.
    pub since: u64,
    /// Seconds since it was seen last.
    pub last: u64,
}

/// One thing that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds since the first step that is kept.
    pub at_ms: u64,
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answer_are_a_line_each() {
        let mac = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let line = serde_json::to_string(&Question::Machine(mac)).unwrap();
        assert_eq!(line, r#"{"machine":"52:54:00:12:34:56"}"#);
        assert_eq!(serde_json::from_str::<Question>(&line).unwrap(), Question::Machine(mac));
        let steps = vec![Step { at_ms: 1, what: "a\nb".to_owned() }];
        let line = serde_json::to_string(&Reply::Machine(steps.clone())).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), Reply::Machine(steps));
        assert!(serde_json::from_str::<Question>(r#"{"machine":"no"}"#).is_err());
    }
}
