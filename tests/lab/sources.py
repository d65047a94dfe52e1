"""Where the product gets its operating system from: what must run or lie there first, and the settings for it.

Each function prepares one source on the lab's LAN and returns what follows the product's `--set`s.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import lan as network
from lan import SERVER, run

HERE = Path(__file__).resolve().parent
HTTPS_PORT = 8443
REPOSITORY, RELEASE = "lab/kairos", "v3.0.0"


def made(flavour):
    """The directory of a test image; made now when it is not there."""
    image = subprocess.run([HERE / "image", flavour], stdout=subprocess.PIPE, text=True)
    if image.returncode:
        raise RuntimeError(f"the {flavour} image could not be made")
    return Path(image.stdout.strip())


def registry(lan, flavour, _directory):
    """The image in a registry."""
    lan.start_registry(made(flavour) / "registry")
    architecture = ["arch=arm64"] if flavour.endswith("-arm64") else []
    return [f"container_image={network.REGISTRY}/kairos-lab:{flavour}", "allow-insecure-registries=true", *architecture]


def iso(kind):
    """The path of an ISO that other tools made (see the script `iso`)."""

    def prepare(_lan, flavour, directory):
        path = directory / f"{kind}.iso"
        run(str(HERE / "iso"), kind, str(made(flavour) / "files"), str(path))
        return [f"iso_url={path}"]

    return prepare


def release(lan, flavour, directory):
    """A release with an ISO in the original's layout, on a server that plays GitHub."""
    root = directory / "github"
    assets = root / REPOSITORY / "releases/download" / RELEASE
    assets.mkdir(parents=True)
    name = f"kairos-debian-12-core-amd64-generic-{RELEASE}.iso"
    run(str(HERE / "iso"), "original", str(made(flavour) / "files"), str(assets / name))
    # The shape of those published since 2025: the path is the one on the machine that built it.
    digest = hashlib.sha256((assets / name).read_bytes()).hexdigest()
    (assets / f"{name}.sha256").write_text(f"{digest}  artifacts/{name}\n")
    authority = make_certificate(root)
    process = lan.start(lan.server, [sys.executable, str(HERE / "github.py"), SERVER, str(HTTPS_PORT), str(root)], directory / "github.log")
    network.wait_until("the server that plays GitHub", lambda: network.listens(process.pid, HTTPS_PORT), 20, process)
    return [
        f"repository={REPOSITORY}", f"release_version={RELEASE}", f"artifact_version={RELEASE}", "flavor=debian", "flavor_release=12",
        f"github_url=https://{SERVER}:{HTTPS_PORT}", f"ca_file={authority}",
    ]


def make_certificate(directory):
    """server.pem for the server's address, signed by an authority of the lab's own; returns the authority's certificate."""
    authority, key, server = (str(directory / name) for name in ("ca.pem", "ca.key", "server.pem"))
    new = ["openssl", "req", "-x509", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    run(*new, "-subj", "/CN=Authority of the lab", "-keyout", key, "-out", authority)
    run(
        *new, "-subj", "/CN=GitHub of the lab", "-CA", authority, "-CAkey", key, "-keyout", f"{server}.key", "-out", server,
        "-addext", f"subjectAltName=IP:{SERVER}", "-addext", "basicConstraints=critical,CA:FALSE",
    )
    with open(server, "a") as file:
        file.write(Path(f"{server}.key").read_text())
    return authority


SOURCES = {"registry": registry, "release": release, **{kind: iso(kind) for kind in ("grub", "isolinux", "ipxe")}}
