//! Reads what a kernel module says of itself: the section `.modinfo` of its ELF file.
//!
//! Debian's kernel packages hold no `modules.dep` and `modules.alias`: depmod makes them on the machine that a kernel is installed on.

/// What the builder uses of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Devices it is for, as patterns, and other names it goes by.
    pub aliases: Vec<String>,
    /// Modules whose symbols it uses.
    pub depends: Vec<String>,
    /// `pre: a b post: c`: modules that it wants without using their symbols.
    pub softdeps: Vec<String>,
    /// Files below `/lib/firmware` that it may ask for.
    pub firmware: Vec<String>,
}

/// Reads a module; `None` when it is no 64-bit little-endian ELF file with such a section.
pub fn parse(elf: &[u8]) -> Option<ModInfo> {
    let section = section(elf, b".modinfo")?;
    let mut info = ModInfo::default();
    for line in section.split(|byte| *byte == 0) {
        let line = String::from_utf8_lossy(line);
        let Some((key, value)) = line.split_once('=') else { continue };
        match key {
            "alias" => info.aliases.push(value.to_owned()),
            "depends" => info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned)),
            "softdep" => info.softdeps.push(value.to_owned()),
            "firmware" => info.firmware.push(value.to_owned()),
            _ => {}
        }
    }
    Some(info)
}

/// ELF-64 Object File Format 1.5, "ELF Header" and "Sections".
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    const CLASS_64_LITTLE_ENDIAN: &[u8] = &[0x7F, b'E', b'L', b'F', 2, 1];
    elf.strip_prefix(CLASS_64_LITTLE_ENDIAN)?;
    let (table, entry, count) = (long(elf, 40)?, half(elf, 58)?, half(elf, 60)?);
    let header = |index: usize| elf.get(table.checked_add(index.checked_mul(entry)?)?..);
    let content = |header: &[u8]| {
        let (offset, size) = (long(header, 24)?, long(header, 32)?);
        elf.get(offset..offset.checked_add(size)?)
    };
    let names = content(header(half(elf, 62)?)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let own = names.get(word(header, 0)?..)?.split(|byte| *byte == 0).next()?;
        if own == name { content(header) } else { None }
    })
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An ELF file with nothing but this `.modinfo`.
    pub fn module(lines: &[&str]) -> Vec<u8> {
        let modinfo: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\0"].concat()).collect();
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1]);
        elf[40..48].copy_from_slice(&(64 + names.len() as u64 + modinfo.len() as u64).to_le_bytes());
        elf[58..60].copy_from_slice(&64_u16.to_le_bytes());
        elf[60..62].copy_from_slice(&3_u16.to_le_bytes());
        elf[62..64].copy_from_slice(&1_u16.to_le_bytes());
        elf.extend_from_slice(names);
        elf.extend_from_slice(&modinfo);
        for (name, offset, size) in [(0, 0, 0), (1, 64, names.len()), (11, 64 + names.len(), modinfo.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&u32::to_le_bytes(name));
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }

    #[test]
    fn what_a_module_says_is_read() {
        let elf =
            module(&["license=GPL", "alias=pci:v*", "alias=fs-x", "depends=a,b", "softdep=pre: c", "firmware=x.fw"]);
        let info = parse(&elf).unwrap();
        assert_eq!(info.aliases, ["pci:v*", "fs-x"]);
        assert_eq!((info.depends, info.softdeps), (vec!["a".into(), "b".into()], vec!["pre: c".to_owned()]));
        assert_eq!(info.firmware, ["x.fw"]);
        assert_eq!(parse(&module(&["depends="])).unwrap().depends, [""; 0]);
    }

    #[test]
    fn what_is_no_module_is_not_read() {
        let elf = module(&["depends=a"]);
        for length in 0..elf.len() {
            let _ = parse(&elf[..length]); // must not panic
        }
        assert_eq!(parse(&elf[..elf.len() - 64]), None);
        assert_eq!(parse(b"\x7fELF\x01\x01"), None);
    }
}
