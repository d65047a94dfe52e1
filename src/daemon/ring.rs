//! The latest lines of a log, for who comes to look later than they were written.

use crate::limits;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Clones share one.
#[derive(Debug, Clone, Default)]
pub struct Ring(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    file: Option<Kept>,
}

/// A file that the lines go to as well, so that they outlive the power.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Ring {
    /// Keeps the lines in `path` too, from now on; what stands there from earlier comes before those that are here.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn keep_in(&self, path: &Path) -> io::Result<()> {
        let earlier = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut lines = self.lock();
        let mut kept = Kept::open(path)?;
        for line in &lines.lines {
            kept.write(line)?;
        }
        for line in earlier.into_iter().rev() {
            if lines.lines.len() >= limits::LOG_RING_LINES_MAX {
                break;
            }
            lines.lines.push_front(line);
        }
        lines.file = Some(kept);
        Ok(())
    }

    /// Closes the file, whose disk is about to go.
    pub fn let_go(&self) {
        self.lock().file = None;
    }

    pub fn push(&self, line: &str) {
        let mut lines = self.lock();
        if lines.lines.len() >= limits::LOG_RING_LINES_MAX {
            lines.lines.pop_front();
        }
        let line: String = line.chars().take(limits::LOG_RING_LINE_CHARS_MAX).collect();
        if let Some(kept) = &mut lines.file
            && kept.write(&line).is_err()
        {
            lines.file = None; // a full disk is told elsewhere, and the lines are still here
        }
        lines.lines.push_back(line);
    }

    /// Takes lines from a program until it has no more, and shows each to `echo`.
    pub fn take_from(&self, mut program: impl BufRead, mut echo: impl FnMut(&str)) {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let bound = 4 * limits::LOG_RING_LINE_CHARS_MAX as u64;
            match program.by_ref().take(bound).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let text = text.trim_end_matches(['\n', '\r']);
                    self.push(text);
                    echo(text);
                }
            }
        }
    }

    /// The oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// The file becomes the older one when it is full, and that one goes.
    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.bytes >= limits::LOG_FILE_BYTES_MAX {
            fs::rename(&self.path, self.path.with_extension("old"))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.bytes += line.len() as u64 + 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("auroraboot-ring-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_latest_lines_stay() {
        let ring = Ring::default();
        let text: String = (0..limits::LOG_RING_LINES_MAX + 5).map(|n| format!("line {n}\n")).collect();
        let mut echoed = 0;
        ring.take_from(text.as_bytes(), |_| echoed += 1);
        assert_eq!(echoed, limits::LOG_RING_LINES_MAX + 5);
        assert_eq!(ring.lines().len(), limits::LOG_RING_LINES_MAX);
        assert_eq!(ring.lines()[0], "line 5");
        ring.push(&"x".repeat(limits::LOG_RING_LINE_CHARS_MAX + 1));
        assert_eq!(ring.lines().pop().unwrap().len(), limits::LOG_RING_LINE_CHARS_MAX);
        ring.take_from(&b"\xff\xfe no line end"[..], |_| {});
        assert!(ring.lines().pop().unwrap().ends_with(" no line end"));
    }

    #[test]
    fn lines_outlive_the_program_and_their_file_is_bounded() {
        let folder = folder("kept");
        let path = folder.join("server.log");
        let ring = Ring::default();
        ring.push("before the disk was there");
        ring.keep_in(&path).unwrap();
        ring.push("after");
        let next = Ring::default();
        next.push("the next start");
        next.keep_in(&path).unwrap();
        assert_eq!(next.lines(), ["before the disk was there", "after", "the next start"]);
        let long = "x".repeat(limits::LOG_RING_LINE_CHARS_MAX);
        for _ in 0..3 * limits::LOG_FILE_BYTES_MAX / long.len() as u64 {
            next.push(&long);
        }
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&path) + size(&path.with_extension("old")) <= 2 * (limits::LOG_FILE_BYTES_MAX + 2048));
        fs::remove_dir_all(&folder).unwrap();
    }
}
