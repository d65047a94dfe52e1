//! Taking bytes from a socket without looking at them: for load generators, whose copying would hide the server's cost.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Takes up to `length` bytes from a TCP `socket` and throws them away; 0 is the end of the stream.
///
/// # Errors
/// What `recv(2)` returns.
pub fn discard(socket: &impl AsFd, length: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes nothing (tcp(7)), so the null pointer is not used.
    let taken = unsafe { libc::recv(socket.as_fd().as_raw_fd(), std::ptr::null_mut(), length, libc::MSG_TRUNC) };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_is_discarded_is_gone_and_the_rest_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"0123456789").unwrap();
        drop(client);
        let mut discarded = 0;
        while discarded < 4 {
            discarded += discard(&server, 4 - discarded).unwrap();
        }
        let mut rest = String::new();
        server.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "456789");
        assert_eq!(discard(&server, 1).unwrap(), 0);
    }
}
