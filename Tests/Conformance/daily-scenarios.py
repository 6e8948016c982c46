"""Plays what management layers do every day on a storage daemon through the QEMU project's own QMP client, and prints what happened in
words that do not depend on whose daemon it is. Two daemons that do the same print the same.

Usage: daily-scenarios.py SCENARIO DAEMON [ARGUMENT...]    (in an empty folder)
"""

import asyncio
import os
import random
import sys

from qemu.qmp import ExecuteError

from scenario_stage import MIB, Daemon, address, contents, make_chain, make_target, open_chain, run, say, shape_of, write


# What management layers do every day


async def guest(done, export, seed):
    """Writes at random until it is told to end, a whole sector at a time, and knows what the disk has to be."""
    numbers = random.Random(seed)
    model = {}
    while not done.is_set() or len(model) < 30:
        sector, byte = numbers.randrange(0, 8 * MIB // 4096), numbers.randrange(1, 255)
        await write(export, f"write -P {byte} {sector * 4096} 4096")
        model[sector] = byte
    return model


async def check_model(export, model):
    commands = [f"read -P {byte} {sector * 4096} 4096" for sector, byte in sorted(model.items())]
    output = run("qemu-io", "-f", "raw", *[word for command in commands for word in ("-c", command)], address(export))
    assert "verification failed" not in output and output.count("read 4096/4096") == len(model), output


async def under_guest(daemon, play):
    """Runs a scenario while a guest writes to what is exported as `top`."""
    async with Daemon(daemon) as d:
        await open_chain(d, "base", "mid", "top")
        await d.serve("top")
        done = asyncio.Event()
        writer = asyncio.create_task(guest(done, "top", 3))
        await play(d)
        done.set()
        await check_model("top", await writer)
        say("the guest has what it wrote")
        await d.shape()


async def snapshot_and_commit(daemon):
    """An external snapshot, and the active commit that takes it back, three times, under a writing guest."""
    make_chain("base", "mid", "top")

    async def play(d):
        for index in range(3):
            await d.do("blockdev-snapshot-sync", node_name="top", snapshot_file=f"over{index}.qcow2", snapshot_node_name=f"over{index}", format="qcow2")
            await d.do("block-commit", job_id="job0", device=f"over{index}", base_node="top")
            await d.until("BLOCK_JOB_READY")
            await d.do("job-complete", id="job0")
            name, data = await d.until("BLOCK_JOB_COMPLETED")
            await d.until("null")
            say(name, data.get("error"))
            nodes = [node["node-name"] for node in await d.do("query-named-block-nodes", flat=True)]
            if f"over{index}" in nodes:
                await d.do("blockdev-del", node_name=f"over{index}")

    await under_guest(daemon, play)
    run("qemu-img", "check", "top.qcow2")


async def stream_of_the_middle(daemon):
    """The middle of a chain takes in what is below it, under a writing guest; the lower image may go."""
    make_chain("base", "mid", "top")

    async def play(d):
        await d.do("block-stream", job_id="job0", device="mid")
        await d.ended()
        await d.ask("blockdev-del", node_name="base")

    await under_guest(daemon, play)
    say(shape_of("mid.qcow2"), contents("mid.qcow2"))


async def storage_migration(daemon):
    """A disk moves to an NBD server of another program under a writing guest, who goes on there."""
    make_chain("base", "mid", "top")
    make_target("there.qcow2")
    server = await asyncio.create_subprocess_exec("qemu-nbd", "-t", "-f", "qcow2", "-k", os.path.abspath("there.sock"), "--shared=4", "there.qcow2")
    try:
        for mode in ("background", "write-blocking"):
            run("rm", "-f", "qmp.sock", "nbd.sock")

            async def play(d):
                for _ in range(500):
                    try:
                        await d.do("blockdev-add", driver="nbd", node_name="there", server={"type": "unix", "path": "there.sock"})
                        break
                    except ExecuteError:
                        await asyncio.sleep(0.02)
                await d.do("blockdev-mirror", job_id="job0", device="top", target="there", sync="full", copy_mode=mode)
                await d.until("BLOCK_JOB_READY")
                await d.do("job-complete", id="job0")
                name, data = await d.until("BLOCK_JOB_COMPLETED")
                await d.until("null")
                say(mode, name, data.get("error"))

            await under_guest(daemon, play)
    finally:
        server.terminate()
        await server.wait()
    run("qemu-img", "check", "there.qcow2")


async def commit_into_read_only(daemon):
    """A base on storage that cannot be written to is refused before anything is touched; with auto-read-only on every node it is written to and closed again."""
    for is_writable in (False, True):
        for name in ("base", "mid", "top"):
            run("rm", "-f", name + ".qcow2", "qmp.sock")
        make_chain("base", "mid", "top")
        before = contents("top.qcow2")
        with open("base.qcow2", "rb") as file:
            bytes_before = file.read()
        async with Daemon(daemon) as d:
            for index, name in enumerate(("base", "mid", "top")):
                file = {"driver": "file", "filename": name + ".qcow2", "node-name": name + "-file", "auto-read-only": True}
                if name == "base" and not is_writable:
                    file = {"driver": "file", "filename": "base.qcow2", "node-name": "base-file", "read-only": True}
                await d.do(
                    "blockdev-add", driver="qcow2", node_name=name, file=file, backing=("base", "mid", "top")[index - 1] if index else None,
                    **({"read-only": True, "auto-read-only": is_writable} if name != "top" else {}))
            for arguments in ({"top-node": "mid"}, {}):
                try:
                    await d.do("block-commit", job_id="job0", device="top", **arguments)
                except ExecuteError as error:
                    say("refused", "read-only" in str(error))
                    continue
                name, _ = await d.until("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED")
                if name == "BLOCK_JOB_READY":
                    await d.do("job-complete", id="job0")
                    await d.until("BLOCK_JOB_COMPLETED")
                await d.until("null")
                say("committed")
                say(sorted((node["node-name"], node["ro"]) for node in await d.do("query-named-block-nodes", flat=True) if "-file" not in node["node-name"]))
            await d.shape()
        with open("base.qcow2", "rb") as file:
            say(is_writable, (contents("base.qcow2") if is_writable else contents("top.qcow2")) == before, file.read() == bytes_before)


asyncio.run(globals()[sys.argv[1]](sys.argv[2:]))
