"""What scenarios on storage daemons share: a daemon driven through the QEMU project's own QMP client, images, and words that do not depend on whose daemon
it is. Everything happens in the folder the script is started in.
"""

import asyncio
import hashlib
import json
import subprocess

from qemu.qmp import ExecuteError, QMPClient

MIB = 1 << 20


def say(*words):
    print(*words, flush=True)


def run(*words):
    result = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, (words, result)
    return result.stdout


def contents(image, fmt="qcow2"):
    """The digest of what a guest reads."""
    run("qemu-img", "convert", "-U", "-f", fmt, "-O", "raw", image, image + ".flat")
    with open(image + ".flat", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def io(image, *commands, fmt="qcow2"):
    words = ["qemu-io", "-f", fmt]
    for command in commands:
        words += ["-c", command]
    output = run(*words, image)
    assert "failed" not in output, output


class Daemon:
    def __init__(self, words):
        self.words = words

    async def __aenter__(self):
        arguments = ["--chardev", "socket,id=c,path=qmp.sock,server=on,wait=off", "--monitor", "chardev=c"]
        self.process = await asyncio.create_subprocess_exec("timeout", "-k", "5", "120", *self.words, *arguments)
        self.client = QMPClient("backup")
        for _ in range(500):
            try:
                await self.client.connect("qmp.sock")
                break
            except Exception:
                await asyncio.sleep(0.02)
        self.listening = self.client.listener()
        self.listener = self.listening.__enter__()
        return self

    async def __aexit__(self, *_):
        try:
            await self.client.execute("quit")
        except Exception:
            pass
        try:
            await self.client.disconnect()
        except Exception:
            pass
        await asyncio.wait_for(self.process.wait(), 30)

    async def do(self, command, **arguments):
        return await self.client.execute(command, {key.replace("_", "-"): value for key, value in arguments.items()})

    async def ask(self, command, **arguments):
        """Says what comes of a command."""
        try:
            await self.do(command, **arguments)
            say(command, "done")
        except ExecuteError as error:
            say(command, "refused:", error)

    async def until(self, *names, job="job0"):
        """The next event of that name that tells of the job; for JOB_STATUS_CHANGE, that status."""
        while True:
            event = await asyncio.wait_for(self.listener.get(), 30)
            data = event.get("data", {})
            name = data.get("status") if event["event"] == "JOB_STATUS_CHANGE" else event["event"]
            if data.get("id", data.get("device")) == job and name in names:
                return name, data

    async def until_export_gone(self, name):
        while (await asyncio.wait_for(self.listener.get(), 30)).get("data") != {"id": name}:
            pass

    async def ended(self, job="job0"):
        name, data = await self.until("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", job=job)
        await self.until("null", "concluded", job=job)
        # How far a cancelled job came is chance.
        keys = ("len", "error", "type") if name == "BLOCK_JOB_CANCELLED" else ("len", "offset", "error", "type")
        say(job, name, json.dumps({key: data[key] for key in keys if key in data}, sort_keys=True))

    async def open(self, name, image, fmt="qcow2", **more):
        await self.do("blockdev-add", driver=fmt, node_name=name, file={"driver": "file", "filename": image}, **more)

    async def shape(self):
        """The nodes with a name of their own, and who stands on whom."""
        graph = await self.do("x-debug-query-block-graph")
        names = {node["id"]: node["name"] if node["type"] == "block-driver" else node["type"] for node in graph["nodes"]}
        # What a mirror's filter knows of its target is its own affair.
        filters = {node["node-name"] for node in await self.do("query-named-block-nodes", flat=True) if node["drv"] == "mirror_top"}
        nodes = {node["id"] for node in graph["nodes"] if node["type"] == "block-driver" and "#" not in node["name"]}
        edges = sorted(
            f"{names[edge['parent']]}.{edge['name']}={names[edge['child']]}" for edge in graph["edges"] if edge["parent"] in nodes and edge["child"] in nodes and (names[edge["parent"]] not in filters or edge["name"] == "backing")
        )
        say("graph", " ".join(edges))

    async def bitmaps(self, node):
        for found in await self.do("query-named-block-nodes", flat=True):
            if found["node-name"] == node:
                for bitmap in sorted((bitmap for bitmap in found.get("dirty-bitmaps", []) if "name" in bitmap), key=lambda bitmap: bitmap.get("name", "")):
                    say("bitmap", bitmap.get("name"), bitmap["count"], "busy" if bitmap["busy"] else "free", "recording" if bitmap["recording"] else "resting")

    async def serve(self, *nodes):
        await self.do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        for node in nodes:
            await self.do("block-export-add", type="nbd", id="x-" + node, node_name=node, name=node, writable=node != "snapshot")


def address(export):
    return f"nbd+unix:///{export}?socket=nbd.sock"


def make_disk(name="disk.qcow2", size=8 * MIB):
    run("qemu-img", "create", "-q", "-f", "qcow2", name, str(size))
    io(name, "write -P 1 0 2M", "write -P 2 3M 64k", "write -P 3 5000k 100k", "write -z 6M 128k")


def make_target(name="target.qcow2", size=8 * MIB, fmt="qcow2"):
    run("qemu-img", "create", "-q", "-f", fmt, name, str(size))


def shape_of(image):
    """What the image is and what it stands on."""
    info = json.loads(run("qemu-img", "info", "-U", "--output=json", image))
    return " ".join(str(info.get(key)) for key in ("format", "virtual-size", "backing-filename-format")) + " " + str(info.get("backing-filename")).rsplit("/", 1)[-1]


def make_chain(*names, size=8 * MIB, filled=True):
    """Images over each other, the lowest first, each with data of its own."""
    for index, name in enumerate(names):
        below = ["-b", names[index - 1] + ".qcow2", "-F", "qcow2"] if index else []
        run("qemu-img", "create", "-q", "-f", "qcow2", *below, name + ".qcow2", str(size))
        if filled:
            io(name + ".qcow2", f"write -P {index + 1} {index}M 2M", f"write -P {index + 65} {5 * MIB + index * 70_000} 50000")


async def open_chain(d, *names, **more):
    for index, name in enumerate(names):
        await d.open(name, name + ".qcow2", backing=names[index - 1] if index else None, **more)


async def write(export, *commands):
    """A guest's requests, while the daemon and we go on."""
    words = [word for command in commands for word in ("-c", command)]
    process = await asyncio.create_subprocess_exec("qemu-io", "-f", "raw", *words, address(export), stdout=subprocess.DEVNULL)
    assert await process.wait() == 0


def io_result(export, command):
    """How a request ended."""
    result = subprocess.run(["qemu-io", "-f", "raw", "-c", command, address(export)], capture_output=True, text=True, timeout=60)
    text = result.stdout + result.stderr
    if "verification failed" in text:
        return "differs"
    # A disk that cannot be read cannot be opened either.
    return "done" if result.returncode == 0 and "failed: " not in text else text.rsplit(": ", 1)[-1].strip()
