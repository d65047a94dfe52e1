//! What is booted: a container image, an ISO, or a release.

use super::apply::Apply;
use super::{Dialog, Typed, ask_settings, menu, refused, say_setting, typed, with_key};
use crate::console::desk::Desk;
use crate::console::line::{Field, Kind};
use crate::console::protocol::{Answer, Change};

/// What a release is named by; the first four are needed.
const RELEASE: [(&str, &str); 6] = [
    ("repository", "Repository, such as kairos-io/kairos"),
    ("release_version", "Release (its tag), such as v3.5.0"),
    ("artifact_version", "Version of the artifact, k3s's included"),
    ("flavor", "Flavor, such as ubuntu"),
    ("flavor_release", "Flavor's own release, such as 24.04"),
    ("variant", "Variant, core or standard"),
];

#[derive(Debug)]
pub(in crate::console) enum Image {
    Loading,
    Kind,
    Container,
    Iso,
    /// The part that is asked for is the one after those that are there.
    Release(Vec<Option<String>>),
}

impl Image {
    pub(super) fn begin(desk: &mut Desk) -> Dialog {
        ask_settings(desk);
        Dialog::Image(Self::Loading)
    }

    pub(super) fn field(&self) -> Field {
        let value = |prompt: &str| Field::new(Kind::Value, prompt);
        match self {
            Self::Loading => Field::default(),
            Self::Kind => Field::new(Kind::Choice, "Image (1-3; -: as the files say; Enter: back): "),
            Self::Container => value("Image: "),
            Self::Iso => value("URL: "),
            Self::Release(parts) => {
                value(&RELEASE.get(parts.len()).map_or(String::new(), |(_, what)| format!("{what}: ")))
            }
        }
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        match self {
            Self::Loading => Dialog::Image(self),
            Self::Kind => choose(desk, line),
            Self::Container => single(desk, line, "container_image"),
            Self::Iso => single(desk, line, "iso_url"),
            Self::Release(parts) => part(desk, line, parts),
        }
    }

    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        let (Self::Loading, Answer::Settings(shown)) = (self, &answer) else { return refused(desk, answer) };
        desk.say("What is booted now:");
        let keys = ["container_image", "iso_url"].into_iter().chain(RELEASE.map(|(key, _)| key));
        for setting in keys.filter_map(|key| with_key(shown, key)) {
            say_setting(desk, &format!("  {}", setting.key), Some(setting));
        }
        desk.say("\n1 a container image, such as quay.io/kairos/ubuntu:24.04-standard\n2 an ISO, by its URL\n3 a release on GitHub");
        Dialog::Image(Self::Kind)
    }
}

fn choose(desk: &mut Desk, line: &str) -> Dialog {
    let next = match line.trim() {
        "1" => Image::Container,
        "2" => Image::Iso,
        "3" => Image::Release(Vec::new()),
        "-" => {
            let keys = ["container_image", "iso_url"].into_iter().chain(RELEASE.map(|(key, _)| key));
            let change = Change::Settings(keys.map(|key| (key.to_owned(), None)).collect());
            return Apply::begin(desk, change, menu());
        }
        "" => return menu(),
        _ => {
            desk.say("1, 2, 3 or -, please.");
            Image::Kind
        }
    };
    Dialog::Image(next)
}

/// A container image wins over an ISO and that over a release, so those before the one that is set are made empty.
fn single(desk: &mut Desk, line: &str, key: &str) -> Dialog {
    let Typed::Value(value) = typed(line) else { return menu() };
    let mut keys = vec![(key.to_owned(), Some(value))];
    let back = if key == "iso_url" {
        keys.push(("container_image".to_owned(), Some(String::new())));
        Image::Iso
    } else {
        Image::Container
    };
    Apply::begin(desk, Change::Settings(keys), Dialog::Image(back))
}

fn part(desk: &mut Desk, line: &str, mut parts: Vec<Option<String>>) -> Dialog {
    match typed(line) {
        Typed::Value(value) => parts.push(Some(value)),
        Typed::Dropped => parts.push(None),
        Typed::Kept if parts.len() < 4 => {
            desk.say("It cannot do without; Ctrl-C gives up.");
            return Dialog::Image(Image::Release(parts));
        }
        Typed::Kept => parts.push(None),
    }
    if parts.len() < RELEASE.len() {
        return Dialog::Image(Image::Release(parts));
    }
    let mut keys: Vec<_> = RELEASE.iter().zip(parts).map(|((key, _), value)| ((*key).to_owned(), value)).collect();
    keys.extend(["container_image", "iso_url"].map(|key| (key.to_owned(), Some(String::new()))));
    Apply::begin(desk, Change::Settings(keys), Dialog::Image(Image::Kind))
}
