//! The page for people: what there is, and how it gets onto a stick.
//!
//! It has to be read on the phone in one hand while the other holds the stick: no scripts, nothing from elsewhere, and every command can be
//! copied as it stands but for the name of the disk.

use super::escape::{Html, shell_word};
use super::listing::{Item, Kind, Listing};
use crate::civil::Civil;
use crate::units::ByteSize;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::LazyLock;

/// What a browser may load for these pages: the style in them and the icon in them.
#[must_use]
pub fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let style = STANDARD.encode(Sha256::digest(STYLE));
        format!(
            "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        )
    });
    &POLICY
}

/// The page at `/`. `host` is the name or address and port that the reader reached this server by.
#[must_use]
pub fn media(listing: &Listing, host: &str) -> String {
    let mut body = String::new();
    let media = listing.media();
    body.push_str("<h2>Media</h2>\n");
    if media.is_empty() {
        body.push_str("<p>There is nothing to download yet. The ISO is still being made; this page looks again every ten seconds.</p>\n");
    }
    // Those with a cloud config are what most people come for.
    let (custom, pristine): (Vec<&Item>, Vec<&Item>) = media.iter().partition(|item| item.kind == Kind::Custom);
    let first = custom.first().or(pristine.first()).copied();
    for item in custom.into_iter().chain(pristine) {
        push_item(&mut body, item);
    }
    if let Some(item) = first {
        push_instructions(&mut body, listing, item, host);
    }
    let image = if listing.image().is_empty() { String::new() } else { format!("Made from {}", listing.image()) };
    document("AuroraBoot media", &image, &body, media.is_empty())
}

/// The page at any other path.
#[must_use]
pub fn not_found() -> String {
    let body = "<h2>Nothing here</h2>\n<p>Nothing is served under this name; it may have been replaced by a newer file. \
                <a href=\"/\">See what there is</a>.</p>\n";
    document("Not found", "", body, false)
}

fn document(title: &str, subtitle: &str, body: &str, reload: bool) -> String {
    let reload = if reload { "<meta http-equiv=\"refresh\" content=\"10\">\n" } else { "" };
    let subtitle = if subtitle.is_empty() { String::new() } else { format!("\n<p>{}</p>", Html(subtitle)) };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n{reload}<title>{title}</title>\n\
         <link rel=\"icon\" href=\"{ICON}\">\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header><div>\n<h1>AuroraBoot</h1>{subtitle}\n</div></header>\n<main>\n{body}</main>\n\
         <footer>Downloads can be resumed. For scripts: <a href=\"/media.json\">media.json</a>. \
         Machines that boot from the network need no stick.</footer>\n</body>\n</html>\n"
    )
}

fn push_item(out: &mut String, item: &Item) {
    let (name, path) = (Html(&item.name), item.path());
    let checksum = item.checksum_name();
    let kind = item.kind.name();
    let date = Civil::from(item.built);
    let _ = write!(out, "<article>\n<header><h3>{name}</h3><span class=\"kind\">{kind}</span></header>\n");
    if item.contains_cloud_config {
        out.push_str(
            "<p class=\"note\"><strong>Contains your cloud config.</strong> Whoever can download this file can read the \
             password hashes, keys and tokens in it.</p>\n",
        );
    }
    let _ = write!(
        out,
        "<dl>\n<dt>Size</dt><dd>{} <small>({} bytes)</small></dd>\n\
         <dt>Date</dt><dd><time datetime=\"{}\">{date}</time></dd>\n\
         <dt>SHA-256</dt><dd><code>{}</code></dd>\n</dl>\n\
         <p class=\"get\"><a class=\"button\" href=\"{path}\">Download</a><a href=\"{path}.sha256\">{}</a></p>\n</article>\n",
        ByteSize(item.size),
        grouped(item.size),
        date.iso_8601(),
        item.sha256.hex(),
        Html(&checksum),
    );
}

/// The ways onto a stick, with commands for `item`.
fn push_instructions(out: &mut String, listing: &Listing, item: &Item, host: &str) {
    let (word, name) = (shell_word(&item.name), Html(&item.name));
    let url = format!("http://{host}{}", item.path());
    let (checksum_url, url) = (shell_word(&format!("{url}.sha256")), shell_word(&url));
    let _ = write!(
        out,
        "<h2>Write it to a USB stick</h2>\n\
         <p>Everything on the stick is erased. The commands are for <strong>{name}</strong>; <mark>/dev/sdX</mark> stands for the \
         stick, the whole disk and not one of its partitions. A click selects a command.</p>\n"
    );
    // Without --fail: curl calls it a failure when there is nothing left to get. What should not have been saved does not verify.
    let fetch = [format!("curl -C - -o {word} {url}"), format!("curl -fsS {checksum_url} | sha256sum -c")];
    let state_dir =
        listing.state_dir().map(|path| format!(" --set state_dir={}", shell_word(path))).unwrap_or_default();
    let flash_here = format!("sudo auroraboot flash{state_dir} --to /dev/sdX");
    let flash = format!("sudo auroraboot flash {word} --to /dev/sdX");
    section(out, Open::Yes, "auroraboot flash", "Linux: refuses disks in use, asks, verifies", |out| {
        paragraph(out, "On the machine that runs auroraboot, which takes the ISO it made last:");
        command(out, &flash_here);
        paragraph(out, "On another machine, download and verify it first:");
        fetch.iter().for_each(|line| command(out, line));
        command(out, &flash);
    });
    section(out, Open::No, "dd", "Linux and macOS, in a terminal", |out| {
        paragraph(out, "Download (again, to go on with a download that broke off) and verify:");
        fetch.iter().for_each(|line| command(out, line));
        paragraph(out, "Find the stick by its size and model; when something of it is mounted, unmount that; write:");
        command(out, "lsblk -o NAME,SIZE,MODEL,TRAN,MOUNTPOINTS");
        command(out, "sudo umount /dev/sdX?*");
        command(out, &format!("sudo dd if={word} of=/dev/sdX bs=4M oflag=direct conv=fsync status=progress"));
        paragraph(out, "Read back what is on it. The sum has to be the one above:");
        command(out, &format!("sudo head -c {} /dev/sdX | sha256sum", item.size));
        out.push_str(
            "<p>On macOS: <code>shasum -a 256</code> instead of <code>sha256sum</code>, <code>diskutil list external</code> shows the \
             stick, <code>diskutil unmountDisk /dev/diskN</code> frees it, and dd is called with <code>of=/dev/rdiskN bs=4m</code> and \
             nothing after it.</p>\n",
        );
    });
    section(out, Open::No, "curl to the stick", "Linux, without a file in between", |out| {
        paragraph(
            out,
            "Writes while it downloads, and prints the sum of what went through. It has to be the one above:",
        );
        command(out, &format!("curl -f {url} | sudo tee /dev/sdX | sha256sum && sync"));
    });
    section(out, Open::No, "balenaEtcher", "Windows, macOS, Linux", |out| {
        steps(
            out,
            &[
                &format!("Download <strong>{name}</strong>. "),
                "<em>Flash from file</em>: choose it. <em>Select target</em>: choose the stick.",
                "<em>Flash!</em> Etcher verifies what it wrote by itself.",
            ],
        );
    });
    section(out, Open::No, "Rufus", "Windows, in DD mode", |out| {
        steps(
            out,
            &[
                &format!("Download <strong>{name}</strong>."),
                "<em>Device</em>: the stick. <em>Boot selection</em>: the file. <em>Start</em>.",
                "When Rufus asks, choose <strong>Write in DD Image mode</strong>. In ISO mode it copies the files onto a stick of its own \
             making, which may not boot.",
            ],
        );
        paragraph(out, "Verify the download in a command prompt; the sum has to be the one above:");
        command(out, &format!("certutil -hashfile \"{}\" SHA256", item.name));
    });
}

#[derive(Clone, Copy)]
enum Open {
    Yes,
    No,
}

/// One way, folded up or not; `summary` and `hint` are ours.
fn section(out: &mut String, open: Open, summary: &str, hint: &str, content: impl FnOnce(&mut String)) {
    let open = match open {
        Open::Yes => " open",
        Open::No => "",
    };
    let _ = write!(out, "<details{open}>\n<summary>{summary} <span>· {hint}</span></summary>\n<div>\n");
    content(out);
    out.push_str("</div>\n</details>\n");
}

fn paragraph(out: &mut String, text: &str) {
    let _ = writeln!(out, "<p>{text}</p>");
}

fn steps(out: &mut String, steps: &[&str]) {
    out.push_str("<ol>\n");
    for step in steps {
        let _ = writeln!(out, "<li>{step}</li>");
    }
    out.push_str("</ol>\n");
}

/// A command to copy, with what has to be replaced in it marked.
fn command(out: &mut String, command: &str) {
    let command = Html(command).to_string().replace(DISK, "<mark>/dev/sdX</mark>");
    let _ = writeln!(out, "<pre><code>{command}</code></pre>");
}

/// `1234567` as `1 234 567`, with spaces that do not break (ISO 80000-1 §7.3.1).
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

const STYLE: &str = include_str!("style.css");
const DISK: &str = "/dev/sdX";
/// A green arc over a violet one.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='3' fill='%23052a3a'/%3E%3Cpath d='M2 12C4 4 12 4 14 12' fill='none' stroke='%234fd1c5' stroke-width='2'/%3E%3Cpath d='M5 13c1-4 5-4 6 0' fill='none' stroke='%23a48cf0' stroke-width='2'/%3E%3C/svg%3E";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::listing::Item;
    use std::fs::File;
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    fn item(name: &str, kind: Kind) -> Item {
        Item {
            name: name.to_owned(),
            kind,
            file: Arc::new(File::open("/dev/null").unwrap()),
            size: 1_634_729_984,
            sha256: crate::units::Digest([0xab; 32]),
            built: UNIX_EPOCH,
            contains_cloud_config: kind == Kind::Custom,
        }
    }

    fn shown(media: Vec<Item>) -> String {
        super::media(&Listing::new("an <image>", media).unwrap(), "aurora:8080")
    }

    #[test]
    fn the_custom_iso_comes_first_and_is_what_the_commands_are_for() {
        let page = shown(vec![item("a.iso", Kind::Pristine), item("a.iso.custom.iso", Kind::Custom)]);
        assert!(page.find("<h3>a.iso.custom.iso</h3>").unwrap() < page.find("<h3>a.iso</h3>").unwrap());
        assert_eq!(page.matches("Contains your cloud config").count(), 1);
        assert!(page.contains("curl -C - -o a.iso.custom.iso http://aurora:8080/a.iso.custom.iso<"), "{page}");
        assert!(page.contains("sudo head -c 1634729984 <mark>/dev/sdX</mark> | sha256sum"), "{page}");
        let pristine = shown(vec![item("a.iso", Kind::Pristine)]);
        assert!(
            pristine.contains("-o a.iso http://") && !pristine.contains("Contains your cloud config"),
            "{pristine}"
        );
        assert!(pristine.contains("Made from an &lt;image&gt;"), "{pristine}");
    }

    #[test]
    fn whoever_flashes_on_this_host_is_told_the_state_directory() {
        let listing = || Listing::new("", vec![item("a.iso", Kind::Pristine)]).unwrap();
        let usual = super::media(&listing(), "");
        assert!(usual.contains("sudo auroraboot flash --to <mark>/dev/sdX</mark>"), "{usual}");
        let other = super::media(&listing().kept_in("/srv/my build"), "");
        let command = format!("sudo auroraboot flash --set state_dir={} --to", Html(&shell_word("/srv/my build")));
        assert!(other.contains(&command), "{other}");
    }

    #[test]
    fn before_the_iso_is_made_the_page_waits_for_it() {
        let page = shown(Vec::new());
        assert!(page.contains("http-equiv=\"refresh\"") && !page.contains("dd if="), "{page}");
        assert!(!shown(vec![item("a.iso", Kind::Pristine)]).contains("http-equiv"));
    }

    #[test]
    fn the_policy_lets_in_the_style_that_is_in_the_page_and_nothing_else() {
        let style = STANDARD.encode(Sha256::digest(STYLE));
        assert!(content_security_policy().contains(&format!("style-src 'sha256-{style}';")));
        assert!(shown(Vec::new()).contains(&format!("<style>{STYLE}</style>")));
        assert!(!STYLE.contains("url(") && !STYLE.contains("</style"));
        assert!(
            !shown(vec![item("a.iso", Kind::Custom)]).contains(" style="),
            "an attribute would need 'unsafe-inline'"
        );
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!([7, 1_234, 1_634_729_984].map(grouped), ["7", "1\u{202f}234", "1\u{202f}634\u{202f}729\u{202f}984"]);
    }
}
