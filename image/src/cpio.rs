//! Writes a cpio archive in the form that the kernel unpacks ("newc": Documentation/driver-api/early-userspace/buffer-format).

/// An archive that grows by one entry at a time. Names have no leading slash; folders come before what is in them.
#[derive(Debug)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
    /// Every entry's time.
    mtime: u32,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Cpio {
    /// `time` in seconds since 1970.
    pub fn new(time: u64) -> Self {
        Self { bytes: Vec::new(), inode: 0, mtime: u32::try_from(time).unwrap_or(u32::MAX) }
    }

    pub fn directory(&mut self, name: &str, mode: u32) {
        self.entry(name, DIRECTORY | mode, (0, 0), &[]);
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, FILE | mode, (0, 0), content);
    }

    pub fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, LINK | 0o777, (0, 0), target.as_bytes());
    }

    pub fn character_device(&mut self, name: &str, mode: u32, device: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE | mode, device, &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.mtime = 0;
        self.inode = u32::MAX; // the trailer's is 0
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.pad(512);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode = self.inode.wrapping_add(1);
        let links = if mode & DIRECTORY == DIRECTORY && mode & FILE != FILE { 2 } else { 1 };
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(b"070701");
        // Inode, mode, owner, group, links, time, size, device it is on, device it is, length of the name, no checksum.
        for field in [self.inode, mode, 0, 0, links, self.mtime, size, 0, 0, device.0, device.1, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, step: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(step), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_an_entry() {
        let mut cpio = Cpio::new(1);
        cpio.file("init", 0o755, b"abc");
        let bytes = cpio.finish();
        let text = String::from_utf8_lossy(&bytes);
        let header = "07070100000001000081ED00000000000000000000000100000001000000030000000000000000000000000000000000000005\
                      00000000init\0\0abc\0";
        assert_eq!(&text[..header.len()], header);
        assert_eq!(text.matches("TRAILER!!!\0").count(), 1);
        assert_eq!(bytes.len() % 512, 0);
    }
}
