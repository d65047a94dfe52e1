//! What the kernel tells of the disks of this host: which there are, and what uses them.
//!
//! Everything is read from `/sys` and `/proc`, so a copy of them will do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::text::clean;
use crate::limits::HOLDERS_NESTED_MAX;
use crate::sys::block::Number;

/// Where `/sys` and `/proc` are, and how a path becomes a device number.
#[derive(Debug, Clone)]
pub struct Host {
    sys: PathBuf,
    proc: PathBuf,
    number_at: fn(&Host, &Path) -> Option<Number>,
}

/// How far a disk is from being a stick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On USB, removable, or an SD card.
    Stick,
    /// Built in, or something else that nobody carries around.
    Internal,
    /// A file behind a loop device, as the disks of virtual machines are.
    Loop,
    /// A CD or DVD drive.
    Optical,
    /// Made of other disks: LVM, dm-crypt, RAID.
    Mapping,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub number: Number,
    /// The kernel's name, such as `sdb`.
    pub name: String,
    /// The device, such as `/dev/sdb`.
    pub node: PathBuf,
    pub kind: Kind,
    /// How it is attached: `USB`, `SD card`, `SATA`, `NVMe` …
    pub transport: &'static str,
    pub removable: bool,
    pub read_only: bool,
    /// Bytes; 0 when no medium is in it.
    pub size: u64,
    /// Vendor and model as they may be shown; empty when it does not say.
    pub model: String,
    pub serial: String,
    pub partitions: Vec<Partition>,
}

/// A partition that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub number: Number,
    pub node: PathBuf,
    /// By which the partition table, and the kernel, know it.
    pub index: u32,
    /// Bytes from the disk's beginning.
    pub offset: u64,
    pub size: u64,
}

/// What a device number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Disk(Disk),
    /// A partition, and the disk that it is on.
    Partition {
        node: PathBuf,
        disk: PathBuf,
    },
}

/// Something that would break if the disk were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The disk or the partition of it.
    pub node: PathBuf,
    /// Between the disk and what uses it, such as `dm-0`; empty when nothing is.
    pub through: Vec<String>,
    pub by: By,
}

/// What uses a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    Mount(PathBuf),
    Swap,
    /// A loop device, a compressed memory disk.
    Backing(String),
    /// A volume on it that nothing uses in turn.
    Volume,
}

/// A line of `mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    number: Number,
    source: PathBuf,
    at: PathBuf,
}

/// `/sys` counts in 512 bytes whatever the disk does.
const SECTOR: u64 = 512;

impl Host {
    /// This host.
    #[must_use]
    pub fn new() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), number_at: |_, path| Number::at(path) }
    }

    /// A tree that a test made: names below `/dev` are looked up where the kernel would list them.
    #[cfg(test)]
    pub(super) fn fake(root: &Path) -> Self {
        let number_at =
            |host: &Self, path: &Path| number(&host.sys.join("class/block").join(path.strip_prefix("/dev").ok()?));
        Self { sys: root.join("sys"), proc: root.join("proc"), number_at }
    }

    /// The number of the block device at `path`.
    #[must_use]
    pub fn number_at(&self, path: &Path) -> Option<Number> {
        (self.number_at)(self, path)
    }

    /// What the device number stands for; `None` when the kernel does not know it (any more).
    #[must_use]
    pub fn find(&self, number: Number) -> Option<Found> {
        let directory = fs::canonicalize(self.sys.join(format!("dev/block/{number}"))).ok()?;
        if !directory.join("partition").exists() {
            return self.disk(&directory).map(Found::Disk);
        }
        Some(Found::Partition { node: node(&directory)?, disk: node(directory.parent()?)? })
    }

    /// Every disk with a medium in it, by name.
    #[must_use]
    pub fn disks(&self) -> Vec<Disk> {
        let mut disks: Vec<Disk> = entries(&self.sys.join("block"))
            .filter_map(|name| self.disk(&fs::canonicalize(self.sys.join("block").join(name)).ok()?))
            .filter(|disk| disk.size > 0)
            .collect();
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        disks
    }

    fn disk(&self, directory: &Path) -> Option<Disk> {
        let name = directory.file_name()?.to_str()?.to_owned();
        let removable = flag(directory, "removable");
        let (kind, transport) = self.classify(directory, &name, removable);
        let number = number(directory)?;
        let sectors: u64 = attribute(directory, "size")?.parse().ok()?;
        let mut partitions: Vec<Partition> =
            entries(directory).filter_map(|entry| partition(&directory.join(entry))).collect();
        partitions.sort_by_key(|partition| (partition.offset, partition.number));
        Some(Disk {
            number,
            node: node(directory)?,
            kind,
            transport,
            removable,
            read_only: flag(directory, "ro"),
            size: sectors.saturating_mul(SECTOR),
            model: model(directory),
            serial: serial(directory),
            partitions,
            name,
        })
    }

    /// What the path of a device in `/sys` and its attributes tell of its bus.
    fn classify(&self, directory: &Path, name: &str, removable: bool) -> (Kind, &'static str) {
        let inside = directory.strip_prefix(fs::canonicalize(&self.sys).unwrap_or_default()).unwrap_or(directory);
        let on = |bus: &str| inside.components().any(|part| is_numbered(&part.as_os_str().to_string_lossy(), bus));
        let device = directory.join("device");
        if is_numbered(name, "loop") {
            (Kind::Loop, "loop device")
        } else if is_numbered(name, "dm-")
            || is_numbered(name, "md")
            || entries(&directory.join("slaves")).next().is_some()
        {
            (Kind::Mapping, "volume")
        } else if is_numbered(name, "sr") || attribute(&device, "type").as_deref() == Some(SCSI_TYPE_ROM) {
            (Kind::Optical, "optical drive")
        } else if on("usb") {
            (Kind::Stick, "USB")
        } else if name.starts_with("mmcblk") {
            // eMMC is soldered in; an SD card is not, though the kernel does not call it removable.
            if attribute(&device, "type").as_deref() == Some("SD") {
                (Kind::Stick, "SD card")
            } else {
                (Kind::Internal, "eMMC")
            }
        } else {
            let transports =
                [("nvme", "NVMe"), ("ata", "SATA"), ("virtio", "virtio"), ("session", "iSCSI"), ("host", "SCSI")];
            let transport = transports.into_iter().find(|(bus, _)| on(bus)).map_or("unknown bus", |(_, name)| name);
            (if removable { Kind::Stick } else { Kind::Internal }, transport)
        }
    }

    /// Everything that uses the disk or a partition of it, as far as this namespace can see.
    #[must_use]
    pub fn usages(&self, disk: &Disk) -> Vec<Usage> {
        let (mounts, swaps, backings) = (self.mounts(), self.swaps(), self.backings());
        let mut found = Vec::new();
        let parts = disk.partitions.iter().map(|partition| (partition.number, &partition.node));
        for (number, node) in std::iter::once((disk.number, &disk.node)).chain(parts) {
            for (number, through) in self.stack(number) {
                let mut add = |by| found.push(Usage { node: node.clone(), through: through.clone(), by });
                let mounted = mounts.iter().filter(|mount| self.is_of(mount, number));
                let ats: BTreeSet<&PathBuf> = mounted.map(|mount| &mount.at).collect();
                ats.into_iter().for_each(|at| add(By::Mount(at.clone())));
                if swaps.contains(&number) {
                    add(By::Swap);
                }
                backings.iter().filter(|(_, on)| *on == number).for_each(|(name, _)| add(By::Backing(name.clone())));
                if !through.is_empty() {
                    add(By::Volume);
                }
            }
        }
        // A volume is worth naming only when nothing says what it is for.
        if found.iter().any(|usage| usage.by != By::Volume) {
            found.retain(|usage| usage.by != By::Volume);
        }
        found
    }

    /// Whether the file at `path` lies on one of these usages' file systems.
    #[must_use]
    pub fn lies_on(&self, path: &Path, usages: &[Usage]) -> bool {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mounts = self.mounts();
        let below = mounts.iter().filter(|mount| path.starts_with(&mount.at));
        // Of two mounts at one place the later hides the other.
        let Some(own) = below.max_by_key(|mount| mount.at.components().count()) else { return false };
        usages.iter().any(|usage| usage.by == By::Mount(own.at.clone()))
    }

    /// The device and all volumes on it: RAID, LVM, dm-crypt name what they are made of.
    fn stack(&self, number: Number) -> Vec<(Number, Vec<String>)> {
        let mut all: Vec<(Number, Vec<String>)> = vec![(number, Vec::new())];
        let mut next = 0;
        while let Some((number, through)) = all.get(next).cloned() {
            next += 1;
            if through.len() >= HOLDERS_NESTED_MAX {
                continue;
            }
            for name in entries(&self.sys.join(format!("dev/block/{number}/holders"))) {
                let directory = self.sys.join("class/block").join(&name);
                let Some(holder) = self::number(&directory) else { continue };
                if all.iter().any(|(known, _)| *known == holder) {
                    continue;
                }
                let called = attribute(&directory, "dm/name").map(|called| format!("{name} ({})", clean(&called)));
                let mut through = through.clone();
                through.push(called.unwrap_or(name));
                all.push((holder, through));
            }
        }
        all
    }

    /// btrfs and overlays number their mounts on their own, so the source is looked at as well.
    fn is_of(&self, mount: &Mount, number: Number) -> bool {
        mount.number == number || (mount.source.is_absolute() && self.number_at(&mount.source) == Some(number))
    }

    fn mounts(&self) -> Vec<Mount> {
        let text = fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        text.lines().filter_map(parse_mount).collect()
    }

    fn swaps(&self) -> Vec<Number> {
        let text = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        let paths = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        paths.filter_map(|path| self.number_at(Path::new(&unescape(path)))).collect()
    }

    /// What loop devices and zram stand on, when that is a block device.
    fn backings(&self) -> Vec<(String, Number)> {
        let block = self.sys.join("block");
        let backing = |name: String| {
            let directory = block.join(&name);
            let path = attribute(&directory, "loop/backing_file").or_else(|| attribute(&directory, "backing_dev"))?;
            self.number_at(Path::new(&path)).map(|number| (name, number))
        };
        entries(&block).filter_map(backing).collect()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// `TYPE_ROM` of SCSI.
const SCSI_TYPE_ROM: &str = "5";

/// Whether `text` is `prefix` and a number behind it.
fn is_numbered(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn entries(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let found = fs::read_dir(directory).into_iter().flatten();
    found.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// One line of an attribute, without what stands around it; `None` when it is not there or says nothing.
fn attribute(directory: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(directory.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn flag(directory: &Path, name: &str) -> bool {
    attribute(directory, name).as_deref() == Some("1")
}

fn number(directory: &Path) -> Option<Number> {
    parse_number(&attribute(directory, "dev")?)
}

fn parse_number(text: &str) -> Option<Number> {
    let (major, minor) = text.split_once(':')?;
    Some(Number { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// The device's path: `DEVNAME` of its uevent, which has the `/` that the directory's name cannot have (`cciss/c0d0`).
fn node(directory: &Path) -> Option<PathBuf> {
    let uevent = attribute(directory, "uevent")?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

fn partition(directory: &Path) -> Option<Partition> {
    let index = attribute(directory, "partition")?.parse().ok()?;
    let sectors = |name| attribute(directory, name)?.parse::<u64>().ok().map(|count| count.saturating_mul(SECTOR));
    Some(Partition {
        number: number(directory)?,
        node: node(directory)?,
        index,
        offset: sectors("start")?,
        size: sectors("size")?,
    })
}

/// The vendor and the model; a USB stick's own descriptors come second, since a hub's or a card reader's slots differ only in SCSI's.
fn model(directory: &Path) -> String {
    if let Some(file) = attribute(directory, "loop/backing_file") {
        return format!("the file {}", clean(&file));
    }
    let device = directory.join("device");
    let of =
        |directory: &Path, names: [&str; 2]| names.map(|name| attribute(directory, name).unwrap_or_default()).join(" ");
    let said = clean(&of(&device, ["vendor", "model"]));
    // virtio's `vendor` is a number.
    if !said.is_empty() && !said.starts_with("0x") {
        return said;
    }
    if let Some(name) = attribute(&device, "name") {
        return clean(&name);
    }
    usb_device(directory).map(|usb| clean(&of(&usb, ["manufacturer", "product"]))).unwrap_or_default()
}

fn serial(directory: &Path) -> String {
    let own = ["device/serial", "serial"].into_iter().find_map(|name| attribute(directory, name));
    let usb = || attribute(&usb_device(directory)?, "serial");
    clean(&own.or_else(usb).unwrap_or_default())
}

/// The USB device that a disk is a part of.
fn usb_device(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find(|above| above.join("idVendor").exists()).map(Path::to_owned)
}

/// Fields of proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, options, optional ones up to `-`, type, source.
fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    let source = after.split(' ').nth(1)?;
    Some(Mount {
        number: parse_number(before.get(2)?)?,
        source: unescape(source).into(),
        at: unescape(before.get(4)?).into(),
    })
}

/// Undoes `\040` and its like, as the kernel writes spaces.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                plain.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                plain.push(b'\\');
                plain.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, SATA, USB};
    use super::*;

    fn disk(fake: &FakeHost, number: &str) -> Disk {
        match fake.host().find(parse_number(number).unwrap()) {
            Some(Found::Disk(disk)) => disk,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stick_is_known_by_its_bus_its_names_and_its_partitions() {
        let fake = FakeHost::new("stick");
        fake.disk(
            USB,
            "sdb",
            "8:16",
            62_500_000,
            &[("device/vendor", "SanDisk \n"), ("device/model", "Ultra USB 3.0   ")],
        );
        fake.attributes(USB, &[("../../../serial", "4C530001230\n"), ("../../../idVendor", "0781\n")]);
        fake.partition(USB, "sdb", "sdb1", "8:17", 2048, 62_000_000);
        let stick = disk(&fake, "8:16");
        assert_eq!((stick.kind, stick.transport, stick.size), (Kind::Stick, "USB", 32_000_000_000));
        assert_eq!((stick.model.as_str(), stick.serial.as_str()), ("SanDisk Ultra USB 3.0", "4C530001230"));
        assert_eq!(stick.node, Path::new("/dev/sdb"));
        let [partition] = &stick.partitions[..] else { panic!("{stick:?}") };
        assert_eq!((partition.offset, partition.size), (1 << 20, 31_744_000_000));
        let found = fake.host().find(partition.number);
        assert_eq!(found, Some(Found::Partition { node: "/dev/sdb1".into(), disk: "/dev/sdb".into() }));
        assert_eq!(fake.host().find(Number { major: 8, minor: 99 }), None);
        assert_eq!(fake.host().usages(&stick), []);
    }

    #[test]
    fn what_is_a_stick_and_what_is_not() {
        for (at, name, attributes, kind, transport) in [
            (USB, "sdb", &[][..], Kind::Stick, "USB"),
            (SATA, "sda", &[], Kind::Internal, "SATA"),
            (SATA, "sda", &[("removable", "1")], Kind::Stick, "SATA"),
            ("devices/pci0/nvme/nvme0", "nvme0n1", &[("device/model", "Samsung")], Kind::Internal, "NVMe"),
            ("devices/pci0/virtio2", "vda", &[("device/vendor", "0x1af4")], Kind::Internal, "virtio"),
            ("devices/mmc_host/mmc0/mmc0:1", "mmcblk0", &[("device/type", "SD")], Kind::Stick, "SD card"),
            ("devices/mmc_host/mmc1/mmc1:1", "mmcblk1", &[("device/type", "MMC")], Kind::Internal, "eMMC"),
            (USB, "sr0", &[("device/type", "5"), ("removable", "1")], Kind::Optical, "optical drive"),
            ("devices/virtual", "loop0", &[("loop/backing_file", "/a.img")], Kind::Loop, "loop device"),
            ("devices/virtual", "dm-0", &[("slaves/sdb", "")], Kind::Mapping, "volume"),
            ("devices/virtual", "md127", &[], Kind::Mapping, "volume"),
            ("devices/virtual", "zram0", &[], Kind::Internal, "unknown bus"),
            ("devices/virtual", "bcache0", &[("slaves/sdb", "")], Kind::Mapping, "volume"),
            // A USB controller on the way is no USB disk.
            ("devices/usbfoo/ata2/host1", "sdc", &[], Kind::Internal, "SATA"),
        ] {
            let fake = FakeHost::new("kinds");
            fake.disk(at, name, "8:0", 1000, attributes);
            let disk = disk(&fake, "8:0");
            assert_eq!((disk.kind, disk.transport), (kind, transport), "{name} {at}");
            assert!(!disk.model.contains("0x"), "{disk:?}");
        }
    }

    #[test]
    fn mounts_swap_volumes_and_what_stands_on_them_are_usages() {
        let fake = FakeHost::new("usages");
        fake.disk(SATA, "sda", "8:0", 1_000_000, &[]);
        for (name, number) in [("sda1", "8:1"), ("sda2", "8:2"), ("sda3", "8:3"), ("sda4", "8:4")] {
            fake.partition(SATA, "sda", name, number, 2048, 1000);
        }
        fake.disk("devices/virtual", "dm-0", "253:0", 900, &[("dm/name", "crypt"), ("slaves/sda3", "")]);
        fake.disk("devices/virtual", "dm-1", "253:1", 900, &[("dm/name", "vg-root"), ("slaves/dm-0", "")]);
        fake.file("sys/class/block/sda3/holders/dm-0", "");
        fake.file("sys/class/block/dm-0/holders/dm-1", "");
        fake.disk("devices/virtual", "loop7", "7:7", 900, &[("loop/backing_file", "/dev/sda4")]);
        fake.file(
            "proc/self/mountinfo",
            "21 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw\n\
             22 21 8:1 / /boot\\040efi rw shared:1 - vfat /dev/sda1 rw\n\
             23 21 0:31 /sub /data rw - btrfs /dev/sda1 rw\nnonsense\n",
        );
        fake.file(
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n/swapfile file 1 0 -3\n",
        );
        let usages = fake.host().usages(&disk(&fake, "8:0"));
        let told: Vec<String> =
            usages.iter().map(|usage| format!("{} {:?} {:?}", usage.node.display(), usage.through, usage.by)).collect();
        assert_eq!(
            told,
            [
                "/dev/sda1 [] Mount(\"/boot efi\")",
                "/dev/sda1 [] Mount(\"/data\")",
                "/dev/sda2 [] Swap",
                "/dev/sda3 [\"dm-0 (crypt)\", \"dm-1 (vg-root)\"] Mount(\"/\")",
                "/dev/sda4 [] Backing(\"loop7\")",
            ]
        );
        assert!(fake.host().lies_on(Path::new("/"), &usages));
        assert!(!fake.host().lies_on(Path::new("/"), &usages[..3]));
    }

    #[test]
    fn a_volume_that_nothing_uses_is_a_usage_and_circles_end() {
        let fake = FakeHost::new("circle");
        fake.disk(USB, "sdb", "8:16", 1000, &[]);
        let mut below = "sdb".to_owned();
        for level in 0..20 {
            let name = format!("dm-{level}");
            fake.disk("devices/virtual", &name, &format!("253:{level}"), 1, &[]);
            fake.file(&format!("sys/class/block/{below}/holders/{name}"), "");
            below = name;
        }
        fake.file("sys/class/block/dm-1/holders/dm-0", "");
        let usages = fake.host().usages(&disk(&fake, "8:16"));
        assert_eq!(usages.len(), HOLDERS_NESTED_MAX, "{usages:?}");
        assert!(usages.iter().all(|usage| usage.by == By::Volume));
    }

    #[test]
    fn disks_with_a_medium_are_listed_by_name() {
        let fake = FakeHost::new("list");
        fake.disk(USB, "sdc", "8:32", 1000, &[]);
        fake.disk(SATA, "sda", "8:0", 1000, &[]);
        fake.disk("devices/virtual", "loop0", "7:0", 0, &[]);
        let names: Vec<String> = fake.host().disks().into_iter().map(|disk| disk.name).collect();
        assert_eq!(names, ["sda", "sdc"]);
    }

    #[test]
    fn paths_of_the_kernel_are_unescaped() {
        assert_eq!(unescape(r"/media/my\040stick\134x"), "/media/my stick\\x");
        assert_eq!(unescape(r"a\9\"), r"a\9\");
    }
}
