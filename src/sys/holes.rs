//! Where a sparse file has data.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The first stretch of data at or behind `offset`: its beginning and its end. `None` if there is nothing but holes up to the end.
/// On a file system that does not know, everything is data. Moves the position of `file`: read it with offsets.
///
/// # Errors
/// What `lseek(2)` returns.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let stretch =
        seek(file, offset, libc::SEEK_DATA).and_then(|start| Ok((start, seek(file, start, libc::SEEK_HOLE)?)));
    match stretch {
        Ok(stretch) => Ok(Some(stretch)),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        // Linux before 3.1, and file systems that hand the call on to a server that lacks it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Some((offset, u64::MAX))),
        Err(error) => Err(error),
    }
}

fn seek(file: &File, offset: u64, whence: i32) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointers are passed, and the descriptor is open.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_is_found_between_holes() {
        let path = std::env::temp_dir().join(format!("auroraboot-holes-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(next_data(&file, 0).unwrap(), None, "empty");
        file.set_len(4 << 20).unwrap();
        file.write_all_at(b"data", 1 << 20).unwrap();
        let (start, end) = next_data(&file, 0).unwrap().unwrap();
        assert!(start <= 1 << 20 && end >= (1 << 20) + 4, "{start} to {end}");
        // A file system without holes ends its data where the file ends.
        if end < 4 << 20 {
            assert_eq!(next_data(&file, end).unwrap(), None);
        }
        assert_eq!(next_data(&file, 4 << 20).unwrap(), None, "behind the end");
    }
}
