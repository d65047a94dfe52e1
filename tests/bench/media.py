"""The rows of tests/bench/run about ISOs: made of an image, with a cloud config added, fetched as a release."""
import contextlib
import hashlib
import mmap
import os
import shutil
import subprocess

from lab import BENCH, CACHE, IMAGE, SERVER, Series, disk_mb, listens, note, number, product, write_random

CONFIG = "#cloud-config\nhostname: bench\nusers: [{name: kairos, passwd: kairos, groups: [admin]}]\ninstall: {device: auto, auto: true, reboot: true}\n"
KERNEL_MB, INITRD_MB = 8, 30
SHARING = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"]}  # file systems in which files share data
RELEASE = "v3.2.1"
ARTIFACT = f"kairos-debian-12-core-amd64-generic-{RELEASE}.iso"  # what Kairos calls it
RATE = "1gbit"
OUT = "kairos.iso.custom.iso"  # the product's name for what it makes


def pairs(*units):
    """For every unit and its digits: a series for the peer and one for the product."""
    return [[Series(unit, digits) for _ in range(2)] for unit, digits in units]


def unpack(directory):
    """The peers' commands that put the image's tree into DIRECTORY/bundle/rootfs."""
    directory.mkdir()
    return (
        ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{IMAGE}", f"oci:{directory}/oci:bench"],
        ["umoci", "unpack", "--image", f"{directory}/oci:bench", directory / "bundle"],
    )


def mksquashfs(tree, out):
    return ["mksquashfs", tree, out, "-comp", "zstd", "-Xcompression-level", "3", "-b", "1M", "-processors", "2", "-noappend", "-no-progress"]


def mkisofs(tree, out, parts):
    """What makes a tree a bootable ISO, with the arguments of the original AuroraBoot."""
    bios, esp, mbr = parts
    return (
        ["cp", bios, tree / "boot/eltorito.img"],
        ["xorriso", "-as", "mkisofs", "-V", "COS_LIVE", "-R", "-J", "-o", out, "-c", "boot/boot.catalog",
         "--grub2-mbr", mbr, "-partition_offset", 16, "--mbr-force-bootable",
         "-b", "boot/eltorito.img", "-no-emul-boot", "-boot-load-size", 4, "-boot-info-table", "--grub2-boot-info",
         "-eltorito-alt-boot", "-append_partition", 2, "0xef", esp, "-appended_part_as_gpt",
         "-e", "--interval:appended_partition_2:all::", "-no-emul-boot", tree],
    )


class MediaRows:
    """Part of Bench."""

    # What they need.

    def boot_parts(self):
        """BIOS boot image, ESP and MBR code out of the product's own ISO: the peer's boots with the same."""
        directory = self.lab.work / "parts"
        self.lab.costs(["xorriso", "-osirrox", "on", "-indev", self.once(self.state) / "iso/kairos.iso", "-extract_boot_images", directory])
        return [next(directory.glob(name)) for name in ("eltorito_img*_bios.img", "eltorito_img*_uefi.img", "mbr_code_grub2.img")]

    def large_iso(self):
        """An ISO of 1 GB, laid out as Kairos' releases, of random bytes. It is kept from run to run."""
        path = CACHE / f"kairos-{self.iso_megabytes}.iso"
        if not path.exists():
            note(f"  making an ISO of {self.iso_megabytes} MB and more; this is done once")
            tree, new = self.lab.work / "large", self.lab.work / "large.iso"
            for name, megabytes in (("rootfs.squashfs", self.iso_megabytes), ("boot/kernel", KERNEL_MB), ("boot/initrd", INITRD_MB)):
                write_random(tree / name, megabytes)
            self.lab.costs(*mkisofs(tree, new, self.once(self.boot_parts)))
            shutil.rmtree(tree)
            new.rename(path)
        return path

    def config(self):
        path = self.lab.work / "config.yaml"
        path.write_text(CONFIG)
        return path

    def certificate(self):
        """Of the server that plays GitHub; it is its own authority."""
        certificate, key = self.lab.work / "github.pem", self.lab.work / "github.key"
        command = ["openssl", "req", "-x509", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                   "-subj", "/CN=GitHub of the bench", "-addext", f"subjectAltName=IP:{SERVER}", "-addext", "basicConstraints=critical,CA:FALSE",
                   "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return certificate, key

    # The rows.

    def iso(self):
        """Registry to bootable ISO."""
        self.once(self.registry)
        parts = self.once(self.boot_parts)
        wall, cpu, peak, written, size, disk = pairs(("s", 2), ("s", 2), ("MB", 0), ("MB", 0), ("MB", 1), ("MB", 0))
        entries, share = Series("files", 0), Series("×", 3)
        directory = self.lab.work / "image"

        def note_down(side, cost, iso):
            blocks, files = disk_mb(directory)
            for series, value in ((wall, cost.wall), (cpu, cost.cpu), (peak, cost.peak_mb), (written, cost.written_mb),
                                  (size, iso.stat().st_size / 1e6), (disk, blocks)):
                series[side].add(value)
            if side == 1:
                entries.add(files)
                blobs = sum(path.stat().st_size for path in (directory / "blobs").rglob("*")) / 1e6
                share.add(cost.written_mb / (blobs + size[1].values[-1]))
            shutil.rmtree(directory)
            os.sync()

        def peer():
            bundle, tree, iso = directory / "bundle/rootfs", directory / "tree", directory / "kairos.iso"
            get = unpack(directory)
            (tree / "boot").mkdir(parents=True)
            boot = 'cp "$1"/boot/vmlinuz-* "$2/boot/kernel" && cp "$1"/boot/initrd-* "$2/boot/initrd"'
            pack = mksquashfs(bundle, tree / "rootfs.squashfs")
            cost = self.lab.costs(*get, pack, ["sh", "-c", boot, "sh", bundle, tree], *mkisofs(tree, iso, parts))
            note_down(0, cost, iso)

        def ours():
            cost = self.lab.costs(product(directory))
            note_down(1, cost, directory / "iso/kairos.iso")

        self.turns(peer=peer, auroraboot=ours)
        name, add = "skopeo, umoci, mksquashfs, xorriso:", self.table.add
        add("image → bootable ISO, wall time", wall[1], "≤ 0.35×", wall[1] / wall[0] <= 0.35, wall[0], name)
        add("– CPU time", cpu[1], peer=cpu[0])
        add("– peak RSS", peak[1], "≤ 128 MB", peak[1].median <= 128, peak[0])
        add("– ISO", size[1], peer=size[0])
        add("– bytes written", written[1], peer=written[0])
        add("– the same by layers + ISO", share, "≤ 1.1×", share.median <= 1.1)
        add("– left on disk", disk[1], peer=disk[0])
        add("– files left on disk", entries, "nothing unpacked", entries.median < 100)

    def custom(self):
        """A cloud config put into an ISO."""
        original, config = self.once(self.large_iso), self.once(self.config)
        with self.sharing_file_system(4 * original.stat().st_size) as (kind, shared):
            iso = (shared or self.lab.work) / "kairos.iso"
            if shared:
                shutil.copyfile(original, iso)
            else:
                iso.symlink_to(original)
            self.custom_elsewhere(iso, config)
            if shared:
                self.custom_shared(iso, config, kind)
            else:
                self.table.without("config into the same, data shared", "this kernel has neither xfs nor btrfs")

    def custom_elsewhere(self, iso, config):
        directory = self.lab.work / "custom"
        out = directory / OUT
        commands = {
            "cp": ["sh", "-c", 'cp "$1" "$2" && sync "$2"', "cp", iso, out],
            "xorriso": ["xorriso", "-indev", iso, "-outdev", out, "-map", config, "/config.yaml", "-boot_image", "any", "replay"],
            "auroraboot": [BENCH, "customise", iso, config, directory],
        }
        wall, peak = ({name: Series(unit, digits) for name in commands} for unit, digits in (("s", 2), ("MB", 0)))
        seal = Series("s", 2)

        def make(name):
            fresh(directory, iso)
            cost = self.lab.costs(commands[name])
            sealed = sealing(cost) if name == "auroraboot" else 0
            wall[name].add(cost.wall - sealed)
            peak[name].add(cost.peak_mb)
            if name != "cp":
                check(out)
            if name == "auroraboot":
                seal.add(sealed)

        self.turns(**{name: lambda name=name: make(name) for name in commands})
        ours, add = wall["auroraboot"], self.table.add
        what = f"config into an ISO of {iso.stat().st_size / 1e9:.2f} GB, to another file system"
        add(what, ours, "≤ 1.1×", ours / wall["cp"] <= 1.1, wall["cp"], "cp, sync")
        add("– the same", ours, "≤ 0.7×", ours / wall["xorriso"] <= 0.7, wall["xorriso"], "xorriso")
        add("– peak RSS", peak["auroraboot"], "≤ 128 MB", peak["auroraboot"].median <= 128, peak["xorriso"], "xorriso")
        add("– until its .sha256 is there, too", seal)
        shutil.rmtree(directory)

    def custom_shared(self, iso, config, kind):
        directory = iso.parent / "custom"
        wall, seal, clone = Series("s", 3), Series("s", 2), Series("s", 3)

        def peer():
            fresh(directory, iso)
            clone.add(self.lab.costs(["sh", "-c", 'cp --reflink=always "$1" "$2" && sync "$2"', "cp", iso, directory / OUT]).wall)

        def ours():
            fresh(directory, iso)
            cost = self.lab.costs([BENCH, "customise", iso, config, directory])
            seal.add(sealing(cost))
            wall.add(cost.wall - sealing(cost))
            check(directory / OUT)

        self.turns(cp=peer, auroraboot=ours)
        self.table.add(f"config into the same, data shared ({kind})", wall, "< 0.1 s", wall.median < 0.1, clone, "cp --reflink, sync")
        self.table.add("– until its .sha256 is there, too", seal)

    def release(self):
        """A release from the server that plays GitHub, over a link of 1 Gbit/s."""
        iso, config, (certificate, key) = self.once(self.large_iso), self.once(self.config), self.once(self.certificate)
        folder = self.lab.work / "github" / f"kairos-io/kairos/releases/download/{RELEASE}"
        folder.mkdir(parents=True)
        (folder / ARTIFACT).symlink_to(iso)
        with open(iso, "rb") as file:
            (folder / f"{ARTIFACT}.sha256").write_text(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {ARTIFACT}\n")
        site = f"https://{SERVER}:8443"
        directory, got = self.lab.work / "release", self.lab.work / "curl.iso"
        settings = (f"repository=kairos-io/kairos", f"release_version={RELEASE}", f"artifact_version={RELEASE}", "flavor=debian",
                    "flavor_release=12", "platform=amd64", f"github_url={site}", f"ca_file={certificate}")
        wall, cpu, peak = pairs(("s", 2), ("s", 2), ("MB", 0))

        def get(side, command):
            os.sync()
            cost = self.lab.costs(command, namespace=self.lab.client)
            for series, value in ((wall, cost.wall), (cpu, cost.cpu), (peak, cost.peak_mb)):
                series[side].add(value)
            if side == 1:
                check(directory / "iso" / OUT)
            got.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)

        curl = ["curl", "-sSf", "--cacert", certificate, "-o", got, f"{site}/{folder.relative_to(self.lab.work / 'github')}/{ARTIFACT}"]
        ours = product(directory, *settings, image=None) + ["--cloud-config", config]
        listen = f"listen 8443 ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
        with self.shaped() as (how, limit), self.nginx(self.lab.work / "github", 8443, f"{listen} {limit}"):
            note(f"  1 Gbit/s by {how}")
            subprocess.run(["cat", iso], stdout=subprocess.DEVNULL, check=True)
            self.turns(curl=lambda: get(0, curl), auroraboot=lambda: get(1, ours))
        what = f"release of {iso.stat().st_size / 1e9:.2f} GB fetched, verified and customised, 1 Gbit/s"
        self.table.add(what, wall[1], "≤ 1.15×", wall[1] / wall[0] <= 1.15, wall[0], "curl, of the ISO")
        self.table.add("– CPU time", cpu[1], peer=cpu[0])
        self.table.add("– peak RSS", peak[1], "≤ 128 MB", peak[1].median <= 128, peak[0])

    # Where they run.

    @contextlib.contextmanager
    def shaped(self):
        """The way from the server to the client at 1 Gbit/s; yields how, and what nginx has to do for it."""
        device = ["tc", "-n", self.lab.server, "qdisc"]
        # A bucket above the largest segment that TCP hands down in one piece, so that none is cut in software.
        tbf = [*device, "add", "dev", "eth0", "root", "tbf", "rate", RATE, "burst", "512kb", "latency", "50ms"]
        if subprocess.run(tbf, stderr=subprocess.DEVNULL).returncode:
            yield "nginx: this kernel has no tbf", "limit_rate 119m;"  # 119 × 2^20 × 8 bits
            return
        try:
            yield "tbf", ""
        finally:
            subprocess.run([*device, "del", "dev", "eth0", "root"], check=True)

    @contextlib.contextmanager
    def sharing_file_system(self, size):
        """Mounts a file system in which files can share data; yields its kind and place, or nothing where the kernel has none."""
        image, place = self.lab.work / "sharing.img", self.lab.work / "sharing"
        place.mkdir()
        for kind, make in SHARING.items():
            with open(image, "wb") as file:
                file.truncate(max(size, 1 << 29))
            subprocess.run([*make, image], check=True, stdout=subprocess.DEVNULL)
            if subprocess.run(["mount", "-o", "loop", image, place], stderr=subprocess.DEVNULL).returncode == 0:
                break
        else:
            yield None, None
            return
        try:
            yield kind, place
        finally:
            subprocess.run(["umount", place], check=True)
            image.unlink()


def sealing(cost):
    """Seconds that the product's checksum took after the ISO was there."""
    return number(r"sealed in ([\d.]+) s", cost.said)


def check(custom):
    """Whether the cloud config is in it, and its checksum right."""
    with open(custom, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.rfind(CONFIG.encode()) < 0:
            raise RuntimeError(f"the cloud config is not in {custom}")
        beside = custom.with_name(f"{custom.name}.sha256")
        if beside.exists() and beside.read_text() != f"{hashlib.sha256(content).hexdigest()}  {custom.name}\n":
            raise RuntimeError(f"{beside} is not its checksum")


def fresh(directory, iso):
    """An empty directory, the ISO in the page cache, nothing left to be written."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    subprocess.run(["cat", iso], stdout=subprocess.DEVNULL, check=True)
    os.sync()
