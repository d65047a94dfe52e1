//! The configuration from the outside: the seed's vectors, every layer, every mistake, and noise.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use auroraboot::config::{self, Args, Command, Config, Fetching, Image, Inputs, Origin, Warning, cli};
use auroraboot::limits::{CLOUD_CONFIG_BYTES_MAX, CLOUD_CONFIG_BYTES_WARN, CONFIG_FILE_BYTES_MAX};
use auroraboot::units::{Arch, chain};

/// Files, URLs and standard input (`-`) of a test, and what was asked for.
#[derive(Default)]
struct Fake {
    contents: BTreeMap<String, Vec<u8>>,
    asked: Vec<String>,
    ca_files: Vec<Option<PathBuf>>,
}

impl Fake {
    fn with(contents: &[(&str, &str)]) -> Self {
        let owned = |&(name, content): &(&str, &str)| (name.to_owned(), content.as_bytes().to_vec());
        Self { contents: contents.iter().map(owned).collect(), ..Self::default() }
    }

    fn read(&mut self, name: &str) -> Option<Vec<u8>> {
        self.asked.push(name.to_owned());
        self.contents.get(name).cloned()
    }
}

impl Inputs for Fake {
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str().unwrap() {
            "/dir" => Err(io::ErrorKind::IsADirectory.into()),
            "/secret" => Err(io::ErrorKind::PermissionDenied.into()),
            path => self.read(path).ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }

    fn fetch_url(&mut self, url: &str, how: Fetching<'_>) -> Result<Vec<u8>, String> {
        self.ca_files.push(how.ca_file.map(Path::to_owned));
        self.read(url).ok_or_else(|| format!("{url}: status 404"))
    }

    fn read_stdin(&mut self) -> io::Result<Vec<u8>> {
        self.read("-").ok_or_else(|| io::Error::other("standard input is closed"))
    }
}

fn args(words: &[&str]) -> Args {
    match cli::parse(words.iter().map(OsString::from)) {
        Ok(Command::Run(args)) => args,
        other => panic!("{words:?}: {other:?}"),
    }
}

/// Loads a command line, or gives the error with its causes, which is one line.
fn load(words: &[&str], fake: &mut Fake) -> Result<(Config, Vec<Warning>), String> {
    config::load(&args(words), fake).map_err(|error| {
        let text = chain(&error);
        assert_eq!(text.lines().count(), 1, "{text:?}");
        text
    })
}

fn config(words: &[&str], contents: &[(&str, &str)]) -> Config {
    load(words, &mut Fake::with(contents)).unwrap().0
}

fn error(words: &[&str], contents: &[(&str, &str)]) -> String {
    load(words, &mut Fake::with(contents)).map(|_| ()).unwrap_err()
}

fn rendered(words: &[&str], contents: &[(&str, &str)]) -> String {
    String::from_utf8(config(words, contents).cloud_config.unwrap().bytes().to_vec()).unwrap()
}

const IMAGE: &str = "container_image=registry/image";

// ── The seed ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn data(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config/seed");
    std::fs::read(dir.join(name)).unwrap()
}

/// A shell's words, as far as the vectors need it.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}

fn one_blank_apart(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_seeds_command_lines_resolve_as_it_says() {
    let vectors = String::from_utf8(data("commands.txt")).unwrap();
    let mut commands = 0;
    for vector in vectors.split("\n\n") {
        let mut lines = vector.lines().filter(|line| !line.starts_with('#'));
        let Some(command) = lines.next() else { continue };
        commands += 1;
        let lines: Vec<(&str, &str)> = lines.map(|line| line.split_once(' ').unwrap()).collect();
        let mut fake = Fake::default();
        for (_, input) in lines.iter().filter(|(mark, _)| *mark == "<") {
            let (name, file) = input.split_once(' ').unwrap();
            fake.contents.insert(name.to_owned(), data(file));
        }
        let words = words(command);
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let loaded = load(&words, &mut fake);
        if let Some((_, message)) = lines.iter().find(|(mark, _)| *mark == "!") {
            let error = loaded.map(|_| ()).unwrap_err();
            assert!(error.starts_with(message), "{command}\n{error}");
            continue;
        }
        let (config, warnings) = loaded.unwrap_or_else(|error| panic!("{command}\n{error}"));
        let report = config::report(&config, &warnings);
        let shown: Vec<String> = report.lines().map(one_blank_apart).collect();
        for (_, wanted) in lines.iter().filter(|(mark, _)| *mark == ">") {
            match wanted.strip_prefix('!') {
                Some(hidden) => assert!(!report.contains(hidden), "{command}\n{hidden}\n{report}"),
                None => assert!(shown.iter().any(|line| line == wanted), "{command}\n{wanted}\n{report}"),
            }
        }
    }
    assert_eq!(commands, 21);
}

#[test]
fn the_seeds_template_becomes_what_it_says() {
    let template = String::from_utf8(data("template.yaml")).unwrap();
    let wanted = template.replace("[[.kairos.password]]", "foobar").replace("[[.github.user]]", "mudler");
    let set = ["--set", "github.user=mudler", "--set", "kairos.password=foobar", "--set", IMAGE];
    let words = [&["--cloud-config", "/config.yaml"], &set[..]].concat();
    assert_eq!(rendered(&words, &[("/config.yaml", &template)]), wanted);
}

#[test]
fn the_seeds_piped_cloud_config_passes_byte_for_byte() {
    let piped = String::from_utf8(data("stdin.yaml")).unwrap();
    assert!(piped.contains("{{ trunc 4 .MachineID }}"));
    assert_eq!(rendered(&["--cloud-config", "-", "--set", IMAGE], &[("-", &piped)]), piped);
}

// ── Layers ───────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn set_beats_the_file_key_by_key_and_the_flag_replaces_the_cloud_config() {
    let file = "container_image: a\nnetboot_http_port: 9000\nnetboot: {cmdline: x, deny: [52:54]}\ncloud_config: /file\n\
                insecure: true\n";
    let words = [
        "a.yaml",
        "--set",
        "netboot_http_port=9001",
        "--set",
        "allow-insecure-registries=no",
        "--cloud-config",
        "/flag",
    ];
    let mut fake = Fake::with(&[("a.yaml", file), ("/file", "of the file\n"), ("/flag", "of the flag\n")]);
    let (config, _) = load(&words, &mut fake).unwrap();
    assert_eq!((*config.netboot_http_port, &config.netboot_http_port.origin), (9001, &Origin::Set));
    assert_eq!(config.netboot_cmdline.as_deref(), Some("x"));
    assert_eq!(config.netboot_cmdline.origin, Origin::File { name: "a.yaml".into(), line: Some(3) });
    assert!(!*config.allow_insecure_registries);
    assert!(config.machines.check("52:54:00:00:00:01".parse().unwrap()).is_err());
    assert_eq!(config.cloud_config.as_ref().unwrap().bytes(), b"of the flag\n");
    assert_eq!(config.cloud_config.as_ref().unwrap().origin(), &Origin::CloudConfigFlag);
    assert_eq!(fake.asked, ["a.yaml", "/flag"], "what is replaced is not read");
}

#[test]
fn of_several_files_the_last_wins_key_by_key() {
    let site = (
        "site.yaml",
        "container_image: a:1\nflavor: x\nvalues:\n  a: 1\n  b: {c: 2}\ncloud_config: |\n  #cloud-config\n  x: [[ .b.c ]][[ .b.d ]]\n",
    );
    let shop = ("shop.yaml", "container_image: b:1\nvalues:\n  b: {d: 3}\n");
    let words = ["site.yaml", "--with", "shop.yaml", "--with", "console.yaml"];
    let console = ("console.yaml", "network.hostname: box\n");
    let config = config(&words, &[site, shop, console]);
    assert_eq!(config.container_image.as_deref(), Some("b:1"));
    assert_eq!(config.container_image.origin.to_string(), "shop.yaml:1");
    assert_eq!(config.release.flavor.origin.to_string(), "site.yaml:2");
    assert_eq!(config.network.hostname.origin.to_string(), "console.yaml:1");
    assert_eq!(config.cloud_config.unwrap().bytes(), b"#cloud-config\nx: 23\n");
    let wrong = error(&words, &[site, ("shop.yaml", "flavour: x\n"), console]);
    assert!(wrong.starts_with("shop.yaml:1: unknown key flavour"), "{wrong}");
    let twice = error(&["-", "--with", "-"], &[("-", "container_image: a\n")]);
    assert!(twice.contains("standard input"), "{twice}");
}

#[test]
fn the_files_cloud_config_is_content_or_a_name() {
    let contents =
        |value: &str| format!("container_image: a\ncloud_config: {value}\nvalues: {{a: {{b: one}}, c: two}}\n");
    for (value, wanted) in [
        ("/c", "from a path one\n"),
        ("'http://h/c'", "from a URL\n"),
        ("'-'", "piped one\n"),
        ("|\n  /c\n", "from a path one\n"),
        ("|\n  #cloud-config\n", "#cloud-config\n"),
        ("'#[[ .a.b ]]'", "#one"),
        ("|\n  x: [[ .a.b ]]\n  y: [[ .c ]]\n", "x: one\ny: two\n"),
    ] {
        let file = contents(value);
        let inputs = [
            ("a.yaml", file.as_str()),
            ("/c", "from a path [[.a.b]]\n"),
            ("http://h/c", "from a URL\n"),
            ("-", "piped [[ .a.b ]]\n"),
        ];
        assert_eq!(rendered(&["a.yaml"], &inputs), wanted, "{value}");
    }
    let file = contents("|\n  x: [[ .a.b ]] [[ .c ]] [[ .container_image ]]\n  y:\n");
    let words = ["a.yaml", "--set", "a.b=three", "--set", "container_image=i"];
    assert_eq!(rendered(&words, &[("a.yaml", &file)]), "x: three two i\ny:\n");
}

#[test]
fn a_cloud_config_keeps_its_bytes() {
    let bytes = b"#cloud-config\r\nx: \xff\0 {{ .y }}\r\nz: [[ -f /x ]]\r\n".to_vec();
    let mut fake = Fake::default();
    for mark in [&b""[..], b"\xef\xbb\xbf"] {
        fake.contents.insert("/c".into(), [mark, &bytes].concat());
        let (config, warnings) = load(&["--set", IMAGE, "--cloud-config", "/c"], &mut fake).unwrap();
        assert_eq!(config.cloud_config.unwrap().bytes(), bytes, "the mark would hide the header from the machines");
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

#[test]
fn files_of_windows_editors_are_read_or_refused_with_the_reason() {
    let mut fake = Fake::default();
    let marked = "\u{feff}container_image: a\r\nnetboot_http_port: 81\r\n";
    fake.contents.insert("a.yaml".into(), marked.into());
    assert_eq!(*load(&["a.yaml"], &mut fake).unwrap().0.netboot_http_port, 81);
    let utf16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fake.contents.insert("a.yaml".into(), utf16);
    let error = load(&["a.yaml"], &mut fake).unwrap_err();
    assert_eq!(error, "cannot read the configuration file a.yaml: it is UTF-16 text; save it as UTF-8");
}

#[test]
fn every_key_has_its_type() {
    let file = "container_image: a\narch: arm64\nstate_dir: /s\ninterfaces: [eth0, br-lan]\nnetboot_listen_addr: 10.0.0.1\n\
                netboot_http_port: 80\nlisten_addr: '[::1]:81'\ndisable_iso: Yes\nnetboot:\n  allow:\n  - 52:54:00\n  - 020000000001\n\
                ca_file: /ca.pem\nloaders_dir: /l\nflavor_release: 22.10\n";
    let loaded = config(&["a.yaml"], &[("a.yaml", file)]);
    assert_eq!(loaded.arch.name(), "arm64");
    assert_eq!(*loaded.interfaces, ["eth0", "br-lan"]);
    assert_eq!(loaded.netboot_listen_addr.octets(), [10, 0, 0, 1]);
    assert_eq!(loaded.listen_addr.to_string(), "[::1]:81");
    assert!(*loaded.disable_iso);
    assert_eq!(
        loaded.machines.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["52:54:00", "02:00:00:00:00:01"]
    );
    assert_eq!(loaded.ca_file.as_deref(), Some(Path::new("/ca.pem")));
    assert_eq!(loaded.release.flavor_release.as_deref(), Some("22.10"), "no number: the zero stays");

    let set = [
        "--set",
        IMAGE,
        "--set",
        "interfaces=eth0, eth1",
        "--set",
        "netboot.deny=52-54-00",
        "--set",
        "disable_iso=off",
    ];
    let loaded = config(&set, &[]);
    assert_eq!(*loaded.interfaces, ["eth0", "eth1"]);
    assert_eq!(loaded.machines.deny[0].to_string(), "52:54:00");
    assert_eq!(loaded.image(), Ok(Image::Container("registry/image")));
}

#[test]
fn urls_are_fetched_with_the_ca_file() {
    let mut fake = Fake::with(&[
        ("https://h/a.yaml", "container_image: a\ncloud_config: https://h/c\nca_file: /file.pem\n"),
        ("https://h/c", "c\n"),
    ]);
    load(&["https://h/a.yaml"], &mut fake).unwrap();
    load(&["https://h/a.yaml", "--set", "ca_file=/set.pem"], &mut fake).unwrap();
    let wanted = [None, Some("/file.pem"), Some("/set.pem"), Some("/set.pem")];
    assert_eq!(fake.ca_files, wanted.map(|path| path.map(PathBuf::from)));
}

// ── Mistakes ─────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn bad_values_name_key_value_place_and_what_is_accepted() {
    for (key, value, accepted) in [
        ("disable_netboot", "maybe", "a boolean: true or false"),
        ("disable_iso", "1", "a boolean: true or false"),
        ("netboot_http_port", "http", "a port, a number from 1 to 65535"),
        ("netboot_http_port", "65536", "a port, a number from 1 to 65535"),
        ("netboot_http_port", "0", "a port, a number from 1 to 65535"),
        ("netboot_http_port", "+80", "a port, a number from 1 to 65535"),
        ("netboot_listen_addr", "eth0", "an IPv4 address, such as 192.168.1.2"),
        ("listen_addr", "8080", "an address and port, such as :8080 or 192.168.1.2:8080"),
        ("listen_addr", "host:80", "an address and port, such as :8080 or 192.168.1.2:8080"),
        ("arch", "x86_64", "an architecture: amd64, arm64 or riscv64"),
        ("netboot.allow", "52:5", "a MAC address or the beginning of one, such as 52:54:00:12:34:56 or 52:54:00"),
        ("interfaces", "a/b", "an interface's name, such as eth0"),
    ] {
        let set = format!("{key}={value}");
        assert_eq!(error(&["--set", IMAGE, "--set", &set], &[]), format!("--set {set}: {value:?} is not {accepted}"));
        let yaml = match key.split_once('.') {
            Some((group, key)) => format!("container_image: a\n\n{group}:\n  {key}: {value}\n"),
            None => format!("container_image: a\n\n\n{key}: {value}\n"),
        };
        assert_eq!(error(&["a.yaml"], &[("a.yaml", &yaml)]), format!("a.yaml:4: {key}: {value:?} is not {accepted}"));
    }
    for (yaml, message) in [
        ("container_image: [a]", "a.yaml:1: container_image is a list; it takes one value"),
        ("container_image: {a: b}", "a.yaml:1: container_image is a group of keys; it takes one value"),
        ("interfaces: [[a]]", "a.yaml:1: interfaces is a list of something else; it takes a list of values"),
        ("interfaces: {a: b}", "a.yaml:1: interfaces is a group of keys; it takes a list of values"),
        ("arch: [amd64]", "a.yaml:1: arch is a list; it takes an architecture"),
        (
            "cloud_config:\n  install: x",
            "a.yaml:1: cloud_config is a group of keys; it takes a text: write `cloud_config: |`",
        ),
    ] {
        let message_found = error(&["a.yaml"], &[("a.yaml", yaml)]);
        assert!(message_found.starts_with(message), "{message_found}");
    }
}

#[test]
fn what_set_hides_is_still_checked() {
    for (yaml, message) in [
        ("container_image: [a]", "a.yaml:1: container_image is a list; it takes one value"),
        ("netboot_http_port: x", "a.yaml:1: netboot_http_port: \"x\" is not a port"),
    ] {
        let words = ["a.yaml", "--set", IMAGE, "--set", "netboot_http_port=80"];
        let found = error(&words, &[("a.yaml", yaml)]);
        assert!(found.starts_with(message), "{found}");
    }
}

#[test]
fn a_home_directory_is_not_guessed() {
    for (yaml, message) in [
        ("state_dir: ~/x", "a.yaml:2: state_dir: `~` is not expanded here; write the full path"),
        ("ca_file: ~/x", "a.yaml:2: ca_file: `~` is not expanded here; write the full path"),
        ("loaders_dir: '~'", "a.yaml:2: loaders_dir: `~` is not expanded here; write the full path"),
        ("cloud_config: ~/x", "the cloud config ~/x: `~` is not expanded here; write the full path"),
    ] {
        assert_eq!(error(&["a.yaml"], &[("a.yaml", &format!("container_image: a\n{yaml}\n"))]), message);
    }
    assert_eq!(config(&["--set", IMAGE, "--set", "state_dir=/~x"], &[]).state_dir.to_str(), Some("/~x"));
}

#[test]
fn yaml_that_is_too_deep_or_two_is_told() {
    let deep = format!("x: {}", "[".repeat(100_000));
    let inputs = [("a.yaml", "container_image: a\n---\nflavor: b\n"), ("b.yaml", &deep), ("/c", &deep)];
    assert_eq!(error(&["a.yaml"], &inputs), "a.yaml cannot be read as YAML: it has more than one document");
    assert_eq!(error(&["b.yaml"], &inputs), "b.yaml cannot be read as YAML: it is nested deeper than 100");
    let told = warnings(&["--set", IMAGE, "--cloud-config", "/c"], &inputs);
    assert_eq!(told[1], "/c cannot be read as YAML, and hardly by the nodes: it is nested deeper than 100");
    let stdin = [("-", "#cloud-config\ninstall: {}\n")];
    assert!(error(&["-"], &stdin).ends_with("pass it with --cloud-config -"));
}

#[test]
fn what_cannot_be_read_says_what_and_why() {
    let big_file = "x".repeat(CONFIG_FILE_BYTES_MAX + 1);
    let big_cloud = "x".repeat(CLOUD_CONFIG_BYTES_MAX + 1);
    let inputs = [
        ("a.yaml", "container_image: a"),
        ("/empty", ""),
        ("/blank", " \r\n\t"),
        ("/big", &big_cloud),
        ("big.yaml", &big_file),
    ];
    let cloud = |named: &str| error(&["a.yaml", "--cloud-config", named], &inputs);
    assert_eq!(cloud("/missing"), "cannot read the cloud config /missing: there is no such file");
    assert_eq!(cloud("/dir"), "cannot read the cloud config /dir: it is a directory");
    assert_eq!(cloud("/secret"), "cannot read the cloud config /secret: permission denied");
    assert_eq!(cloud("/empty"), "the cloud config /empty is empty");
    assert_eq!(cloud("/blank"), "the cloud config /blank is empty");
    assert_eq!(cloud("/big"), "the cloud config /big is larger than 8.4 MB");
    let empty =
        error(&["-", "--cloud-config", "/if"], &[("-", "container_image: a"), ("/if", "[[ if .x ]]x[[ end ]]\n")]);
    assert_eq!(empty, "the cloud config /if is empty once its template is rendered");
    assert_eq!(cloud("-"), "cannot read the cloud config on standard input: standard input is closed");
    assert_eq!(cloud("https://me:pw@h/c?token=t"), "cannot read the cloud config https://***@h/c?***: status 404");
    assert!(cloud("ftp://h/c").starts_with("the cloud config ftp://h/c has a scheme that cannot be fetched"));
    assert_eq!(error(&["b.yaml"], &inputs), "cannot read the configuration file b.yaml: there is no such file");
    let no_file = |named: &str| error(&[named], &inputs).split_once(": ").unwrap().1.to_owned();
    assert_eq!(no_file("container_image=a"), "there is no such file; did you mean --set container_image=a?");
    assert_eq!(no_file("quay.io/a/b:v1"), "there is no such file; did you mean --set container_image=quay.io/a/b:v1?");
    assert_eq!(no_file("build-iso"), "there is no such file, and no such command; there are pull, cache, flash");
    assert_eq!(no_file("pulll"), "there is no such file; did you mean the command pull?");
    assert_eq!(error(&["big.yaml"], &inputs), "the configuration file big.yaml is larger than 1.0 MB");
    assert_eq!(error(&["/empty"], &inputs), "the configuration file /empty is empty");
    let twice = "standard input cannot be both the configuration file and the cloud config";
    assert_eq!(error(&["-", "--cloud-config", "-"], &inputs), twice);
    assert_eq!(error(&["-"], &[("-", "container_image: a\ncloud_config: '-'")]), twice);
}

#[test]
fn insecure_is_the_old_name_of_allow_insecure_registries() {
    let insecure = |file: &str, set: &[&str]| {
        let words = set.iter().flat_map(|&set| ["--set", set]).collect::<Vec<_>>();
        *config(&[&["a.yaml"], &words[..]].concat(), &[("a.yaml", &format!("container_image: a\n{file}\n"))])
            .allow_insecure_registries
    };
    assert!(insecure("insecure: true", &[]));
    assert!(insecure("allow-insecure-registries: true", &[]));
    assert!(!insecure("insecure: true", &["allow-insecure-registries=false"]));
    assert!(insecure("allow-insecure-registries: false", &["insecure=true"]));
    assert_eq!(
        error(&["--set", IMAGE, "--set", "insecure=maybe"], &[]),
        "--set insecure=maybe: \"maybe\" is not a boolean: true or false"
    );
}

#[test]
fn there_is_something_to_boot() {
    assert!(error(&[], &[]).starts_with("nothing to boot: give --set container_image=IMAGE"));
    assert!(error(&["--set", "container_image="], &[]).starts_with("nothing to boot"));
    assert_eq!(
        error(&["--set", "flavor=x", "--set", "repository=y"], &[]),
        "nothing to boot: the release lacks release_version, artifact_version; give --set KEY=VALUE for each, \
         or --set container_image=IMAGE"
    );
    let both_off = ["--set", IMAGE, "--set", "disable_iso=true", "--set", "disable_netboot=true"];
    assert_eq!(error(&both_off, &[]), "nothing to do: disable_iso and disable_netboot are both set; leave one away");
    let mut fake = Fake::with(&[("-", "x")]);
    assert!(load(&["--cloud-config", "-"], &mut fake).is_err());
    assert!(fake.asked.is_empty(), "the error does not wait for standard input");
}

#[test]
fn an_image_outranks_an_iso_and_an_iso_a_release() {
    let release = "repository=o/r release_version=v1 artifact_version=v1 flavor=debian";
    let words = |more: &str| format!("{release} {more}").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let load = |more: &str| {
        let words: Vec<String> = words(more).into_iter().flat_map(|word| ["--set".to_owned(), word]).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let config = self::load(&words, &mut Fake::with(&[])).unwrap().0;
        (format!("{:?}", config.image().unwrap()), config.boots_arch(), config::report(&config, &[]))
    };
    let (image, arch, _) = load("");
    assert!(image.starts_with("Release") && arch == Arch::Amd64, "{image} {arch}");
    assert_eq!(load("platform=arm64").1, Arch::Arm64);
    assert_eq!(load("arch=arm64").1, Arch::Arm64);
    let (image, _, text) = load("iso_url=/srv/kairos.iso");
    assert_eq!(image, "Iso(\"/srv/kairos.iso\")");
    assert!(text.contains("--set (ignored: iso_url takes over)"), "{text}");
    let (image, _, text) = load(&format!("iso_url=https://host/kairos.iso {IMAGE}"));
    assert!(image.starts_with("Container"), "{image}");
    assert!(
        text.contains("https://host/kairos.iso") && text.contains("(ignored: container_image takes over)"),
        "{text}"
    );
    for bad in ["-", "ftp://host/kairos.iso"] {
        let refused = format!("--set iso_url={bad}: {bad:?} is not a path or an http(s) URL");
        assert_eq!(error(&["--set", &format!("iso_url={bad}")], &[]), refused);
    }
    assert!(error(&["--set", "iso_url=~/a.iso"], &[]).contains("`~` is not expanded"));
}

#[test]
fn the_overlay_has_an_old_and_a_new_name() {
    let overlay = |file: &str, set: &[&str]| {
        let words = [&["a.yaml", "--set", IMAGE], set].concat();
        let config = load(&words, &mut Fake::with(&[("a.yaml", file)])).unwrap().0;
        config.iso.overlay_iso.value.map(|path| path.display().to_string())
    };
    assert_eq!(overlay("iso: {data: /old}", &[]).as_deref(), Some("/old"));
    assert_eq!(overlay("iso: {data: /old, overlay_iso: /new}", &[]).as_deref(), Some("/new"));
    assert_eq!(overlay("iso: {overlay_iso: /new}", &["--set", "iso.data=/set"]).as_deref(), Some("/set"));
    assert_eq!(overlay("{}", &[]), None);
}

#[test]
fn a_group_is_no_key() {
    let message = error(&["--set", IMAGE, "--set", "netboot=x"], &[]);
    assert_eq!(message, "--set: netboot is a group; its keys are netboot.cmdline, netboot.allow, netboot.deny");
}

// ── Advice ───────────────────────────────────────────────────────────────────────────────────────────────────────

fn warnings(words: &[&str], contents: &[(&str, &str)]) -> Vec<String> {
    let (_, warnings) = load(words, &mut Fake::with(contents)).unwrap();
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn each_warning() {
    let cloud = |content: &str| warnings(&["--set", IMAGE, "--cloud-config", "/c"], &[("/c", content)]);
    let good = "#cloud-config\ninstall: {auto: true}\nusers: [{name: a, groups: [admin]}]\n";
    assert_eq!(cloud(good), [""; 0]);
    assert_eq!(cloud(&format!("{}{good}", "#\n".repeat(8))), [""; 0]);
    assert_eq!(cloud(&format!("{}#cloud-config\n", "#\n".repeat(9))), [""; 0], "the tenth line, and the last");
    let late = cloud(&format!("{}{good}", "#\n".repeat(9)));
    assert_eq!(late, ["/c has no line `#cloud-config` among its first 9: nodes ignore it, and say nothing"]);
    let headless = cloud("#cloud-config2\n");
    assert_eq!(headless, late);
    let no_admin = cloud("#cloud-config\ninstall: {auto: true}\nusers: [{name: a}]\n");
    assert!(no_admin[0].starts_with("/c installs automatically but has no user in the group admin"), "{no_admin:?}");
    let big = cloud(&format!("#cloud-config\n{}", "#".repeat(CLOUD_CONFIG_BYTES_WARN)));
    assert_eq!(big, ["/c is 1.0 MB: nodes skip files above 1.0 MB"]);
    let broken = cloud("#cloud-config\na: [\n");
    assert!(broken[0].starts_with("/c cannot be read as YAML, and hardly by the nodes: "), "{broken:?}");
    assert_eq!(cloud("#cloud-config\n{{ if .x }}\na: 1\n{{ end }}\n"), [""; 0], "the node makes YAML of it");

    let foreign = cloud("#cloud-config\n#[[[ range .users ]]]\n");
    assert!(foreign[0].starts_with("/c:2: looks like a template of the original and stays as it is"), "{foreign:?}");

    let none = warnings(&["--set", IMAGE], &[]);
    assert_eq!(none, ["no cloud config is given: machines boot the image, and nothing is installed or configured"]);
    assert_eq!(warnings(&["--set", IMAGE, "--set", "disable_netboot=true"], &[]), [""; 0], "no machine boots");
    let inputs = [("a.yaml", "container_image: a\ndisk:\n  efi: true\niso.name: x\n"), ("/c", "#cloud-config\n")];
    let unsupported = warnings(&["a.yaml", "--cloud-config", "/c", "--set", "system.cores=2"], &inputs);
    assert_eq!(
        unsupported,
        [
            "a.yaml:3: disk.efi is a key of the original AuroraBoot that is not supported yet; it has no effect",
            "a.yaml:4: iso.name is a key of the original AuroraBoot that is not supported yet; it has no effect",
            "--set: system.cores is a key of the original AuroraBoot that is not supported yet; it has no effect",
        ]
    );
    let inputs = [("/c", "#cloud-config\na: [[ .a.b | default 1 ]]\nb: [[ if .list ]]x[[ end ]]\n")];
    let words =
        ["--set", IMAGE, "--cloud-config", "/c", "--set", "a.b=1", "--set", "list.0=x", "--set", "disable_pxe=1"];
    let unused = warnings(&words, &inputs);
    assert_eq!(
        unused,
        ["--set disable_pxe has no effect: it is not a key of the configuration, and no template uses it"]
    );
}

#[test]
fn the_report_has_no_secret() {
    let file = "container_image: https://me:hunter2@registry/image\nvalues: {kairos: {passwd: hunter2}, p2p: {network_token: hunter2}}\n\
                netboot: {cmdline: 'x config_url=http://me:hunter2@h/?hunter2 y'}\ncloud_config: |\n  passwd: hunter2\n  x:\n";
    let words = ["a.yaml", "--set", "a.ssh_key=hunter2", "--set", "plain=http://me:hunter2@h/\u{1b}[31m"];
    let (config, warnings) = load(&words, &mut Fake::with(&[("a.yaml", file)])).unwrap();
    let report = config::report(&config, &warnings);
    assert!(!report.contains("hunter2") && !report.contains('\u{1b}'), "{report}");
    assert!(!format!("{config:?}").contains("hunter2"));
    for line in
        ["container_image            https://***@registry/image", "kairos.passwd      *** ", "a.ssh_key          ***"]
    {
        assert!(report.contains(line), "{line}\n{report}");
    }
}

// ── Noise ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// xorshift64*, so that a failure is the same failure tomorrow.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    /// A few bytes changed, taken out, doubled, or replaced by what parsers stumble over.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const TRAPS: [&[u8]; 18] = [
            b"[[",
            b"]]",
            b"[[[",
            b" .a.b ",
            b"[[ if .x ]]",
            b"[[ else ]]",
            b"[[ end ]]",
            b"| default \"",
            b"\\",
            b"&a",
            b"*a",
            b"\n",
            b": ",
            b"{",
            b"- ",
            b"\xff",
            b"\0",
            b"!!binary |",
        ];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 => bytes.truncate(at),
                2 => {
                    let end = at + self.below(bytes.len() - at + 1);
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let trap = TRAPS[self.below(TRAPS.len())];
                    bytes.splice(at..at, trap.iter().copied());
                }
            }
            bytes.truncate(16 << 10);
        }
    }
}

#[test]
fn noise_is_never_a_panic_and_errors_stay_one_line() {
    let seeds = ["aurora.yaml", "reference.yaml", "template.yaml", "minimal.yaml", "stdin.yaml"].map(data);
    let mut noise = Noise(0x5eed_2026);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..2_000 {
        let pick = |noise: &mut Noise| {
            let mut bytes = seeds[noise.below(seeds.len())].clone();
            noise.mutate(&mut bytes);
            bytes
        };
        let mut fake = Fake::default();
        fake.contents.insert("a.yaml".into(), pick(&mut noise));
        fake.contents.insert("/c".into(), pick(&mut noise));
        let mut set = b"kairos.password=foobar".to_vec();
        noise.mutate(&mut set);
        let set = String::from_utf8_lossy(&set).into_owned();
        let file = if noise.below(3) == 0 { Some("a.yaml".to_owned()) } else { None };
        let typed = Args {
            config: file,
            set: vec![IMAGE.to_owned(), "github.user=mudler".to_owned(), set],
            cloud_config: Some("/c".to_owned()),
            ..Args::default()
        };
        match config::load(&typed, &mut fake) {
            Ok((config, warnings)) => {
                good += 1;
                let report = config::report(&config, &warnings);
                assert!(!report.chars().any(|c| c.is_control() && c != '\n'), "{report:?}");
            }
            Err(error) => {
                bad += 1;
                let text = error.to_string();
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
    assert!(good > 100 && bad > 100, "{good} good, {bad} bad: the noise is too loud or too quiet");
}
