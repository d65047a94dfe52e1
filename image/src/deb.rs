//! Reads files out of Debian packages.
//!
//! A package is an `ar` archive (deb(5)) with a compressed tar in it. Decompressing a kernel takes seconds, so the tar is kept
//! beside the package in the cache, under the package's digest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use auroraboot::rootfs::tar::{Archive, MemberKind, TarError};
use liblzma::read::XzDecoder;
use sha2::{Digest, Sha256};

use crate::lock::Row;

/// Why a package, or a file in it, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{package} {version} is not in {}; run image/debs", .cache.display())]
    NotFetched { package: String, version: String, cache: PathBuf },
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("{} has sha256 {found}: remove it and run image/debs", .path.display())]
    Digest { path: PathBuf, found: String },
    #[error("{} is not a Debian package: {what}", .path.display())]
    Form { path: PathBuf, what: &'static str },
    #[error("{} is damaged: remove it", .path.display())]
    Tar { path: PathBuf, source: TarError },
    #[error("{package} has no file {path}")]
    NoFile { package: String, path: String },
}

/// The files of one package.
#[derive(Debug)]
pub struct Package {
    name: String,
    tar: File,
    files: BTreeMap<String, Place>,
    /// The youngest file's time, in seconds since 1970: when it was built.
    pub built: u64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    size: u64,
}

impl Package {
    /// Opens the package in the cache; the first time it is checked and decompressed.
    ///
    /// # Errors
    /// It is not there, is another than the lock names, or is no package.
    pub fn open(cache: &Path, row: &Row) -> Result<Self, Error> {
        let tar = cache.join(format!("{}.tar", row.sha256));
        if !tar.exists() {
            decompress(cache, row, &tar)?;
        }
        let file = File::open(&tar).map_err(|error| Error::Read(tar.clone(), error))?;
        let damaged = |source| Error::Tar { path: tar.clone(), source };
        let mut archive = Archive::new(BufReader::new(&file));
        let (mut files, mut built) = (BTreeMap::new(), 0);
        while let Some(member) = archive.next_member().map_err(damaged)? {
            if let MemberKind::File { size } = member.kind {
                let path = String::from_utf8_lossy(&member.path).trim_start_matches("./").to_owned();
                files.insert(path, Place { offset: archive.position(), size });
                built = built.max(u64::try_from(member.mtime).unwrap_or(0));
            }
            archive.seek_past_data().map_err(damaged)?;
        }
        drop(archive);
        Ok(Self { name: row.package.clone(), tar: file, files, built })
    }

    /// The names of all files, without a leading slash.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The content of a file.
    ///
    /// # Errors
    /// It is not there (symbolic links count as absent) or cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let no_file = || Error::NoFile { package: self.name.clone(), path: path.to_owned() };
        let place = self.files.get(path).ok_or_else(no_file)?;
        let mut content = vec![0; usize::try_from(place.size).map_err(|_| no_file())?];
        let failed = |error| Error::Read(PathBuf::from(format!("{}:{path}", self.name)), error);
        self.tar.read_exact_at(&mut content, place.offset).map_err(failed)?;
        Ok(content)
    }
}

/// The file that the lock names, read and compared: `what` is how its name ends.
///
/// # Errors
/// It is not there or is another.
pub fn fetched(cache: &Path, row: &Row, what: &str) -> Result<Vec<u8>, Error> {
    let path = cache.join(format!("{}.{what}", row.sha256));
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::NotFetched { package: row.package.clone(), version: row.version.clone(), cache: cache.to_owned() }
        }
        _ => Error::Read(path.clone(), error),
    })?;
    let found = crate::hex(&Sha256::digest(&bytes));
    if found != row.sha256 {
        return Err(Error::Digest { path, found });
    }
    Ok(bytes)
}

fn decompress(cache: &Path, row: &Row, tar: &Path) -> Result<(), Error> {
    let package = fetched(cache, row, "deb")?;
    let path = cache.join(format!("{}.deb", row.sha256));
    let form = |what| Error::Form { path: path.clone(), what };
    let data = data_member(&package).map_err(form)?;
    let part = tar.with_extension(format!("part{}", std::process::id()));
    let mut out = File::create(&part).map_err(|error| Error::Write(part.clone(), error))?;
    match data {
        Data::Plain(bytes) => io::copy(&mut &bytes[..], &mut out),
        Data::Xz(bytes) => io::copy(&mut XzDecoder::new(bytes), &mut out),
    }
    .and_then(|_| out.sync_all())
    .and_then(|()| fs::rename(&part, tar))
    .map_err(|error| Error::Write(part, error))
}

enum Data<'a> {
    Plain(&'a [u8]),
    Xz(&'a [u8]),
}

/// The member with the files (deb(5)): names of at most 15 characters, sizes in decimal, everything at even offsets.
fn data_member(package: &[u8]) -> Result<Data<'_>, &'static str> {
    const HEADER: usize = 60;
    let mut rest = package.strip_prefix(b"!<arch>\n").ok_or("it is no ar archive")?;
    while rest.len() >= HEADER {
        let (header, content) = rest.split_at(HEADER);
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).unwrap_or("").trim_end();
        let size: usize = text(48..58).parse().map_err(|_| "a size is no number")?;
        let data = content.get(..size).ok_or("it is cut off")?;
        match text(0..16).trim_end_matches('/') {
            "data.tar" => return Ok(Data::Plain(data)),
            "data.tar.xz" => return Ok(Data::Xz(data)),
            _ => rest = content.get(size + size % 2..).unwrap_or_default(),
        }
    }
    Err("it has no data.tar or data.tar.xz")
}

/// Decompresses a small xz file, such as a kernel module.
///
/// # Errors
/// It is damaged.
pub fn unxz(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    XzDecoder::new(bytes).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = b"!<arch>\n".to_vec();
        for (name, data) in members {
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, data.len());
            archive.extend(header.into_bytes());
            archive.extend_from_slice(data);
            archive.resize(archive.len().next_multiple_of(2), b'\n');
        }
        archive
    }

    #[test]
    fn the_data_is_found_behind_members_of_odd_length() {
        let package = ar(&[("debian-binary", b"2.0"), ("control.tar.xz", b"12345"), ("data.tar/", b"files")]);
        assert!(matches!(data_member(&package), Ok(Data::Plain(b"files"))));
    }

    #[test]
    fn what_is_no_package_is_refused() {
        assert!(data_member(b"!<arch>").is_err());
        assert!(data_member(&ar(&[("debian-binary", b"2.0\n")])).is_err());
        let package = ar(&[("data.tar.xz", b"cut off")]);
        assert_eq!(data_member(&package[..package.len() - 2]).err(), Some("it is cut off"));
    }
}
