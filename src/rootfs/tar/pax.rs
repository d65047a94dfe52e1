//! PAX records (POSIX pax, "pax Extended Header"): `<length> <key>=<value>\n`.

use super::TarError;
use super::sparse::PaxSparse;

/// What the records in front of an entry say about it; `None` leaves the ustar header's value.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    /// Whole seconds, rounded down.
    pub mtime: Option<i64>,
    pub device: (Option<i64>, Option<i64>),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

/// How tar, containerd, buildkit and bsdtar name extended attributes. bsdtar also writes each one as
/// `LIBARCHIVE.xattr.*`, which is left alone.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    /// Adds the records of one extended header; `at` is its place in the archive.
    pub(super) fn read(&mut self, mut records: &[u8], at: u64) -> Result<(), TarError> {
        while !records.is_empty() {
            let Some((key, value, rest)) = split_record(records) else { return Err(TarError::Pax { at }) };
            self.record(key, value).ok_or(TarError::Pax { at })?;
            records = rest;
            if records.iter().all(|&b| b == 0) {
                break; // padding that some writers count into the size
            }
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            // An empty value takes the record back: the ustar header counts again.
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link_path = text(value)?,
            b"size" => self.size = unless_empty(value, decimal)?,
            b"uid" => self.uid = unless_empty(value, signed)?,
            b"gid" => self.gid = unless_empty(value, signed)?,
            b"mtime" => self.mtime = unless_empty(value, seconds)?,
            b"SCHILY.devmajor" => self.device.0 = unless_empty(value, signed)?,
            b"SCHILY.devminor" => self.device.1 = unless_empty(value, signed)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.retain(|(old, _)| old != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(key, value)?;
                }
            }
        }
        Some(())
    }
}

/// Key, value, and what follows the record.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|&b| b == b' ')?;
    let length = usize::try_from(decimal(&records[..blank])?).ok()?;
    if length > records.len() || length < blank + 3 {
        return None;
    }
    let (record, rest) = records.split_at(length);
    let record = record[blank + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|&b| b == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty()).then_some((key, value, rest))
}

fn text(value: &[u8]) -> Option<Option<Vec<u8>>> {
    unless_empty(value, |value| (!value.contains(&0)).then(|| value.to_vec()))
}

fn unless_empty<T>(value: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { read(value).map(Some) }
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => i64::try_from(decimal(digits)?).ok().map(|n| -n),
        None => i64::try_from(decimal(text)?).ok(),
    }
}

/// `1700000000.123` as whole seconds, rounded towards the past.
fn seconds(text: &[u8]) -> Option<i64> {
    let dot = text.iter().position(|&b| b == b'.').unwrap_or(text.len());
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = signed(&text[..dot])?;
    let past = text.starts_with(b"-") && fraction.iter().any(|&b| b != b'0');
    whole.checked_sub(i64::from(past))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(records: &[u8]) -> Result<Pax, TarError> {
        let mut pax = Pax::default();
        pax.read(records, 0).map(|()| pax)
    }

    #[test]
    fn records_give_their_values() {
        let pax = read(b"12 path=a\nb\n17 mtime=-1.5000\n11 size=17\n23 SCHILY.xattr.u.x=\0\xff\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!((pax.mtime, pax.size), (Some(-2), Some(17)));
        assert_eq!(pax.xattrs, [(b"u.x".to_vec(), b"\0\xff".to_vec())]);
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        assert_eq!(read(b"10 path=a\n8 path=\n").unwrap().path, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"1 path=a\n"[..],
            b"11 path=a\n",
            b"10 pathaa\n",
            b"10 path=ab",
            b"5 =a\n",
            b"x path=a\n",
            b"99999999999999999999 path=a\n",
            b"11 path=\0a\n",
            b"10 size=x\n",
        ] {
            assert!(read(records).is_err(), "{:?}", String::from_utf8_lossy(records));
        }
    }
}
