"""Where the product gets its operating system from: what must run or lie there first, and the settings for it.

Each function prepares one source on the lab's LAN and returns what follows the product's `--set`s.
"""

import hashlib
import socket
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


def archived(lan, flavour, target, *flags):
    """Copies the test image out of its registry to where skopeo's `target` says."""
    lan.start_registry(made(flavour) / "registry")
    source, plain = f"docker://{network.REGISTRY}/kairos-lab:{flavour}", lan.directory / "plain"
    # Plain first: the image has layers of every compression, and not every target takes them all.
    lan.exec(lan.server, "skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-decompress", source, f"dir:{plain}")
    run("skopeo", "copy", "--quiet", *flags, f"dir:{plain}", target)
    lan.stop_registry()


def docker_archive(lan, flavour, directory):
    """A file as `docker save` writes it."""
    archived(lan, flavour, f"docker-archive:{directory}/image.tar:kairos-lab:{flavour}")
    return [f"container_image=docker-archive:{directory}/image.tar"]


def compressed(program, suffix):
    """The same, compressed as a whole."""

    def prepare(lan, flavour, directory):
        docker_archive(lan, flavour, directory)
        run(program, "-q", str(directory / "image.tar"))
        return [f"container_image=docker-archive:{directory}/image.tar.{suffix}:kairos-lab:{flavour}"]

    return prepare


def oci_archive(compression):
    """An OCI layout in a tar file, with layers of that compression."""

    def prepare(lan, flavour, directory):
        archived(lan, flavour, f"oci-archive:{directory}/image.tar:v1", "--format=oci", f"--dest-compress-format={compression}")
        return [f"container_image=oci-archive:{directory}/image.tar:v1"]

    return prepare


def oci_layout(lan, flavour, directory):
    """An OCI layout in a directory."""
    archived(lan, flavour, f"oci:{directory}/layout:v1")
    return [f"container_image=oci:{directory}/layout:v1"]


def rootfs(lan, flavour, directory):
    """A root file system on the product's own host."""
    oci_layout(lan, flavour, directory)
    run("umoci", "unpack", "--image", f"{directory}/layout:v1", f"{directory}/bundle")
    return [f"container_image=dir:{directory}/bundle/rootfs"]


def original(_lan, flavour, directory):
    """An ISO as the original makes it, named like an image."""
    path = directory / "original.iso"
    run(str(HERE / "iso"), "original", str(made(flavour) / "files"), str(path))
    return [f"container_image=iso:{path}"]


def dockerd(lan, flavour, directory):
    """The image in a Docker daemon, where somebody has built it."""
    docker_archive(lan, flavour, directory)
    address = start_dockerd(lan, directory)
    run("docker", "--host", address, "load", "--quiet", "--input", str(directory / "image.tar"))
    lan.environment["DOCKER_HOST"] = address
    return [f"container_image=docker://kairos-lab:{flavour}"]


def start_dockerd(lan, directory):
    """A real one on the server; returns its address."""
    place, sockets = directory / "docker", lan.short_directory()
    place.mkdir()
    (place / "daemon.json").write_text("{}")
    address = f"unix://{sockets}/docker.sock"
    command = [
        "dockerd", "--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", f"--config-file={place}/daemon.json",
        f"--data-root={place}/data", f"--exec-root={sockets}/exec", f"--pidfile={place}/pid", f"--host={address}",
    ]
    process = lan.start(lan.server, command, directory / "dockerd.log", own_sysfs=False)
    network.wait_until("dockerd", lambda: answers(sockets / "docker.sock"), 60, process)
    return address


def named(lan, flavour, directory):
    """The same without a prefix: the daemon has it, and nobody asks a registry."""
    dockerd(lan, flavour, directory)
    return [f"container_image=kairos-lab:{flavour}"]


def podman(lan, flavour, directory):
    """The image in podman's store, behind its API."""
    docker_archive(lan, flavour, directory)
    place, sockets = directory / "podman", lan.short_directory()
    place.mkdir()
    # Locks of its own: those that all podmans of a host share are freed by one that sees its `tmpdir` for the first time.
    (place / "containers.conf").write_text('[engine]\nlock_type = "file"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
    command = [
        "env", f"CONTAINERS_CONF={place}/containers.conf", "podman", f"--root={place}/root", f"--runroot={sockets}/run", f"--tmpdir={place}/tmp", "--storage-driver=vfs",
    ]
    run(*command, "load", "--quiet", "--input", str(directory / "image.tar"))
    process = lan.start(lan.server, [*command, "system", "service", "--time=0", f"unix://{sockets}/podman.sock"], directory / "podman.log", own_sysfs=False)
    network.wait_until("podman", lambda: answers(sockets / "podman.sock"), 60, process)
    lan.environment["DOCKER_HOST"] = f"unix://{sockets}/podman.sock"
    return [f"container_image=docker://docker.io/library/kairos-lab:{flavour}"]


def answers(path):
    """Whether somebody accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


# Of images that no registry has: name of the case, what prepares it, whether CI takes it.
LOCAL = {
    "docker": (dockerd, True),
    "docker-named": (named, False),
    "podman": (podman, True),
    "docker-archive": (docker_archive, False),
    "docker-archive-gzip": (compressed("gzip", "gz"), True),
    "docker-archive-zstd": (compressed("zstd", "zst"), False),
    "oci-archive-gzip": (oci_archive("gzip"), False),
    "oci-archive-zstd": (oci_archive("zstd"), True),
    "oci-layout": (oci_layout, False),
    "rootfs": (rootfs, True),
    "iso-prefix": (original, False),
}
SOURCES = {
    "registry": registry, "release": release, **{kind: iso(kind) for kind in ("grub", "isolinux", "ipxe")},
    **{name: prepare for name, (prepare, _) in LOCAL.items()},
}
