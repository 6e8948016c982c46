"""Plays a backup scenario on a storage daemon through the QEMU project's own QMP client, and prints what happened in words that do not depend on
whose daemon it is. Two daemons that do the same print the same.

Usage: backup-scenarios.py SCENARIO DAEMON [ARGUMENT...]    (in an empty folder)
"""

import asyncio
import json
import random
import subprocess
import sys

from qemu.qmp import ExecuteError

from scenario_stage import MIB, Daemon, address, contents, io, make_disk, make_target, run, say, shape_of


async def sync_modes(daemon):
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "8M")
    io("base.qcow2", "write -P 9 0 4M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
    io("disk.qcow2", "write -P 1 0 2M", "write -P 2 3M 64k", "write -P 3 5000k 100k", "write -z 6M 128k")
    async with Daemon(daemon) as d:
        await d.open("disk", "disk.qcow2")
        for index, (sync, fmt, more) in enumerate([
            ("full", "qcow2", {}), ("full", "raw", {}), ("top", "qcow2", {}), ("full", "qcow2", {"compress": True}),
            ("full", "raw", {"x-perf": {"use-copy-range": True}}), ("full", "qcow2", {"x-perf": {"max-workers": 1, "max-chunk": 65536}}),
            ("full", "qcow2", {"x-perf": {"min-cluster-size": 1 << 20}}),
        ]):
            target = f"target{index}"
            make_target(target + "." + fmt, fmt=fmt)
            await d.open(target, target + "." + fmt, fmt)
            await d.do("blockdev-backup", job_id="job0", device="disk", target=target, sync=sync, **more)
            await d.ended()
            await d.do("blockdev-del", node_name=target)
            say(sync, fmt, sorted(more), contents(target + "." + fmt, fmt))
        say("source", contents("disk.qcow2"))


async def refusals(daemon):
    make_disk()
    make_target()
    make_target("small.raw", 4 * MIB, "raw")
    async with Daemon(daemon) as d:
        await d.open("disk", "disk.qcow2")
        await d.open("target", "target.qcow2")
        await d.open("small", "small.raw", "raw")

        async def ask(device="disk", target="target", sync="full", **more):
            await d.ask("blockdev-backup", job_id="job0", device=device, target=target, sync=sync, **more)

        await ask(device="nope")
        await ask(target="nope")
        await ask(target="disk")
        await ask(target="small")
        await ask(sync="incremental")
        await ask(sync="bitmap")
        await ask(sync="incremental", bitmap="b")
        await ask(sync="bitmap", bitmap="b")
        await ask(bitmap="b")
        await ask(bitmap_mode="always")
        await ask(sync="incremental", bitmap="b", bitmap_mode="never")
        await d.do("block-dirty-bitmap-add", node="disk", name="b")
        await ask(bitmap="b")
        await ask(bitmap="b", bitmap_mode="never")
        await ask(sync="none", bitmap="b", bitmap_mode="always")
        await ask(sync="incremental", bitmap="b", bitmap_mode="never")
        await ask(speed=-1)
        for workers in (0, -1):
            await ask(**{"x-perf": {"max-workers": workers}})
        for chunk in (-1, 1000):
            await ask(**{"x-perf": {"max-chunk": chunk}})
        await ask(**{"x-perf": {"min-cluster-size": 1000}})
        await ask(filter_node_name="disk")
        await d.do("blockdev-backup", job_id="job0", device="disk", target="target", sync="none", filter_node_name="filter")
        await d.shape()
        await ask()
        await d.ask("blockdev-backup", job_id="job1", device="target", target="small", sync="full")
        await d.ask("blockdev-del", node_name="target")
        await d.ask("blockdev-del", node_name="filter")
        await d.ask("block_resize", node_name="target", size=16 * MIB)
        await d.ask("job-complete", id="job0")
        say((await d.do("query-block-jobs"))[0]["len"], (await d.do("query-jobs"))[0]["type"])
        await d.do("job-cancel", id="job0")
        await d.ended()
        await d.shape()


async def chain(daemon):
    """Five incremental backups of a disk that is written to in between, each on top of the one before; then each is restored."""
    make_disk()
    numbers = random.Random(5)
    async with Daemon(daemon) as d:
        await d.open("disk", "disk.qcow2")
        await d.do("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        await d.serve("disk")
        make_target("inc0.qcow2")
        await d.open("inc0", "inc0.qcow2")
        await d.do("blockdev-backup", job_id="job0", device="disk", target="inc0", sync="full", bitmap="b", bitmap_mode="always")
        await d.ended()
        for index in range(1, 6):
            for _ in range(4):
                io(address("disk"), f"write -P {numbers.randrange(1, 255)} {numbers.randrange(0, 7 << 20)} {numbers.randrange(1, 200_000)}", fmt="raw")
            await d.bitmaps("disk")
            run("qemu-img", "convert", "-f", "raw", "-O", "raw", address("disk"), f"want{index}.raw")
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", f"inc{index - 1}.qcow2", "-F", "qcow2", f"inc{index}.qcow2")
            await d.do("blockdev-del", node_name=f"inc{index - 1}")
            await d.open(f"inc{index}", f"inc{index}.qcow2")
            if index == 3:
                # One that fails changes nothing, the next one has it all.
                await d.do("blockdev-backup", job_id="job0", device="disk", target=f"inc{index}", sync="incremental", bitmap="b", speed=1)
                await d.do("job-cancel", id="job0")
                await d.ended()
                await d.bitmaps("disk")
            await d.do("blockdev-backup", job_id="job0", device="disk", target=f"inc{index}", sync="incremental", bitmap="b")
            await d.ended()
            await d.bitmaps("disk")
    for index in range(1, 6):
        run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", f"inc{index}.qcow2", f"want{index}.raw")
        say("restored", index, contents(f"inc{index}.qcow2"))
        run("qemu-img", "check", f"inc{index}.qcow2")
    say(run("qemu-img", "info", "-U", "disk.qcow2").count("name: b"))


async def bitmap_modes(daemon):
    for sync in ("bitmap", "full"):
        for mode in ("on-success", "never", "always"):
            for fails in (False, True):
                if (sync, mode) == ("full", "never"):
                    continue
                run("rm", "-f", "disk.qcow2", "target.qcow2", "nbd.sock", "qmp.sock")
                make_disk()
                make_target()
                async with Daemon(daemon) as d:
                    await d.open("disk", "disk.qcow2")
                    rule = {"event": "pwritev", "errno": 28, "sector": 2 * MIB // 512, "once": True}
                    await d.do("blockdev-add", driver="blkdebug", node_name="debug", image={
                        "driver": "qcow2", "file": {"driver": "file", "filename": "target.qcow2"}, "node-name": "image"}, **({"inject-error": [rule]} if fails else {}))
                    await d.do("block-dirty-bitmap-add", node="disk", name="b")
                    await d.serve("disk")
                    io(address("disk"), "write -P 7 1M 3M", fmt="raw")
                    await d.do(
                        "blockdev-backup", job_id="job0", device="disk", target="debug", sync=sync, bitmap="b", bitmap_mode=mode, auto_finalize=False,
                        **{"x-perf": {"max-workers": 1, "max-chunk": 65536}})
                    name, _ = await d.until("pending", "aborting")
                    await d.bitmaps("disk")
                    io(address("disk"), "write -P 8 6M 64k", fmt="raw")
                    if name == "pending":
                        await d.do("job-finalize", id="job0")
                    await d.ended()
                    say(sync, mode, "fails" if fails else "succeeds")
                    await d.bitmaps("disk")


async def errors(daemon):
    """Errors of source and target under each policy; what stops goes on when the cause is gone."""
    for side in ("source", "target"):
        for policy in ("report", "stop", "enospc", "ignore"):
            for number in (5, 28):
                run("rm", "-f", "disk.qcow2", "target.qcow2", "qmp.sock")
                make_disk()
                make_target()
                async with Daemon(daemon) as d:
                    rule = {"event": "none", "iotype": "read" if side == "source" else "write", "errno": number, "sector": MIB // 512, "once": True}
                    for node, image in (("disk", "disk.qcow2"), ("target", "target.qcow2")):
                        is_faulty = (node == "disk") == (side == "source")
                        await d.do("blockdev-add", driver="blkdebug", node_name=node, image={
                            "driver": "qcow2", "file": {"driver": "file", "filename": image}}, **({"inject-error": [rule]} if is_faulty else {}))
                    await d.do(
                        "blockdev-backup", job_id="job0", device="disk", target="target", sync="full", on_source_error=policy, on_target_error=policy,
                        **{"x-perf": {"max-workers": 1, "max-chunk": 65536}})
                    _, data = await d.until("BLOCK_JOB_ERROR")
                    say(side, policy, number, data["operation"], data["action"])
                    if data["action"] == "stop":
                        await d.until("paused")
                        info = (await d.do("query-block-jobs"))[0]
                        say(info["status"], info["io-status"], info["paused"])
                        await d.do("job-resume", id="job0")
                    await d.ended()
                say("same" if contents("target.qcow2") == contents("disk.qcow2") else "different")


async def fleecing(daemon):
    """A point in time is read over NBD while the guest writes, and discarded piece by piece."""
    make_disk()
    make_target("fleece.qcow2")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "disk.qcow2", "want.raw")
    async with Daemon(daemon) as d:
        await d.open("disk", "disk.qcow2")
        await d.open("fleece", "fleece.qcow2", discard="unmap")
        await d.do("blockdev-add", driver="copy-before-write", node_name="guest", file="disk", target="fleece")
        await d.do("blockdev-add", driver="snapshot-access", node_name="snapshot", file="guest", discard="unmap")
        await d.shape()
        await d.serve("guest", "snapshot")
        io(address("guest"), "write -P 11 512k 1M", "write -z 3M 64k", "discard 5000k 100k", "write -P 12 8126464 200k", fmt="raw")
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", address("snapshot"), "want.raw")
        say("snapshot is what it was")
        numbers = random.Random(1)
        writer = asyncio.create_task(guest(numbers))
        copier = await asyncio.create_subprocess_exec("nbdcopy", address("snapshot"), "got.raw")
        assert await copier.wait() == 0
        await writer
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", "got.raw", "want.raw")
        say("copied under load")
        await d.ask("block-export-add", type="nbd", id="w", node_name="disk", name="disk2", writable=True)
        await d.ask("blockdev-del", node_name="fleece")
        for refused in ("min-cluster-size", "bitmap"):
            more = {"min-cluster-size": 5000} if refused == "min-cluster-size" else {"bitmap": {"node": "disk", "name": "none"}}
            await d.ask("blockdev-add", driver="copy-before-write", node_name="more", file="disk", target="fleece", **more)


async def guest(numbers, rounds=15):
    for _ in range(rounds):
        command = f"write -P {numbers.randrange(1, 255)} {numbers.randrange(0, 7 << 20)} {numbers.randrange(1, 300_000)}"
        process = await asyncio.create_subprocess_exec("qemu-io", "-f", "raw", "-c", command, address("guest"), stdout=subprocess.DEVNULL)
        assert await process.wait() == 0


async def under_load(daemon):
    """A backup of a disk that guests write to is the disk at the moment of the command."""
    make_disk("disk.qcow2", 32 * MIB)
    make_target("target.qcow2", 32 * MIB)
    async with Daemon(daemon) as d:
        await d.open("disk", "disk.qcow2")
        await d.open("target", "target.qcow2")
        await d.serve("disk")
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", address("disk"), "want.raw")
        await d.do("blockdev-backup", job_id="job0", device="disk", target="target", sync="full", speed=8 * MIB, auto_dismiss=False)
        numbers = random.Random(2)
        for _ in range(25):
            io(address("disk"), f"write -P {numbers.randrange(1, 255)} {numbers.randrange(0, 31 << 20)} {numbers.randrange(1, 300_000)}", fmt="raw")
        await d.do("block-job-set-speed", device="job0", speed=0)
        await d.ended()
        await d.do("job-dismiss", id="job0")
        await d.do("blockdev-del", node_name="target")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "target.qcow2", "want.raw")
    run("qemu-img", "check", "target.qcow2")
    say("the target is the disk of that moment")


async def cancelled(daemon):
    """Cancelled at any moment, the graph is as before and both images are sound."""
    make_disk()
    for delay in (0, 1, 3, 10, 30, 100):
        run("rm", "-f", "target.qcow2", "qmp.sock")
        make_target()
        before = contents("disk.qcow2")
        async with Daemon(daemon) as d:
            await d.open("disk", "disk.qcow2")
            await d.open("target", "target.qcow2")
            await d.do("blockdev-backup", job_id="job0", device="disk", target="target", sync="full", speed=4 * MIB)
            await asyncio.sleep(delay / 1000)
            await d.do("block-job-cancel", device="job0")
            name, _ = await d.until("BLOCK_JOB_CANCELLED")
            await d.until("null")
            say(name)
            await d.shape()
            await d.do("blockdev-del", node_name="target")
        run("qemu-img", "check", "target.qcow2")
        say("source", "unchanged" if contents("disk.qcow2") == before else "changed")


async def grouped(daemon):
    """Backups of two disks at one moment, alone and together; when one fails both do, or only that one."""
    for mode in ("individual", "grouped"):
        for fails in (False, True):
            run("rm", "-f", "qmp.sock", *[name + ".qcow2" for name in ("a", "b", "ta", "tb")])
            for name in ("a", "b"):
                make_disk(name + ".qcow2")
                make_target("t" + name + ".qcow2")
            async with Daemon(daemon) as d:
                await d.open("a", "a.qcow2")
                await d.open("b", "b.qcow2")
                await d.open("ta", "ta.qcow2")
                rule = {"event": "pwritev", "errno": 5, "sector": MIB // 512, "once": True}
                await d.do("blockdev-add", driver="blkdebug", node_name="tb", image={
                    "driver": "qcow2", "file": {"driver": "file", "filename": "tb.qcow2"}}, **({"inject-error": [rule]} if fails else {}))
                await d.do("block-dirty-bitmap-add", node="a", name="m")
                await d.do("transaction", properties={"completion-mode": mode}, actions=[
                    {"type": "blockdev-backup", "data": {
                        "job-id": "job-" + name, "device": name, "target": "t" + name, "sync": "full", "speed": 0 if name == "b" else 2 * MIB,
                        **({"bitmap": "m", "bitmap-mode": "on-success"} if name == "a" else {})}} for name in ("a", "b")])
                ends = {}
                while len(ends) < 2:
                    event = await asyncio.wait_for(d.listener.get(), 30)
                    if event["event"] in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"):
                        ends[event["data"]["device"]] = event["event"] + " " + event["data"].get("error", "")
                say(mode, fails, json.dumps(ends, sort_keys=True))
                await d.ask("transaction", actions=[
                    {"type": "blockdev-backup", "data": {"job-id": "x", "device": "a", "target": "ta", "sync": "none"}}, {"type": "abort", "data": {}}])
                say("jobs", len(await d.do("query-jobs")))
                await d.shape()


async def open_chain(d):
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "8M")
    io("base.qcow2", "write -P 9 0 4M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
    io("disk.qcow2", "write -P 1 1M 1M", "write -P 2 5M 64k")
    for fmt in ("raw", "qcow2"):
        run("qemu-img", "create", "-q", "-f", fmt, "there." + fmt, "8M")
    run("qemu-img", "create", "-q", "-f", "raw", "small.raw", "4M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "over.qcow2")
    await d.open("disk", "disk.qcow2")


DRIVES = [
    {}, {"format": "qcow2"}, {"format": "raw"}, {"format": "file"}, {"sync": "top"}, {"sync": "none"}, {"sync": "top", "format": "raw"},
    {"sync": "none", "format": "raw"}, {"mode": "existing", "target": "there.qcow2"}, {"mode": "existing", "target": "there.raw", "format": "raw"},
    {"mode": "existing", "target": "small.raw", "format": "raw"}, {"mode": "existing", "target": "nope.raw", "format": "raw"},
    {"mode": "existing", "target": "over.qcow2", "sync": "top"}, {"mode": "existing", "target": "over.qcow2", "sync": "none"}, {"format": "bogus"},
    {"format": "null-co"}, {"device": "nope"}, {"sync": "incremental"}, {"sync": "bitmap"}, {"speed": -1}, {"target": "/nonexistent/x"},
    {"job-id": ""},
]


async def drive_backup(daemon):
    """Backups into images that the command makes or opens: what they are, and that nothing of them stays open."""
    async with Daemon(daemon) as d:
        await open_chain(d)
        for more in DRIVES + [{"compress": True}, {"compress": True, "format": "raw"}, {"filter-node-name": "f"}, {"filter-node-name": "disk"}]:
            arguments = {"job-id": "job0", "device": "disk", "sync": "full", "target": "new.out", **more}
            run("rm", "-f", "new.out")
            try:
                await d.do("drive-backup", **arguments)
            except ExecuteError as error:
                say(more, "refused:", error)
            else:
                if arguments["sync"] == "none":
                    await d.do("job-cancel", id="job0")
                await d.ended()
                say(more, shape_of(arguments["target"]), contents(arguments["target"], json.loads(run("qemu-img", "info", "--output=json", arguments["target"]))["format"]))
            await d.shape()
            say(sorted(node["drv"] for node in await d.do("query-named-block-nodes", flat=True)))


async def drive_mirror(daemon):
    """Mirrors into images that the command makes or opens; the disk's user goes on in them, on the right chain."""
    async with Daemon(daemon) as d:
        await open_chain(d)
        await d.do("blockdev-del", node_name="disk")
        await d.do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        for more in DRIVES + [
            {"node-name": "disk"}, {"replaces": "disk"}, {"replaces": "nope", "node-name": "t"}, {"replaces": "disk", "node-name": "t"}, {"granularity": 100},
            {"buf-size": -1}, {"unmap": False}, {"copy-mode": "write-blocking"},
        ]:
            arguments = {"job-id": "job0", "device": "disk", "sync": "full", "target": "new.out", "node-name": "t", **more}
            if more == {"replaces": "disk"}:
                del arguments["node-name"]
            run("rm", "-f", "new.out", "over.qcow2")
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "over.qcow2")
            await d.open("disk", "disk.qcow2")
            await d.do("block-export-add", type="nbd", id="x", node_name="disk", name="disk", writable=True)
            try:
                await d.do("drive-mirror", **arguments)
            except ExecuteError as error:
                say(more, "refused:", error)
            else:
                name, data = await d.until("ready", "BLOCK_JOB_COMPLETED")
                if name == "ready":
                    io(address("disk"), "write -P 33 4000k 5000", "write -z 5M 4k", fmt="raw")
                    await d.do("job-complete", id="job0")
                await d.ended() if name == "ready" else say("failed", data.get("error"))
                io(address("disk"), "write -P 34 6000k 5000", fmt="raw")
                await d.shape()
                run("qemu-img", "convert", "-f", "raw", "-O", "raw", address("disk"), "seen.raw")
                say(more, shape_of(arguments["target"]), contents("seen.raw", "raw"))
            await d.do("block-export-del", id="x")
            await d.until_export_gone("x")
            await d.do("blockdev-del", node_name="disk")
            say(sorted(node["drv"] for node in await d.do("query-named-block-nodes", flat=True)))
            # Each begins with the same disk.
            run("rm", "-f", "disk.qcow2")
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
            io("disk.qcow2", "write -P 1 1M 1M", "write -P 2 5M 64k")


asyncio.run(globals()[sys.argv[1]](sys.argv[2:]))
