#!/usr/bin/env python3
"""layers.py ROOT LAYOUT TAG ARCHITECTURE - pack a root file system as an OCI image layout, awkwardly.

Three layers, each compressed differently, hold what a careless unpacker gets wrong. Checked on the
booted node by guest/node-report:

  layer 1 (GNU tar, gzip)  a file the next layer removes; a directory layer 3 replaces;
                           a hard-linked pair; a file name that is not UTF-8
  layer 2 (PAX, zstd)      the whiteout; a file with security.capability; a setuid file of another
                           owner; a third hard link, to a file of layer 1
  layer 3 (plain tar)      the directory again, marked opaque

ROOT itself ends up as a right unpacker would leave it.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

MEDIA = "application/vnd.oci.image."
CREATED = 1767225600  # 2026-01-01, so that equal input gives an equal image
# vfs_cap_data revision 2 with the effective bit: permitted CAP_NET_RAW (bit 13), nothing inheritable
CAP_NET_RAW = "\x01\x00\x00\x02" + "\x00\x20\x00\x00" + "\x00" * 12


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(text)


def base_layer(root):
    """The whole tree, and what the later layers are to change."""
    lab = root + "/opt/lab"
    write(root + "/etc/lab-removed", b"a whiteout hides me\n")
    write(lab + "/present", b"yes\n")
    write(lab + "/tree/old", b"an opaque directory hides me\n")
    write(lab + "/link-a", b"one file, three names\n")
    os.link(lab + "/link-a", lab + "/link-b")
    write(os.fsencode(lab) + b"/caf\xe9", b"latin1\n")
    return subprocess.run(
        ["tar", "-C", root, "--format=gnu", "--sort=name", "--numeric-owner", "-c", *sorted(os.listdir(root))],
        stdout=subprocess.PIPE, check=True,
    ).stdout


def entry(tar, name, data=b"", mode=0o644, owner=(0, 0), kind=tarfile.REGTYPE, target="", xattrs=None):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.mtime = kind, mode, target, CREATED
    info.uid, info.gid = owner
    info.size = len(data)
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    tar.addfile(info, io.BytesIO(data))


def directory(tar, name):
    entry(tar, name, mode=0o755, kind=tarfile.DIRTYPE)


def second_layer(root):
    with open(root + "/bin/busybox", "rb") as file:
        busybox = file.read()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry(tar, "etc/.wh.lab-removed")
        directory(tar, "opt/lab/capable")
        entry(tar, "opt/lab/capable/busybox", busybox, mode=0o755, xattrs={"security.capability": CAP_NET_RAW})
        entry(tar, "opt/lab/setuid", b"#!/bin/sh\n", mode=0o4755, owner=(1234, 5678))
        entry(tar, "opt/lab/link-c", kind=tarfile.LNKTYPE, target="opt/lab/link-a")
    return out.getvalue()


def third_layer():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        directory(tar, "opt/lab/tree")
        entry(tar, "opt/lab/tree/new", b"before the mark: it must not hide this\n")
        entry(tar, "opt/lab/tree/.wh..wh..opq")
    return out.getvalue()


def apply(root, layers):
    """What an unpacker makes of the later layers."""
    os.remove(root + "/etc/lab-removed")
    shutil.rmtree(root + "/opt/lab/tree")
    for layer in layers:
        command = ["tar", "-C", root, "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=.wh.*"]
        subprocess.run(command, input=layer, check=True)


def zstd(data):
    return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def main():
    root, layout, tag, architecture = sys.argv[1:]
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout + "/blobs/sha256"
    os.makedirs(blobs)

    def blob(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        write(f"{blobs}/{digest}", data)
        return {"mediaType": MEDIA + media_type, "digest": "sha256:" + digest, "size": len(data)}

    tars = [base_layer(root), second_layer(root), third_layer()]
    layers = [
        blob(gzip.compress(tars[0], 3, mtime=0), "layer.v1.tar+gzip"),
        blob(zstd(tars[1]), "layer.v1.tar+zstd"),
        blob(tars[2], "layer.v1.tar"),
    ]
    config = {
        "architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]},
        "history": [{"created_by": "tests/lab/image"}] * len(tars),
    }
    manifest = {
        "schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": layers,
    }
    index = {"schemaVersion": 2, "manifests": [{
        **blob(json.dumps(manifest).encode(), "manifest.v1+json"),
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }]}
    write(layout + "/index.json", json.dumps(index).encode())
    write(layout + "/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    apply(root, tars[1:])


main()
