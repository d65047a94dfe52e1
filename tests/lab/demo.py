"""The part of tests/demo that boots a machine and tells what is going on."""

import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

sys.dont_write_bytecode = True

import lan as network  # noqa: E402
import sources  # noqa: E402
from node import FIRMWARE, Node  # noqa: E402
from product import HOSTNAME, Product  # noqa: E402


def step(text):
    print(f"\n== {text}", flush=True)


class Follow(threading.Thread):
    """Shows a growing log file, each line marked as the product's."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.done = path, threading.Event()
        self.start()

    def run(self):
        with open(self.path, errors="replace") as log:
            while True:
                last_round = self.done.is_set()
                while line := log.readline():
                    print(f"   auroraboot | {line.rstrip()}", flush=True)
                if last_round:
                    return
                self.done.wait(0.1)

    def close(self):
        self.done.set()
        self.join()


def demo(directory):
    step("4. A LAN in network namespaces: a switch, a home router (an ordinary DHCP server), a registry, our server")
    with network.Lan(directory, taps=1) as lan:
        product = Product(lan, sources.registry(lan, "mini", directory), directory)
        step("5. Starting auroraboot on the server, as anyone would:")
        print("   $ " + " ".join(["auroraboot", *product.command[1:]]), flush=True)
        follow = Follow(product.log_path)
        try:
            product.wait_ready()
            step("6. Switching on a machine with an empty disk, a BIOS and a plain PXE network card")
            node = Node(lan, 0, FIRMWARE["bios-plain"], directory / "node", memory_mib=512, timeout=120)
            node.start()
            node.join()
            wrong = product.interrupt()
        finally:
            follow.close()
        return verdict(product, node, wrong)


def verdict(product, node, wrong):
    if node.error:
        print(node.serial.read_text(errors="replace")[-3000:])
        return f"FAIL: the machine did not come up: {node.error}"
    report = node.report
    step("7. The machine is up. What it says of itself:")
    print("   " + " ".join(f"{key}={value}" for key, value in report.items()))
    if report.get("cloud-config-sha256") != product.config_sha256 or report.get("hostname") != HOSTNAME:
        return f"FAIL: the machine has another cloud config than the one given (sha256 {product.config_sha256})"
    if report.get("layers") != "ok":
        return f"FAIL: something of the image's layers got lost: {report.get('layers')}"
    if wrong:
        return f"FAIL: auroraboot on Ctrl-C: {wrong}"
    return (
        f"PASS: machine {node.mac} booted the image over the network in {node.seen['node_up']:.0f} s "
        f"and took its cloud config (sha256 {product.config_sha256})"
    )


def main():
    network.need_root()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="auroraboot-demo-"))
    try:
        last = demo(directory)
    except KeyboardInterrupt:
        last = "FAIL: interrupted"
    except RuntimeError as error:
        last = f"FAIL: {error}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\n{last}", flush=True)
    return 0 if last.startswith("PASS") else 1


sys.exit(main())
