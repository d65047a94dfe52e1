//! The program as it is started: exit codes, which stream gets what, and that a look changes nothing.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

const IMAGE: &str = "container_image=registry.invalid/image:1";

fn auroraboot(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auroraboot"));
    command.args(words).stdin(Stdio::null());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name); // the tests' server is on loopback
    }
    command
}

/// Exit code, stdout, stderr.
fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(words: &[&str]) -> (Option<i32>, String, String) {
    outcome(&auroraboot(words).output().unwrap())
}

/// A directory of this test alone, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("auroraboot-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn help_and_version_are_on_stdout_whatever_the_configuration_says() {
    for flag in ["--help", "-h"] {
        let (code, out, err) = run(&["/missing.yaml", "--set", "nonsense", flag]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for word in ["Usage: auroraboot", "--cloud-config", "--dry-run", "container_image", "netboot.deny"] {
            assert!(out.contains(word), "{word}\n{out}");
        }
    }
    for flag in ["--version", "-V", "-v"] {
        let version = concat!("auroraboot ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(run(&[flag]), (Some(0), version.to_owned(), String::new()));
    }
}

#[test]
fn licenses_names_the_boot_loaders() {
    let (code, out, err) = run(&["/missing.yaml", "--licenses"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("ipxe"), "{out}");
}

#[test]
fn mistakes_are_one_line_on_stderr_and_code_2() {
    let scratch = Scratch::new("mistakes");
    let config = scratch.file("a.yaml", "container_image: x\ncontaner_image: y\n");
    let empty = scratch.file("empty", "");
    let template = scratch.file("template", "#cloud-config\n\npasswd: [[ .kairos.password ]]\n");
    let dir = scratch.0.to_str().unwrap();
    for (words, message) in [
        (&["--dry-rn"][..], "unknown flag --dry-rn, did you mean --dry-run?".to_owned()),
        (&["--set"], "--set needs a value: --set KEY=VALUE".to_owned()),
        (&["--set", "disable_netboot"], "--set disable_netboot: there is no `=`".to_owned()),
        (&["--set", "contaner_image=x"], "--set contaner_image: unknown key, did you mean container_image?".to_owned()),
        (&["--set", IMAGE, "--set", "disable_iso=2"], "--set disable_iso=2: \"2\" is not a boolean".to_owned()),
        (&[], "nothing to boot: give --set container_image=IMAGE".to_owned()),
        (&["/missing.yaml"], "cannot read the configuration file /missing.yaml: there is no such file".to_owned()),
        (&[&config], format!("{config}:2: unknown key contaner_image, did you mean container_image?")),
        (&["--set", IMAGE, "--cloud-config", "/missing"], "cannot read the cloud config /missing: ".to_owned()),
        (&["--set", IMAGE, "--cloud-config", dir], format!("cannot read the cloud config {dir}: it is a directory")),
        (&["--set", IMAGE, "--cloud-config", &empty], format!("the cloud config {empty} is empty")),
        (&["--set", IMAGE, "--cloud-config", "-"], "the cloud config on standard input is empty".to_owned()),
        (&["--set", IMAGE, "--cloud-config=~/c"], "the cloud config ~/c: `~` is not expanded here".to_owned()),
        (
            &["--set", IMAGE, "--cloud-config", &template],
            format!(
                "{template}:3: [[ .kairos.password ]] has no value; add it below `values:`, or --set kairos.password=VALUE"
            ),
        ),
    ] {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{words:?}: {err}");
        assert!(err.starts_with(&format!("auroraboot: {message}")), "{words:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert_eq!(err.matches(&message).count(), 1, "nothing is said twice: {err}");
    }
}

#[test]
fn a_dry_run_refuses_what_the_run_would_refuse_at_once() {
    let scratch = Scratch::new("refused");
    let garbage = scratch.file("garbage.pem", "no certificate");
    let state = format!("state_dir={}", scratch.0.join("state").display());
    let dir = scratch.0.to_str().unwrap();
    let set = |key: &str, value: &str| format!("{key}={value}");
    let release = "--set repository=nonsense --set release_version=1 --set artifact_version=1 --set flavor=x";
    for (set, message) in [
        (set("container_image", "http://me:hunter2@h/x"), "--set: container_image: \"http://\" begins with no prefix"),
        (set("container_image", "UPPER/Case"), "--set: container_image: \"UPPER/Case\" is not a repository"),
        (set("container_image", "foo@sha256:12"), "--set: container_image: \"sha256:12\" is not a digest"),
        (set("container_image", "docker://a//b"), "--set: container_image: \"a//b\" is no image name: a part between"),
        (
            set("container_image", "https://a/b"),
            "--set: container_image: \"https://\" begins with no prefix that is known",
        ),
        (set("container_image", "dir:/missing"), "--set: container_image: /missing: No such file or directory"),
        (
            set("container_image", "oci-archive:/missing:v1"),
            "--set: container_image: /missing: No such file or directory",
        ),
        (set("netboot.cmdline", "a\tb"), "--set: netboot.cmdline contains '\\t'"),
        (set("netboot.cmdline", &"x".repeat(2048)), "--set: netboot.cmdline makes a command line of "),
        (set("ca_file", "/missing.pem"), "cannot read the certificates of ca_file /missing.pem: No such file"),
        (set("ca_file", &garbage), &format!("{garbage} holds no PEM certificate")),
        (
            set("iso.overlay_iso", "/missing"),
            "--set: iso.overlay_iso /missing is not a directory that can be read: No such",
        ),
        (
            set("iso.override_name", "../x"),
            "--set: iso.override_name: the name of the ISO, \"../x\", begins with a dot",
        ),
        (
            set("iso.extend-live-cmdline", "a \"b"),
            "the menu of the ISO cannot be made: iso.extend-live-cmdline has a \" without",
        ),
        (set("loaders_dir", "/missing"), "--set: cannot read the loaders_dir /missing: No such file"),
        (set("loaders_dir", dir), &format!("--set: the loaders_dir {dir} has none of the boot loaders")),
        (set("state_dir", "~/x"), "--set state_dir=~/x: `~` is not expanded here; write the full path"),
    ] {
        for dry_run in [&["--dry-run"][..], &[]] {
            let words = [&["--set", IMAGE, "--set", &state, "--set", &set], dry_run].concat();
            let (code, out, err) = run(&words);
            assert_eq!((code, out.as_str()), (Some(2), ""), "{words:?}: {err}");
            assert!(err.starts_with(&format!("auroraboot: {message}")) && err.lines().count() == 1, "{set}: {err}");
        }
    }
    for dry_run in [&["--dry-run"][..], &[]] {
        let words: Vec<&str> = release.split(' ').chain(dry_run.iter().copied()).collect();
        let (code, _, err) = run(&words);
        assert_eq!(code, Some(2), "{err}");
        let wanted = "auroraboot: repository: \"nonsense\" is not OWNER/NAME, such as kairos-io/kairos";
        assert!(err.starts_with(wanted), "{err}");
    }
    assert!(!scratch.0.join("state").exists(), "nothing was begun");
}

#[test]
fn a_dry_run_prints_and_changes_nothing() {
    let scratch = Scratch::new("dry");
    let state = scratch.0.join("state");
    let config = scratch.file(
        "a.yaml",
        &format!("container_image: registry.invalid/a\nstate_dir: {}\nvalues: {{user: mudler}}\n", state.display()),
    );
    let words = [
        &config,
        "--set",
        "kairos.password=hunter2",
        "--dry-run",
        "--cloud-config",
        "-",
        "--set",
        "netboot_http_port=9090",
    ];
    let mut child =
        auroraboot(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let cloud = "#cloud-config\nusers:\n- {name: [[ .user ]], passwd: \"[[ .kairos.password ]]\"}\n";
    child.stdin.take().unwrap().write_all(cloud.as_bytes()).unwrap();
    let (code, out, err) = outcome(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<String> = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for wanted in [
        format!("container_image registry.invalid/a {config}:1"),
        "netboot_http_port 9090 --set".to_owned(),
        "arch amd64 default".replace("amd64", auroraboot::units::Arch::host().name()),
        "from standard input --cloud-config".to_owned(),
        "will do installs nothing by itself (no `install.auto: true`); users mudler".to_owned(),
        "kairos.password *** --set".to_owned(),
        format!("user mudler {config}:3"),
    ] {
        assert!(lines.contains(&wanted), "{wanted}\n{out}");
    }
    assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
    assert!(!state.exists(), "a dry run makes no directory");
}

/// Answers one GET with this status and body.
fn serve_once(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/config.yaml", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
    });
    url
}

#[test]
fn configuration_and_cloud_config_come_from_urls() {
    let config = serve_once("200 OK", "container_image: registry.invalid/a\n");
    let cloud = serve_once("200 OK", "#cloud-config\nhostname: [[ .name ]]\n");
    let (code, out, err) = run(&[&config, "--cloud-config", &cloud, "--set", "name=n", "--dry-run"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&format!("{config}:1")) && out.contains(&cloud), "{out}");

    let missing = serve_once("404 Not Found", "#cloud-config\n");
    let (code, out, err) = run(&["--set", IMAGE, "--cloud-config", &missing, "--dry-run"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with(&format!("auroraboot: cannot read the cloud config {missing}: ")), "{err}");
    assert!(err.contains("404") && err.lines().count() == 1, "{err}");
}
