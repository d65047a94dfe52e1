//! The channel to whoever started this server and looks after it: questions in, answers out, a line each.
//!
//! It is a descriptor that was inherited, so there is no path that anybody else could open. When its other end has gone, so has the
//! supervisor, and the server ends.

use crate::daemon::monitor::Monitor;
use crate::daemon::stop::Stop;
use crate::limits;
use crate::status::{Question, Reply};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// Answers on `stream` in a thread of its own, and asks for the end when the stream ends.
///
/// # Errors
/// No descriptor or thread is left.
pub fn answer(stream: UnixStream, monitor: Monitor, stop: &Stop) -> io::Result<()> {
    let (reader, stop) = (stream.try_clone()?, stop.clone());
    let body = move || {
        let _ = converse(BufReader::new(reader), stream, &monitor); // however it ended, nobody asks any more
        stop.ask();
    };
    thread::Builder::new().name("control".to_owned()).spawn(body).map(drop)
}

fn converse(mut questions: impl BufRead, mut answers: impl Write, monitor: &Monitor) -> io::Result<()> {
    while let Some(line) = read_line(&mut questions)? {
        let reply = match serde_json::from_slice::<Question>(&line) {
            Ok(question) => monitor.answer(question),
            Err(error) => Reply::Refused(format!("not a question: {error}")),
        };
        answers.write_all(&to_line(&reply)?)?;
    }
    Ok(())
}

/// The other end: asks a server that was given a channel.
#[derive(Debug)]
pub struct Caller {
    answers: BufReader<UnixStream>,
}

impl Caller {
    /// Waits for each answer for so long; the product's is [`limits::CONTROL_PATIENCE`].
    ///
    /// # Errors
    /// The channel takes no time limit.
    pub fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { answers: BufReader::new(stream) })
    }

    /// Asks one question.
    ///
    /// # Errors
    /// The server has gone, or does not answer in time; the channel is of no use from then on.
    pub fn ask(&mut self, question: Question) -> io::Result<Reply> {
        self.answers.get_mut().write_all(&to_line(&question)?)?;
        let line = read_line(&mut self.answers)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        serde_json::from_slice(&line).map_err(io::Error::other)
    }
}

fn to_line(what: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// A line without its end; `None` at the end of the stream.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(limits::CONTROL_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the line is longer than any question or answer, or cut"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netboot::event::Event;
    use crate::status::Phase;
    use crate::units::MacAddr;
    use std::sync::mpsc;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn channel() -> (Caller, Monitor, Stop) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (monitor, stop) = (Monitor::default(), Stop::default());
        answer(theirs, monitor.clone(), &stop).unwrap();
        (Caller::new(ours, limits::CONTROL_PATIENCE).unwrap(), monitor, stop)
    }

    #[test]
    fn questions_are_answered_until_the_asker_has_gone() {
        let (mut caller, monitor, stop) = channel();
        let (ended, has_ended) = mpsc::channel();
        stop.tell(move || ended.send(()).unwrap());
        assert!(
            matches!(caller.ask(Question::Status).unwrap(), Reply::Status(status) if status.phase == Phase::Starting)
        );
        monitor.prepares("a:b");
        monitor.serves(Some("eth0 (10.0.0.1)".to_owned()), false, Vec::new());
        monitor.handle_input(&Event::Offered { mac: MAC, client: "BIOS".into() });
        let Reply::Status(status) = caller.ask(Question::Status).unwrap() else { panic!() };
        assert_eq!((status.image.as_deref(), status.netboot, status.machines.len()), (Some("a:b"), true, 1));
        assert!(matches!(caller.ask(Question::Machine(MAC)).unwrap(), Reply::Machine(steps) if steps.len() == 1));
        assert_eq!(caller.ask(Question::Health).unwrap(), Reply::Done);
        assert_eq!(caller.ask(Question::Netboot(false)).unwrap(), Reply::Done);
        let Reply::Status(status) = caller.ask(Question::Status).unwrap() else { panic!() };
        assert!(!status.netboot);
        assert!(!stop.is_asked());
        drop(caller);
        has_ended.recv().unwrap();
    }

    #[test]
    fn what_is_no_question_is_refused_and_an_endless_one_ends_the_channel() {
        let (mut caller, ..) = channel();
        caller.answers.get_mut().write_all(b"{\"nonsense\":1}\n").unwrap();
        let line = read_line(&mut caller.answers).unwrap().unwrap();
        assert!(
            matches!(serde_json::from_slice(&line).unwrap(), Reply::Refused(why) if why.starts_with("not a question"))
        );
        let monitor = Monitor::default();
        let endless = io::repeat(b'a').take(limits::CONTROL_LINE_BYTES_MAX as u64 + 1);
        assert!(converse(BufReader::new(endless), Vec::new(), &monitor).is_err());
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut caller = Caller::new(ours, Duration::from_millis(20)).unwrap();
        assert_eq!(caller.ask(Question::Health).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_server_without_machines_cannot_begin_to_answer_them() {
        let monitor = Monitor::default();
        monitor.serves(None, false, Vec::new());
        assert!(matches!(monitor.answer(Question::Netboot(true)), Reply::Refused(_)));
    }
}
