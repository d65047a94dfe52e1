//! What `docker save` writes: from `manifest.json` to the image of one name and architecture (Docker image specification 1.2, and
//! its successors that put the same list beside an OCI layout).

use serde::Deserialize;

use super::Error;
use super::image::{Check, Documents, Plan, PlannedLayer, diff_ids, listed, same_name};
use crate::limits;
use crate::rootfs::shown;
use crate::source::manifest::{self, digest_of};
use crate::units::{Arch, Digest};

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    names: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

/// Finds the image in an archive whose `manifest.json` is given.
pub(super) fn find(documents: &dyn Documents, list: &[u8], name: Option<&str>, arch: Arch) -> Result<Plan, Error> {
    let json = |source| Error::Json { path: "manifest.json".to_owned(), source };
    let entries: Vec<Entry> = serde_json::from_slice(list).map_err(json)?;
    if entries.len() > limits::ARCHIVE_DOCUMENTS_MAX {
        return Err(Error::Limit { what: "images in the archive", limit: limits::ARCHIVE_DOCUMENTS_MAX as u64 });
    }
    let read = |entry: &Entry| documents.read(&entry.config)?.ok_or_else(|| Error::Missing(shown(&entry.config)));
    let entry = match name {
        Some(id) if id.starts_with('@') => by_id(&entries, id, read)?,
        name => choose(&entries, name, |entry| Ok(manifest::check_config(&read(entry)?, arch)?))?,
    };
    let config = read(entry)?;
    manifest::check_config(&config, arch)?;
    let paths = entry.layers.as_deref().unwrap_or_default();
    if paths.len() > limits::LAYERS_MAX {
        return Err(manifest::Error::Layers(paths.len()).into());
    }
    let diff_ids = diff_ids(&config, &shown(&entry.config), paths.len())?;
    let planned = paths.iter().zip(&diff_ids);
    let planned = planned.map(|(path, id)| PlannedLayer { path: path.clone(), size: None, check: Check::Tar(*id) });
    Ok(Plan { layers: planned.collect(), diff_ids, arch, config: (digest_of(&config), config), manifest: None })
}

/// The image of that name, or the only one. Where one name stands for several, `fits` tells which are for the architecture.
fn choose<'a>(
    entries: &'a [Entry],
    name: Option<&str>,
    fits: impl Fn(&Entry) -> Result<(), Error>,
) -> Result<&'a Entry, Error> {
    let is_meant = |entry: &&Entry| {
        let names = entry.names.as_deref().unwrap_or_default();
        name.is_none_or(|wanted| names.iter().any(|name| same_name(name, wanted)))
    };
    let meant: Vec<&Entry> = entries.iter().filter(is_meant).collect();
    match meant[..] {
        [entry] => Ok(entry),
        [] => Err(name.map_or(Error::NoImages, |name| no_such_image(name, entries))),
        // One image that is listed once for each of its names.
        [first, ..] if meant.iter().all(|entry| entry.config == first.config && entry.layers == first.layers) => {
            Ok(first)
        }
        _ => {
            let mut fitting = meant.into_iter().filter(|entry| name.is_some() && fits(entry).is_ok());
            match (fitting.next(), fitting.next()) {
                (Some(entry), None) => Ok(entry),
                _ => Err(Error::Several(names_of(entries))),
            }
        }
    }
}

/// `@number`, or `@sha256:…` of the configuration, which Docker calls the image's ID.
fn by_id<'a>(
    entries: &'a [Entry],
    id: &str,
    read: impl Fn(&Entry) -> Result<Vec<u8>, Error>,
) -> Result<&'a Entry, Error> {
    let text = id.trim_start_matches('@');
    if let Ok(number) = text.parse::<usize>() {
        return entries.get(number).ok_or_else(|| no_such_image(id, entries));
    }
    let wanted: Option<Digest> = text.parse().ok();
    for entry in entries {
        if wanted == Some(digest_of(&read(entry)?)) {
            return Ok(entry);
        }
    }
    Err(no_such_image(id, entries))
}

fn no_such_image(wanted: &str, entries: &[Entry]) -> Error {
    Error::NoSuchImage { wanted: wanted.to_owned(), there: names_of(entries) }
}

/// How the operator can name each: a name that several have is of no use.
fn names_of(entries: &[Entry]) -> Vec<String> {
    let first_name = |entry: &Entry| entry.names.as_ref().and_then(|names| names.first()).cloned();
    let names: Vec<Option<String>> = entries.iter().map(first_name).collect();
    let shown_name = |(number, name): (usize, &Option<String>)| match name {
        Some(text) if names.iter().filter(|other| *other == name).count() == 1 => shown(text),
        _ => format!("@{number}"),
    };
    listed(names.iter().enumerate().map(shown_name))
}
