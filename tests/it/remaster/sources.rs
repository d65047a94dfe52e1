//! Images as our writer, xorriso, grub-mkrescue, isolinux, isohybrid and genisoimage make them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use auroraboot::iso::{Bios, Boot, Options, Writer};
use auroraboot::storage::Storage;

use super::judge::{tool, tool_in};

/// An image in memory.
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    pub fn len(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Storage for Memory {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut image = self.0.lock().unwrap();
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if image.len() < end {
            image.resize(end, 0);
        }
        image[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let image = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start.checked_add(bytes.len()).and_then(|end| image.get(start..end));
        bytes.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
}

/// Bytes that no two blocks have in common.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// As the product makes it, in small.
pub fn own() -> Vec<u8> {
    let out = Arc::new(Memory::new(Vec::new()));
    let options = Options { volume_id: "COS_LIVE", mtime: 1_700_000_000, application: "AURORABOOT TEST" };
    let mut writer = Writer::new(Arc::clone(&out), options).unwrap();
    let long = format!("{} long.txt", "n".repeat(200));
    for (path, len) in [
        ("rootfs.squashfs", 300_001),
        ("boot/kernel", 10_000),
        ("boot/eltorito.img", 50_000),
        (&long, 5),
        ("config.yaml", 9),
    ] {
        writer.add_file(path, len, &mut noise(len as usize, len).as_slice(), 0o644).unwrap();
    }
    let (esp, mbr) = (noise(1 << 20, 9), noise(512, 4));
    let bios = Bios { image: "boot/eltorito.img", mbr: &mbr };
    writer.finish(&Boot { bios: Some(bios), esp: Some(&esp) }).unwrap();
    out.bytes()
}

/// The files of an image: names that are short, long and many, links, directories deeper than ISO 9660 allows.
pub fn tree(dir: &Path) -> PathBuf {
    let root = dir.join("tree");
    let _ = fs::remove_dir_all(&root);
    for sub in ["boot/grub", "isolinux", "dir/sub", "EFI/BOOT", "1/2/3/4/5/6/7/8/9/10", "1/2/3/4/5/6/7/8b/x"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    for (path, len) in
        [("boot/kernel", 300_000), ("boot/efi.img", 1 << 20), ("config.yaml", 100), ("1/2/3/4/5/6/7/8/9/10/f", 5)]
    {
        fs::write(root.join(path), noise(len, len as u64)).unwrap();
    }
    for index in 0..60 {
        fs::write(root.join(format!("dir/some longer name of file {index}.txt")), format!("{index}")).unwrap();
    }
    symlink("boot/kernel", root.join("link")).unwrap();
    root
}

fn made(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("source.iso")).unwrap()
}

pub fn xorriso(dir: &Path, options: &[&str]) -> Vec<u8> {
    let fixed = ["-as", "mkisofs", "-V", "TEST", "-o", "source.iso"];
    tool_in(dir, "xorriso", &[&fixed, options, &["tree"]].concat());
    made(dir)
}

/// GRUB for BIOS, the EFI system partition behind the volume, partition 1 a volume of its own: what the original makes.
pub fn appended(dir: &Path) -> Vec<u8> {
    let root = tree(dir);
    let modules = ["biosdisk", "iso9660", "normal"];
    let core = ["-O", "i386-pc", "-o", "core.img", "-p", "/boot/grub"];
    tool_in(dir, "grub-mkimage", &[&core[..], &modules].concat());
    let mut image = fs::read("/usr/lib/grub/i386-pc/cdboot.img").unwrap();
    image.extend(fs::read(dir.join("core.img")).unwrap());
    fs::write(root.join("boot/eltorito.img"), image).unwrap();
    let options = "-R -J -c boot/boot.catalog --grub2-mbr /usr/lib/grub/i386-pc/boot_hybrid.img -partition_offset 16 \
        --mbr-force-bootable -b boot/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info \
        -eltorito-alt-boot -append_partition 2 0xef tree/boot/efi.img -appended_part_as_gpt \
        -e --interval:appended_partition_2:all:: -no-emul-boot";
    xorriso(dir, &options.split_whitespace().collect::<Vec<_>>())
}

pub fn patched_by_xorriso(dir: &Path, in_place: bool) -> Vec<u8> {
    appended(dir);
    fs::write(dir.join("added"), "by xorriso").unwrap();
    let out = if in_place { "source.iso" } else { "new.iso" };
    let session = ["-map", "added", "/added by xorriso", "-boot_image", "any", "replay"];
    tool_in(dir, "xorriso", &[&["-indev", "source.iso", "-outdev", out][..], &session].concat());
    fs::read(dir.join(out)).unwrap()
}

pub fn grub_mkrescue(dir: &Path) -> Vec<u8> {
    tree(dir);
    tool_in(dir, "grub-mkrescue", &["-o", "source.iso", "tree"]);
    made(dir)
}

const ISOLINUX: &str = "-b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
    -eltorito-alt-boot -e boot/efi.img -no-emul-boot";

/// A CD that is a USB stick, too: by xorriso, or by genisoimage and isohybrid.
pub fn isolinux(dir: &Path, isohybrid: bool) -> Vec<u8> {
    let root = tree(dir);
    fs::copy("/usr/lib/ISOLINUX/isolinux.bin", root.join("isolinux/isolinux.bin")).unwrap();
    if isohybrid {
        let options = format!("-R -J -V TEST -o source.iso {ISOLINUX} tree");
        tool_in(dir, "genisoimage", &options.split_whitespace().collect::<Vec<_>>());
        tool_in(dir, "isohybrid", &["-u", "source.iso"]);
        return made(dir);
    }
    let options = format!("-R -J -isohybrid-mbr /usr/lib/ISOLINUX/isohdpfx.bin {ISOLINUX} -isohybrid-gpt-basdat");
    xorriso(dir, &options.split_whitespace().collect::<Vec<_>>())
}

pub fn genisoimage(dir: &Path, options: &str) -> Vec<u8> {
    tree(dir);
    let fixed = ["-quiet", "-V", "TEST", "-o", "source.iso"];
    let options: Vec<&str> = options.split_whitespace().collect();
    let relaxed: &[&str] = if options.contains(&"-R") { &[] } else { &["-D"] };
    tool(Some(dir), "genisoimage", &[&fixed, relaxed, &options, &["tree"]].concat());
    made(dir)
}
