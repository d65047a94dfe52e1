//! Which kernel and initrd of an image a machine boots.
//!
//! The pair that `/boot/vmlinuz` names, links resolved inside the image (kairos-init makes it an absolute link), else the highest version that has
//! an initrd and modules. Taking the first name in `/boot`, as was done before, boots the older of two kernels (kairos-io/kairos#2522)
//! and a link's target on the build host.

use std::cmp::Ordering;
use std::fmt::Write;

use super::shown::shown;
use super::tree::Unresolved;
use super::{NodeId, NodeKind, Tree};
use crate::limits::SHOWN_CHARS_MAX;

/// A file of the image with the path it was found at, links resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    pub path: String,
    pub node: NodeId,
}

/// What to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    pub kernel: BootFile,
    pub initrd: BootFile,
    /// As in `/lib/modules/<version>`; `None` when nothing tells.
    pub version: Option<String>,
    /// The kernel's build configuration, when the image has it.
    pub config: Option<NodeId>,
    /// Whether the image has modules for this kernel.
    pub has_modules: bool,
}

/// Why an image cannot be booted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    #[error(
        "no kernel in the image: looked for /boot/vmlinuz and for vmlinuz, vmlinux, Image, zImage, uImage, kernel with a version behind in /boot and \
         /lib/modules; {found}. Build the image with a kernel (for Kairos: kairos-init)"
    )]
    NoKernel { found: String },
    #[error(
        "no initrd for the kernel /{kernel}: looked for /boot/initrd and for initrd, initrd.img, initramfs with \"-{version}\" behind; \
         {found}. Make one (dracut, mkinitfs) when building the image"
    )]
    NoInitrd { kernel: String, version: String, found: String },
}

const KERNELS: [&str; 6] = ["vmlinuz", "vmlinux", "Image", "zImage", "uImage", "kernel"];
/// The longer prefix first.
const INITRDS: [&str; 4] = ["initrd.img", "initrd", "initramfs.img", "initramfs"];
/// What may follow the version of an initrd. Anything else (`kdump`, `.old`, `-rescue`) is not for booting.
const INITRD_ENDINGS: [&str; 5] = ["", ".img", ".gz", ".xz", ".zst"];
/// What distributions put beside kernels under the same prefix: checksums, debug copies, signatures.
const NOT_KERNELS: [&str; 8] = [".hmac", ".xz", ".gz", ".sig", ".old", ".bak", ".sha512", "-rescue"];
const MODULES: [&str; 2] = ["usr/lib/modules", "lib/modules"];

/// Finds what to boot in an image.
pub fn find_boot(tree: &Tree) -> Result<Boot, BootError> {
    let default = ["vmlinuz", "kernel", "Image"].iter().find_map(|name| file(tree, &format!("boot/{name}")));
    if let Some(kernel) = default {
        let version = version_of_kernel(&kernel.path).map(str::to_owned).or_else(|| only_modules(tree));
        return pair(tree, kernel, version, true);
    }
    let mut kernels = versioned_kernels(tree);
    kernels.sort_by(|a, b| compare_versions(&b.1, &a.1));
    let complete = kernels.iter().find(|(_, version)| {
        modules_directory(tree, version).is_some() && initrd(tree, Some(version), false).is_some()
    });
    let fallback = kernels.iter().find(|(_, version)| initrd(tree, Some(version), false).is_some());
    match complete.or(fallback).or(kernels.first()).cloned() {
        Some((kernel, version)) => pair(tree, kernel, Some(version), false),
        None => Err(BootError::NoKernel { found: describe_boot(tree) }),
    }
}

fn pair(tree: &Tree, kernel: BootFile, version: Option<String>, default: bool) -> Result<Boot, BootError> {
    let Some(initrd) = initrd(tree, version.as_deref(), default) else {
        let version = version.map_or_else(|| "<version>".to_owned(), |version| shown(&version));
        return Err(BootError::NoInitrd { kernel: shown(&kernel.path), version, found: describe_boot(tree) });
    };
    let modules = version.as_deref().and_then(|version| modules_directory(tree, version));
    // Alpine calls its kernel vmlinuz-lts; the modules say the whole version.
    let release = modules.as_deref().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    let config = [version.clone(), release.clone()].into_iter().flatten().find_map(|version| {
        let beside_modules = MODULES.map(|directory| format!("{directory}/{version}/config"));
        let [first, second] = &beside_modules;
        [&format!("boot/config-{version}"), first, second].into_iter().find_map(|path| file(tree, path))
    });
    Ok(Boot {
        kernel,
        initrd,
        version: release.or(version),
        config: config.map(|file| file.node),
        has_modules: modules.is_some(),
    })
}

/// Kernels whose name or place tells their version.
fn versioned_kernels(tree: &Tree) -> Vec<(BootFile, String)> {
    let mut kernels = Vec::new();
    for name in list(tree, "boot") {
        if kernel_suffix(&name).is_some()
            && let Some(kernel) = file(tree, &format!("boot/{name}"))
            && let Some(version) = kernel_suffix(&name)
        {
            kernels.push((kernel, version.to_owned()));
        }
    }
    // Fedora keeps the kernel with its modules and copies it to /boot on installation only.
    for directory in MODULES {
        for version in list(tree, directory) {
            let kernel = KERNELS.iter().find_map(|name| file(tree, &format!("{directory}/{version}/{name}")));
            if let Some(kernel) = kernel
                && !kernels.iter().any(|(_, known)| *known == version)
            {
                kernels.push((kernel, version));
            }
        }
    }
    kernels
}

/// The initrd that belongs to a kernel. The plain name counts when it leads to that version or tells none; it counts first
/// when the kernel was called by its plain name too: then the image's maker paired them.
fn initrd(tree: &Tree, version: Option<&str>, plain_first: bool) -> Option<BootFile> {
    let plain = || {
        let found = INITRDS.iter().find_map(|name| file(tree, &format!("boot/{name}")))?;
        let fits = match (version_of_initrd(&found.path), version) {
            (Some(own), Some(wanted)) => own == wanted,
            (None, _) | (_, None) => true,
        };
        fits.then_some(found)
    };
    let versioned = || {
        let version = version?;
        let in_boot = INITRDS
            .iter()
            .flat_map(|prefix| INITRD_ENDINGS.iter().map(move |ending| format!("boot/{prefix}-{version}{ending}")));
        let beside_modules = MODULES.iter().flat_map(|directory| {
            ["initramfs.img", "initramfs", "initrd"].iter().map(move |name| format!("{directory}/{version}/{name}"))
        });
        in_boot.chain(beside_modules).find_map(|path| file(tree, &path))
    };
    if plain_first { plain().or_else(versioned) } else { versioned().or_else(plain) }
}

/// `/usr/lib/modules/<version>`, or the one directory there that ends with the flavour that stands for a version.
fn modules_directory(tree: &Tree, version: &str) -> Option<String> {
    for directory in MODULES {
        let exact = format!("{directory}/{version}");
        if is_directory(tree, &exact) {
            return Some(exact);
        }
        let flavour = format!("-{version}");
        let mut of_flavour: Vec<_> =
            list(tree, directory).into_iter().filter(|name| name.ends_with(&flavour)).collect();
        of_flavour.sort_by(|a, b| compare_versions(a, b));
        if let Some(name) = of_flavour.pop() {
            return Some(format!("{directory}/{name}"));
        }
    }
    None
}

fn only_modules(tree: &Tree) -> Option<String> {
    MODULES.iter().find_map(|directory| match list(tree, directory).as_slice() {
        [version] => Some(version.clone()),
        _ => None,
    })
}

/// `boot/vmlinuz-6.1` or `usr/lib/modules/6.1/vmlinuz`.
fn version_of_kernel(path: &str) -> Option<&str> {
    let (directory, name) = path.rsplit_once('/')?;
    kernel_suffix(name).or_else(|| version_of_directory(directory))
}

fn version_of_initrd(path: &str) -> Option<&str> {
    let (directory, name) = path.rsplit_once('/')?;
    let suffix = INITRDS.iter().find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('-'));
    let version = suffix
        .map(|suffix| INITRD_ENDINGS[1..].iter().find_map(|ending| suffix.strip_suffix(ending)).unwrap_or(suffix));
    version.or_else(|| version_of_directory(directory))
}

fn version_of_directory(directory: &str) -> Option<&str> {
    MODULES.iter().find_map(|modules| directory.strip_prefix(modules)?.strip_prefix('/'))
}

fn kernel_suffix(name: &str) -> Option<&str> {
    let version = KERNELS.iter().find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('-'))?;
    let other = NOT_KERNELS.iter().any(|ending| version.ends_with(ending)) || version.contains("rescue");
    (!other && !version.is_empty()).then_some(version)
}

/// A regular file with content.
fn file(tree: &Tree, path: &str) -> Option<BootFile> {
    let (node, path) = tree.resolve(path.as_bytes()).ok()?;
    let path = String::from_utf8(path).ok()?;
    matches!(tree.kind(node), NodeKind::File { data: Some(_), .. }).then_some(BootFile { path, node })
}

fn is_directory(tree: &Tree, path: &str) -> bool {
    tree.lookup(path.as_bytes()).is_some_and(|node| tree.kind(node) == NodeKind::Directory)
}

fn list(tree: &Tree, path: &str) -> Vec<String> {
    let Some(directory) = tree.lookup(path.as_bytes()) else { return Vec::new() };
    tree.children(directory).filter_map(|(name, _)| String::from_utf8(name.to_vec()).ok()).collect()
}

/// For the errors: what is in `/boot`, where its links lead, and what cannot be booted about it.
fn describe_boot(tree: &Tree) -> String {
    const SHOWN: usize = 20;
    let Some(boot) = tree.lookup(b"boot") else { return "there is no /boot".to_owned() };
    let names = tree.children(boot);
    let count = names.len();
    if count == 0 {
        return "/boot is empty".to_owned();
    }
    let mut told: Vec<String> = Vec::new();
    for (name, node) in names {
        // So many names, and not many more characters than they take when they are of common length.
        if told.len() == SHOWN || told.iter().map(String::len).sum::<usize>() > 4 * SHOWN_CHARS_MAX {
            break;
        }
        told.push(describe(tree, name, node));
    }
    let more = if told.len() < count { format!(" and {} more", count - told.len()) } else { String::new() };
    format!("/boot has {}{more}", told.join(", "))
}

fn describe(tree: &Tree, name: &[u8], node: NodeId) -> String {
    let mut text = shown(&String::from_utf8_lossy(name));
    if let NodeKind::Symlink(target) = tree.kind(node) {
        let _ = write!(text, " → {}", shown(&String::from_utf8_lossy(target)));
    }
    let flaw = match tree.resolve(&[b"boot/", name].concat()).map(|(node, _)| tree.kind(node)) {
        Err(Unresolved::Missing) => " (which does not exist in the image)",
        Err(Unresolved::Loop) => " (which is a link to itself)",
        Ok(NodeKind::File { data: None, .. }) => " (which is empty)",
        Ok(NodeKind::Directory) => " (which is a directory)",
        Ok(_) => "",
    };
    text + flaw
}

/// Orders versions as people do: runs of digits by value, `6.10` after `6.9`; `~` before everything, so that `6.1~rc1` comes before `6.1`.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let weight = |rest: &[u8]| match rest.first() {
            Some(b'~') => -1,
            None => 0,
            Some(&byte) => i32::from(byte) + 1,
        };
        let (digits_a, digits_b) = (leading_digits(a), leading_digits(b));
        let order = if digits_a > 0 && digits_b > 0 {
            let (number_a, number_b) = (significant(&a[..digits_a]), significant(&b[..digits_b]));
            let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
            (a, b) = (&a[digits_a..], &b[digits_b..]);
            order
        } else {
            let order = weight(a).cmp(&weight(b));
            if a.is_empty() && b.is_empty() {
                return Ordering::Equal;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
            order
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn leading_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_the_order_people_expect() {
        let ascending = ["5.10", "6.1~rc1", "6.1", "6.1-rc1", "6.1.0-9", "6.1.0-10", "6.9", "6.10", "06.11", "10.0"];
        for (n, a) in ascending.iter().enumerate() {
            for (m, b) in ascending.iter().enumerate() {
                assert_eq!(compare_versions(a, b), n.cmp(&m), "{a} {b}");
            }
        }
    }
}
