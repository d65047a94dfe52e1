//! `--dry-run`: the resolved configuration for people, secrets masked.

use std::fmt::{Display, Write};

use super::mask::{MASK, is_secret, printable};
use super::node::Node;
use super::origin::{Origin, Setting};
use super::{CloudConfig, Config, Data, Image, Warning};
use crate::units::ByteSize;

/// The text of `--dry-run`: every value and where it came from, what the cloud config will do, the warnings. No secret
/// is in it: neither the cloud config's content nor template data that may be one, nor credentials in URLs.
#[must_use]
pub fn report(config: &Config, warnings: &[Warning]) -> String {
    let mut out = String::from("Configuration (dry run: nothing was pulled, built or started)\n");
    table(&mut out, &settings(config));
    out.push_str("\nCloud config\n");
    match &config.cloud_config {
        Some(cloud_config) => table(&mut out, &cloud(cloud_config)),
        None => out.push_str("  none\n"),
    }
    let data = data(&config.data);
    if !data.is_empty() {
        out.push_str("\nData for its template\n");
        table(&mut out, &data);
    }
    if !warnings.is_empty() {
        out.push_str("\nWarnings\n");
        for warning in warnings {
            let _ = writeln!(out, "  {warning}");
        }
    }
    out
}

/// A line of the report; without an origin the value ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: String,
    /// Without secrets.
    pub value: String,
    pub origin: Option<String>,
}

/// Every setting, then the cloud config.
#[must_use]
pub fn rows(config: &Config) -> Vec<Row> {
    let named = |cloud: &CloudConfig| Row {
        key: "cloud_config".to_owned(),
        value: format!("{} ({})", printable(cloud.name()), ByteSize(cloud.bytes().len() as u64)),
        origin: Some(cloud.origin().to_string()),
    };
    let mut rows = settings(config);
    rows.extend(config.cloud_config.as_ref().map(named));
    rows
}

fn row<T>(key: &str, setting: &Setting<T>, show: impl FnOnce(&T) -> String) -> Row {
    Row { key: key.to_owned(), value: show(&setting.value), origin: Some(setting.origin.to_string()) }
}

fn shown<T: Display>(value: &T) -> String {
    value.to_string()
}

fn optional<T: AsRef<std::ffi::OsStr>>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), |value| printable(&value.as_ref().to_string_lossy()))
}

fn list<T: Display>(items: &[T], empty: &str) -> String {
    if items.is_empty() { empty.to_owned() } else { items.iter().map(shown).collect::<Vec<_>>().join(", ") }
}

fn settings(config: &Config) -> Vec<Row> {
    let mut rows = vec![row("container_image", &config.container_image, optional)];
    if config.iso_url.origin != Origin::Default {
        let mut row = row("iso_url", &config.iso_url, optional);
        ignored_unless(&mut row, matches!(config.image(), Ok(Image::Iso(_))), config);
        rows.push(row);
    }
    let release = &config.release;
    let platform = release.platform.clone().map(|arch| arch.map(|arch| arch.to_string()));
    let parts = [
        ("repository", &release.repository),
        ("release_version", &release.release_version),
        ("artifact_version", &release.artifact_version),
        ("flavor", &release.flavor),
        ("flavor_release", &release.flavor_release),
        ("variant", &release.variant),
        ("model", &release.model),
        ("platform", &platform),
        ("github_url", &release.github_url),
    ];
    let boots_release = matches!(config.image(), Ok(Image::Release { .. }));
    for (key, part) in parts.into_iter().filter(|(_, part)| part.origin != Origin::Default) {
        let mut row = row(key, part, optional);
        ignored_unless(&mut row, boots_release, config);
        rows.push(row);
    }
    rows.extend([
        row("arch", &config.arch, shown),
        row("state_dir", &config.state_dir, |dir| printable(&dir.to_string_lossy())),
        row("cache_limit", &config.cache_limit, |limit| {
            limit.map_or_else(|| "none".to_owned(), |limit| ByteSize(limit).to_string())
        }),
        row("offline", &config.offline, shown),
        row("interfaces", &config.interfaces, |names| list(names, "every suitable one")),
        row("netboot_listen_addr", &config.netboot_listen_addr, shown),
        row("netboot_http_port", &config.netboot_http_port, shown),
        row("netboot.cmdline", &config.netboot_cmdline, optional),
        row("netboot.allow", &config.machines.allow, |machines| list(machines, "every machine")),
        row("netboot.deny", &config.machines.deny, |machines| list(machines, "none")),
        row("listen_addr", &config.listen_addr, shown),
        row("disable_netboot", &config.disable_netboot, shown),
        row("disable_http_server", &config.disable_http_server, shown),
        row("disable_iso", &config.disable_iso, shown),
    ]);
    let iso = &config.iso;
    rows.extend([
        row("iso.override_name", &iso.override_name, optional),
        row("iso.include_date", &iso.include_date, shown),
        row("iso.overlay_iso", &iso.overlay_iso, optional),
        row("iso.overlay_rootfs", &iso.overlay_rootfs, optional),
        row("iso.live_console", &iso.live_console, optional),
        row("iso.extend-live-cmdline", &iso.extend_live_cmdline, optional),
        row("allow-insecure-registries", &config.allow_insecure_registries, shown),
        row("ca_file", &config.ca_file, optional),
        row("loaders_dir", &config.loaders_dir, optional),
    ]);
    let network = &config.network;
    let of_appliance = [
        row("network.interface", &network.interface, optional),
        row("network.address", &network.address, shown),
        row("network.gateway", &network.gateway, |gateway| gateway.map_or_else(|| "-".to_owned(), |ip| ip.to_string())),
        row("network.dns", &network.dns, |servers| list(servers, "-")),
        row("network.ntp", &network.ntp, |servers| list(servers, "-")),
        row("network.hostname", &network.hostname, optional),
        row("console.password", &config.console_password, |password| {
            password.as_ref().map_or("-", |_| MASK).to_owned()
        }),
    ];
    rows.extend(of_appliance.into_iter().filter(|row| row.origin.as_deref() != Some("default")));
    rows
}

/// What was set and has no effect is still worth a line.
fn ignored_unless(row: &mut Row, used: bool, config: &Config) {
    if !used {
        let stronger = if config.container_image.is_some() { "container_image" } else { "iso_url" };
        row.origin = row.origin.take().map(|origin| format!("{origin} (ignored: {stronger} takes over)"));
    }
}

fn cloud(cloud_config: &CloudConfig) -> Vec<Row> {
    let plain = |key: &str, value: String| Row { key: key.to_owned(), value, origin: None };
    let mut rows = vec![
        Row {
            key: "from".to_owned(),
            value: printable(cloud_config.name()),
            origin: Some(cloud_config.origin().to_string()),
        },
        plain("size", ByteSize(cloud_config.bytes().len() as u64).to_string()),
        plain("sha256", cloud_config.digest().hex()),
    ];
    rows.extend(cloud_config.summary().map(|summary| plain("will do", summary.to_owned())));
    rows
}

fn data(data: &Data) -> Vec<Row> {
    let leaves = data.tree.leaves().into_iter().filter(|(path, _)| super::keys::find(path).is_none());
    leaves
        .map(|(path, node)| {
            let value = match node {
                _ if is_secret(&path) => MASK.to_owned(),
                Node::Text(text) => printable(text),
                _ => "-".to_owned(),
            };
            let from_set = data.from_set.contains(&path);
            let origin = if from_set { Some(&Origin::Set) } else { data.from_file.get(&path) };
            let origin = origin.map(Origin::to_string);
            Row { key: path, value, origin }
        })
        .collect()
}

/// Aligned columns; a value that is longer than most pushes its origin aside instead of everybody's.
fn table(out: &mut String, rows: &[Row]) {
    const VALUE_WIDTH_MAX: usize = 48;
    let width = |text: &str| text.chars().count();
    let keys = rows.iter().map(|row| width(&row.key)).max().unwrap_or(0);
    let with_origin = rows.iter().filter(|row| row.origin.is_some());
    let values = with_origin.map(|row| width(&row.value)).filter(|width| *width <= VALUE_WIDTH_MAX).max().unwrap_or(0);
    for Row { key, value, origin } in rows {
        let _ = match origin {
            Some(origin) => writeln!(out, "  {key:keys$}  {value:values$}  {origin}"),
            None => writeln!(out, "  {key:keys$}  {value}"),
        };
    }
}
