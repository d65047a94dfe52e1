"""The rows of tests/bench/run about images that are on this host already: in a Docker daemon, or cached by an earlier run."""
import os
import shutil
import signal
import subprocess
import time

from lab import BENCH, IMAGE, Series, number, product, says, wait_until
from media import mksquashfs, pairs

TAG = "bench:local"


class LocalRows:
    """Part of Bench."""

    def dockerd(self):
        """A Docker daemon that has the image."""
        archive = self.lab.work / "docker.tar"
        self.once(self.registry)
        self.lab.costs(["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{IMAGE}", f"docker-archive:{archive}:{TAG}"])
        place = self.lab.work / "docker"
        place.mkdir()
        (place / "daemon.json").write_text("{}")
        address = f"unix://{place}/docker.sock"
        process = self.lab.start(
            # In this program's mounts: those of `ip netns exec` hide the cgroups.
            self.lab.server, "nsenter", f"--mount=/proc/{os.getpid()}/ns/mnt", "dockerd", "--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
            f"--config-file={place}/daemon.json", f"--data-root={place}/data", f"--exec-root={place}/exec", f"--pidfile={place}/pid", f"--host={address}",
        )
        wait_until("dockerd", lambda: says("API listen on")(process), process)
        subprocess.run(["docker", "--host", address, "load", "--quiet", "--input", archive], check=True, stdout=subprocess.DEVNULL)
        archive.unlink()
        return address

    def daemon(self):
        """A daemon's image to a squashfs: the product's is inside the ISO that it writes, which is more than the peer does."""
        address = self.once(self.dockerd)
        wall, cpu, peak = pairs(("s", 2), ("s", 2), ("MB", 0))
        directory = self.lab.work / "daemon"

        def note_down(side, cost):
            for series, value in ((wall, cost.wall), (cpu, cost.cpu), (peak, cost.peak_mb)):
                series[side].add(value)
            shutil.rmtree(directory)
            subprocess.run(["sync"], check=True)

        def peer():
            directory.mkdir()
            archive, layout, bundle = directory / "image.tar", directory / "oci", directory / "bundle"
            note_down(0, self.lab.costs(
                ["docker", "--host", address, "save", "--output", archive, TAG],
                ["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{archive}", f"oci:{layout}:bench"],
                ["umoci", "unpack", "--image", f"{layout}:bench", bundle],
                mksquashfs(bundle / "rootfs", directory / "rootfs.squashfs"),
            ))

        def ours():
            command = product(directory, f"container_image=docker://{TAG}", image=None)
            note_down(1, self.lab.costs(["env", f"DOCKER_HOST={address}", *command]))

        self.turns(peer=peer, auroraboot=ours)
        add = self.table.add
        add("image in dockerd → ISO, wall time", wall[1], "≤ 0.6×", wall[1] / wall[0] <= 0.6, wall[0], "docker save, skopeo, umoci, mksquashfs")
        add("– CPU time, the daemon's not counted", cpu[1], peer=cpu[0])
        add("– peak RSS", peak[1], "≤ 128 MB", peak[1].median <= 128, peak[0])

    def warm(self):
        """From exec to the first OFFER, with everything cached and a registry that takes connections and never answers."""
        state, registry = self.once(self.state), self.once(self.registry)
        first = Series("s", 3)

        def ours():
            # It is asking from before the start on, so that what is measured ends with the OFFER and not with the next question.
            asking = self.lab.start(self.lab.client, BENCH, "dhcp-first", "eth0")
            wait_until("the one who asks", lambda: says("asking")(asking), asking)
            started = time.time()
            with self.lab.serving(says(" Ready: "), *product(state, serve=True)):
                if asking.wait(30) != 0:
                    raise RuntimeError(f"no OFFER: {asking.log.read_text()}")
                first.add(number(r"OFFER at ([\d.]+)", asking.log.read_text()) - started)

        registry.send_signal(signal.SIGSTOP)
        try:
            self.turns(auroraboot=ours)
        finally:
            registry.send_signal(signal.SIGCONT)
        self.table.add("everything cached, registry hangs: exec → first OFFER", first, "≤ 1 s", first.median <= 1)
