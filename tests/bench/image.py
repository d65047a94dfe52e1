#!/usr/bin/env python3
"""Make the benchmark's image: image.py DIRECTORY [MEGABYTES]

An OCI layout of four gzip layers out of this machine's own /usr: programs, libraries, many small files, and on top of them a layer
that replaces, deletes and hides some, as updates do. It holds a kernel and an initrd (random bytes: they are incompressible in
reality too), so that the whole way from registry to boot set can be run on it. Files are taken in the order of their names until
MEGABYTES (1100) are reached, so two runs on one machine make the same image.
"""
import hashlib, io, json, os, random, subprocess, sys, tarfile

out, megabytes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1100
blobs = os.path.join(out, "blobs/sha256")
os.makedirs(blobs, exist_ok=True)
KERNEL = "6.1.0-bench-amd64"


def member(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def files(top, budget):
    """Paths below top in the order of their names, until their sizes reach the budget (bytes)."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in [""] + sorted(names) + [f for f in folders if os.path.islink(os.path.join(folder, f))]:
            path = os.path.join(folder, name) if name else folder
            if os.path.isfile(path) and not os.path.islink(path):
                budget -= os.path.getsize(path)
            yield path
            if budget <= 0:
                return


def layer(fill):
    """Writes one gzip layer through fill(tar); returns its descriptor, its diff id, and its unpacked size."""
    raw = os.path.join(out, "layer.tar")
    with tarfile.open(raw, "w", format=tarfile.PAX_FORMAT) as tar:
        fill(tar)
    with open(raw, "rb") as plain, open(raw + ".gz", "wb") as packed:
        subprocess.run(["gzip", "-6", "-n"], stdin=plain, stdout=packed, check=True)
    def digest(path):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    diff, name, size = digest(raw), digest(raw + ".gz"), os.path.getsize(raw)
    packed_size = os.path.getsize(raw + ".gz")
    os.replace(raw + ".gz", os.path.join(blobs, name))
    os.remove(raw)
    media = "application/vnd.oci.image.layer.v1.tar+gzip"
    return {"mediaType": media, "digest": "sha256:" + name, "size": packed_size}, "sha256:" + diff, size


def tree(top, share):
    def fill(tar):
        for path in files(top, int(megabytes * 1e6 * share)):
            tar.add(path, arcname=path.lstrip("/"), recursive=False)
    return fill


def boot(tar):
    random.seed(1)
    for folder in ("boot", "etc", f"lib/modules/{KERNEL}"):
        tar.addfile(*member(folder, type=tarfile.DIRTYPE, mode=0o755))
    tar.addfile(*member(f"boot/vmlinuz-{KERNEL}", random.randbytes(8_000_000), mode=0o644))
    tar.addfile(*member(f"boot/initrd-{KERNEL}", random.randbytes(30_000_000), mode=0o644))
    tar.addfile(*member("boot/vmlinuz", type=tarfile.SYMTYPE, linkname=f"/boot/vmlinuz-{KERNEL}"))
    tar.addfile(*member("etc/os-release", b"ID=bench\n", mode=0o644))


def update(tar):
    """What the top layer of a real image does: replaces some files of the layers below, deletes one, hides a folder."""
    for path in list(files("/usr/share", int(megabytes * 1e6 * 0.02))):
        tar.add(path, arcname=path.lstrip("/"), recursive=False)
    tar.addfile(*member("etc/.wh.os-release", mode=0o644))
    tar.addfile(*member("usr/bin/.wh.gdb", mode=0o644))


def blob(data):
    name = hashlib.sha256(data).hexdigest()
    with open(os.path.join(blobs, name), "wb") as file:
        file.write(data)
    return "sha256:" + name, len(data)


made = [layer(fill) for fill in (tree("/usr/lib", 0.6), tree("/usr/share", 0.2), boot, tree("/usr/bin", 0.2), update)]
config, size = blob(json.dumps({
    "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "config": {},
    "rootfs": {"type": "layers", "diff_ids": [diff for _, diff, _ in made]},
}).encode())
manifest, length = blob(json.dumps({
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size},
    "layers": [descriptor for descriptor, _, _ in made],
}).encode())
with open(os.path.join(out, "index.json"), "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": length,
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": "bench"},
    }]}, file)
with open(os.path.join(out, "oci-layout"), "w") as file:
    json.dump({"imageLayoutVersion": "1.0.0"}, file)
packed = sum(descriptor["size"] for descriptor, _, _ in made)
print(f"{out}: {sum(size for _, _, size in made) / 1e6:.0f} MB in {len(made)} layers, {packed / 1e6:.0f} MB packed")
