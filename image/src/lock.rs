//! Reads `image/debs.lock`: which Debian packages images are made of.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why the lock is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{}, line {line}: eight columns with tabs between them are wanted", .path.display())]
    Columns { path: PathBuf, line: usize },
    #[error("no package {package} for {architecture} in the lock; run image/debs --update-lock")]
    Missing { package: String, architecture: String },
}

/// One package, or a file that `image/debs` makes of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub package: String,
    pub architecture: String,
    pub version: String,
    /// In hexadecimal; what its file in the cache is called.
    pub sha256: String,
    /// Debian's source packages, and their versions, with commas between several.
    pub source: String,
    pub source_version: String,
    pub licence: String,
}

#[derive(Debug)]
pub struct Lock {
    rows: Vec<Row>,
}

impl Lock {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or has a line of another form.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))?;
        let mut rows = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty()) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [package, architecture, version, sha256, _size, source, source_version, licence] = columns[..] else {
                return Err(Error::Columns { path: path.to_owned(), line: index + 1 });
            };
            let [package, architecture, version, sha256] =
                [package, architecture, version, sha256].map(ToOwned::to_owned);
            let [source, source_version, licence] = [source, source_version, licence].map(ToOwned::to_owned);
            rows.push(Row { package, architecture, version, sha256, source, source_version, licence });
        }
        Ok(Self { rows })
    }

    /// The package for this architecture or for all. A name that ends in `-` stands for the one that begins so: kernels carry their version in it.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, package: &str, architecture: &str) -> Result<&Row, Error> {
        let is_it = |row: &&Row| {
            let named = row.package == package || package.ends_with('-') && row.package.starts_with(package);
            named && (row.architecture == architecture || row.architecture == "all")
        };
        let missing = || Error::Missing { package: package.to_owned(), architecture: architecture.to_owned() };
        self.rows.iter().find(is_it).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(text: &str) -> Result<Lock, Error> {
        let path = std::env::temp_dir().join(format!("image-lock-{}-{}", std::process::id(), text.len()));
        fs::write(&path, text).unwrap();
        let lock = Lock::read(&path);
        fs::remove_file(&path).unwrap();
        lock
    }

    #[test]
    fn kernels_are_found_by_the_beginning_of_their_name() {
        let row = |name: &str, arch: &str| format!("{name}\t{arch}\t1\tsum-{arch}\t1\tlinux\t1\tGPL-2\n");
        let text = format!(
            "# a comment\n{}{}",
            row("linux-image-6.12-amd64", "amd64"),
            row("linux-image-6.12-arm64", "arm64")
        );
        let lock = lock(&text).unwrap();
        assert_eq!(lock.find("linux-image-", "arm64").unwrap().sha256, "sum-arm64");
        assert!(lock.find("linux-image", "arm64").is_err());
        assert!(lock.find("linux-image-6.12-arm64", "amd64").is_err());
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        let error = lock("# comment\n\nlinux-image\tamd64\t1\n").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
