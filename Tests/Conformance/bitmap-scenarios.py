"""Plays a scenario of dirty bitmaps, transactions or fleecing on a storage daemon through the QEMU project's own QMP client, and prints what happened in
words that do not depend on whose daemon it is. Two daemons that do the same print the same.

Usage: bitmap-scenarios.py SCENARIO DAEMON [ARGUMENT...]    (in an empty folder)
"""

import asyncio
import json
import sys

from qemu.qmp import ExecuteError

from scenario_stage import MIB, Daemon, address, contents, io, io_result, make_chain, make_disk, make_target, open_chain, run, say, write


# Bitmaps


async def note_bitmaps(d):
    """Every bitmap that has a name, with what queries and the digest of its bits say; not the target's, where it depends on what is left out when zeroes are copied."""
    for node in sorted(await d.do("query-named-block-nodes", flat=True), key=lambda node: node["node-name"]):
        if node["node-name"] == "new":
            continue
        for bitmap in sorted(node.get("dirty-bitmaps", []), key=lambda bitmap: bitmap.get("name", "")):
            if "name" in bitmap:
                bits = (await d.do("x-debug-block-dirty-bitmap-sha256", node=node["node-name"], name=bitmap["name"]))["sha256"]
                say("  ", node["node-name"], json.dumps(bitmap, sort_keys=True), bits[:16])


async def survive(daemon):
    """Bitmaps of each image of a chain, kept in it and not, through everything that happens to chains; and what the images hold afterwards."""
    async def nothing(d):
        pass

    async def snapshot(d):
        await d.do("blockdev-snapshot-sync", node_name="top", snapshot_file="over.qcow2", snapshot_node_name="over", format="qcow2")

    async def snapshot_and_back(d):
        await snapshot(d)
        await write("top", "write -P 9 1M 128k", "write -P 9 7M 64k")
        await d.do("block-commit", job_id="job0", device="over")
        await d.until("BLOCK_JOB_READY")
        await write("top", "write -P 10 3M 64k")
        await d.do("job-complete", id="job0")
        await d.ended()
        await d.do("blockdev-del", node_name="over") if "over" in [node["node-name"] for node in await d.do("query-named-block-nodes", flat=True)] else None

    async def commit_mid(d):
        await d.do("block-commit", job_id="job0", device="top", top_node="mid")
        await d.ended()

    async def commit_all(d):
        await d.do("block-commit", job_id="job0", device="top")
        await d.until("BLOCK_JOB_READY")
        await d.do("job-complete", id="job0")
        await d.ended()

    async def commit_cancelled(d):
        await d.do("block-commit", job_id="job0", device="top")
        await d.until("BLOCK_JOB_READY")
        await d.do("block-job-cancel", device="job0", force=True)
        await d.ended()

    async def stream(d):
        await d.do("block-stream", job_id="job0", device="top")
        await d.ended()

    async def stream_mid(d):
        await d.do("block-stream", job_id="job0", device="mid")
        await d.ended()

    def mirror(mode, ends):
        async def play(d):
            await d.open("new", "new.qcow2")
            await d.do("blockdev-mirror", job_id="job0", device="top", target="new", sync="full", copy_mode=mode)
            await d.until("BLOCK_JOB_READY")
            await write("top", "write -P 9 1M 128k", "write -z 2M 64k", "discard 3M 64k")
            await d.do(ends, **({"id": "job0"} if ends == "job-complete" else {"device": "job0"}))
            await d.ended()
            await write("top", "write -P 11 6M 64k")
        return play

    async def reopen(d):
        options = {"driver": "qcow2", "node-name": "top", "backing": "mid", "file": {"driver": "file", "filename": "top.qcow2"}}
        await d.do("block-export-del", id="x-top")
        await d.until_export_gone("x-top")
        for more in ({"read-only": True}, {"read-only": False}, {"lazy-refcounts": True}, {"cache": {"no-flush": True}}):
            await d.do("blockdev-reopen", options=[{**options, **more}])
            await note_bitmaps(d)

    async def backup(d):
        await d.open("new", "new.qcow2")
        await d.do("blockdev-backup", job_id="job0", device="top", target="new", sync="incremental", bitmap="kept")
        await d.ended()
        await write("top", "write -P 9 1M 128k")

    async def inside(d):
        await d.do("transaction", actions=[
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": "top", "name": "s"}}, {"type": "block-dirty-bitmap-clear", "data": {"node": "top", "name": "kept"}}])

    for name, play in [
        ("nothing", nothing), ("snapshot", snapshot), ("snapshot and back", snapshot_and_back), ("commit of the middle", commit_mid),
        ("commit of all", commit_all), ("commit cancelled", commit_cancelled), ("stream", stream), ("stream of the middle", stream_mid),
        ("mirror", mirror("background", "job-complete")), ("active mirror", mirror("write-blocking", "job-complete")),
        ("mirror cancelled", mirror("background", "block-job-cancel")), ("reopen", reopen), ("backup", backup), ("inside", inside)]:
        say(name)
        for file in ("base", "mid", "top", "over", "new"):
            run("rm", "-f", file + ".qcow2", "qmp.sock", "nbd.sock")
        make_chain("base", "mid", "top")
        make_target("new.qcow2")
        async with Daemon(daemon) as d:
            await open_chain(d, "base", "mid", "top")
            await d.serve("top")
            for node in ("base", "mid", "top"):
                await d.ask("block-dirty-bitmap-add", node=node, name="kept", granularity=65536, persistent=True)
                await d.do("block-dirty-bitmap-add", node=node, name="fleeting", granularity=65536)
            await d.do("block-dirty-bitmap-add", node="top", name="asleep", granularity=65536, persistent=True, disabled=True)
            await write("top", "write -P 5 0 192k", "write -P 6 5M 64k")
            await play(d)
            await note_bitmaps(d)
            await d.shape()
        for image in ("base", "mid", "top", "over", "new"):
            try:
                told = json.loads(run("qemu-img", "info", "-f", "qcow2", "--output=json", image + ".qcow2"))
            except AssertionError:
                continue
            say("  ", image, sorted(json.dumps(bitmap, sort_keys=True) for bitmap in told["format-specific"]["data"].get("bitmaps", [])))
            run("qemu-img", "check", image + ".qcow2")


async def read_only(daemon):
    """What may be done with a stored bitmap whose image has become read-only, by a command and in a transaction."""
    make_disk()
    make_target()
    run("qemu-img", "bitmap", "--add", "disk.qcow2", "kept")
    async with Daemon(daemon) as d:
        await d.open("disk", "disk.qcow2", backing=None)
        await d.open("target", "target.qcow2", backing=None)
        await d.do("blockdev-snapshot-sync", node_name="disk", snapshot_file="over.qcow2", snapshot_node_name="over", format="qcow2")
        bitmap = {"node": "disk", "name": "kept"}
        for verb in ("disable", "enable", "clear", "remove", "add"):
            await d.ask("block-dirty-bitmap-" + verb, **bitmap)
            await d.ask("transaction", actions=[{"type": "block-dirty-bitmap-" + verb, "data": bitmap}, {"type": "abort", "data": {}}])
        await d.ask("block-dirty-bitmap-merge", node="disk", target="kept", bitmaps=["kept"])
        for sync, mode in (("bitmap", "on-success"), ("bitmap", "always"), ("incremental", None), ("full", "always"), ("bitmap", "never")):
            backup = {"job-id": "job0", "device": "disk", "target": "target", "sync": sync, "bitmap": "kept", **({"bitmap-mode": mode} if mode else {})}
            await d.ask("transaction", actions=[{"type": "blockdev-backup", "data": backup}, {"type": "abort", "data": {}}])
            await d.ask("blockdev-backup", **backup)
        await d.ended()
        await note_bitmaps(d)


# Transactions


async def transactions(daemon):
    """Every action that block nodes have, in one transaction that fails at each position, and then does not; in both completion modes."""
    for mode in ("individual", "grouped"):
        for name in ("a", "b", "c", "e", "over", "t1", "t2", "made", "new"):
            run("rm", "-f", name + ".qcow2", "qmp.sock")
        for name in ("a", "b", "c", "e"):
            make_disk(name + ".qcow2")
        for name in ("over", "t1", "t2"):
            make_target(name + ".qcow2")
        async with Daemon(daemon) as d:
            for name in ("a", "b", "c", "e", "t1", "t2"):
                await d.open(name, name + ".qcow2")
            await d.open("over", "over.qcow2", backing=None)
            for name in ("one", "two", "gone"):
                await d.do("block-dirty-bitmap-add", node="e", name=name)
            bitmap = {"node": "e", "name": "one"}
            jobs = [
                {"type": "blockdev-backup", "data": {"job-id": "j1", "device": "c", "target": "t1", "sync": "full"}},
                {"type": "drive-backup", "data": {"job-id": "j2", "device": "e", "target": "made.qcow2", "sync": "full", "format": "qcow2"}},
            ]
            actions = jobs if mode == "grouped" else [
                {"type": "blockdev-snapshot", "data": {"node": "a", "overlay": "over"}},
                {"type": "blockdev-snapshot-sync", "data": {"node-name": "b", "snapshot-file": "new.qcow2", "snapshot-node-name": "new", "format": "qcow2"}},
                {"type": "blockdev-snapshot-internal-sync", "data": {"device": "c", "name": "inside"}},
                *jobs,
                {"type": "block-dirty-bitmap-add", "data": {"node": "e", "name": "fresh"}},
                {"type": "block-dirty-bitmap-clear", "data": bitmap}, {"type": "block-dirty-bitmap-disable", "data": bitmap},
                {"type": "block-dirty-bitmap-enable", "data": bitmap}, {"type": "block-dirty-bitmap-remove", "data": {"node": "e", "name": "gone"}},
                {"type": "block-dirty-bitmap-merge", "data": {"node": "e", "target": "one", "bitmaps": ["two"]}},
            ]
            failures = [{"type": "abort", "data": {}}] if mode == "individual" else []
            failures += [
                {"type": "blockdev-backup", "data": {"job-id": "late", "device": "a", "target": "nope", "sync": "full"}},
                {"type": "blockdev-backup", "data": {"job-id": "late", "device": "a", "target": "t2", "sync": "incremental"}}]
            for failure in failures:
                # QEMU's daemon does not survive that a grouped transaction fails after a drive-backup.
                for position in range(len(actions) + (mode == "individual")):
                    await d.ask("transaction", actions=actions[:position] + [failure] + actions[position:], properties={"completion-mode": mode})
                    await d.shape()
                    await d.bitmaps("e")
                    say(await d.do("query-jobs"))
                    # A file that was made for what did not come about: QEMU leaves it.
                    run("rm", "-f", "new.qcow2", "made.qcow2")
            await d.ask("transaction", actions=actions, properties={"completion-mode": mode})
            ends = {}
            while len(ends) < 2:
                event = await asyncio.wait_for(d.listener.get(), 30)
                if event["event"] in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"):
                    ends[event["data"]["device"]] = event["event"] + " " + event["data"].get("error", "")
            say(json.dumps(ends, sort_keys=True))
            await d.shape()
            await d.bitmaps("e")
        say(contents("t1.qcow2"), contents("made.qcow2"), "inside" in run("qemu-img", "snapshot", "-l", "c.qcow2"))


# Filters for fleecing


async def copy_before_write(daemon):
    """What becomes of a guest's write and of the kept state when keeping fails or takes too long, and what a bitmap and cluster sizes make of it."""
    for action in (None, "break-guest-write", "break-snapshot"):
        for number in (5, 28):
            for name in ("disk.qcow2", "fleece.qcow2", "qmp.sock", "nbd.sock"):
                run("rm", "-f", name)
            make_disk()
            make_target("fleece.qcow2")
            rule = {"event": "none", "iotype": "write", "errno": number, "sector": MIB // 512, "once": True}
            async with Daemon(daemon) as d:
                await d.open("disk", "disk.qcow2")
                await d.do("blockdev-add", driver="blkdebug", node_name="fleece", image={
                    "driver": "qcow2", "file": {"driver": "file", "filename": "fleece.qcow2"}}, **{"inject-error": [rule]})
                await d.do("blockdev-add", driver="copy-before-write", node_name="guest", file="disk", target="fleece", **(
                    {"on-cbw-error": action} if action else {}))
                await d.do("blockdev-add", driver="snapshot-access", node_name="snapshot", file="guest")
                await d.serve("guest", "snapshot")
                for command in ("write -P 8 0 64k", "write -P 9 1M 64k", "write -P 9 1M 64k", "read -P 9 1M 64k"):
                    say(action, number, command, io_result("guest", command))
                for command in ("read -P 1 0 64k", "read -P 1 1M 64k", "read 4M 64k"):
                    say(action, number, "snapshot", command, io_result("snapshot", command))
    for more in (
        {"bitmap": {"node": "disk", "name": "b"}}, {"min-cluster-size": 1 << 20}, {"min-cluster-size": 4096}, {"min-cluster-size": 0}, {"min-cluster-size": 5000},
        {"bitmap": {"node": "disk", "name": "none"}}, {"bitmap": {"node": "none", "name": "b"}}, {"cbw-timeout": 0}, {"cbw-timeout": 45},
        {"on-cbw-error": "none"},
    ):
        for name in ("disk.qcow2", "fleece.qcow2", "qmp.sock", "nbd.sock"):
            run("rm", "-f", name)
        make_disk()
        make_target("fleece.qcow2")
        async with Daemon(daemon) as d:
            await d.open("disk", "disk.qcow2")
            await d.open("fleece", "fleece.qcow2")
            await d.do("block-dirty-bitmap-add", node="disk", name="b")
            await d.serve("disk")
            await write("disk", "write -P 4 2M 1M")
            await d.do("block-export-del", id="x-disk")
            await d.until_export_gone("x-disk")
            try:
                await d.do("blockdev-add", driver="copy-before-write", node_name="guest", file="disk", target="fleece", **more)
            except ExecuteError as error:
                say(more, "refused:", error)
                continue
            await d.do("blockdev-add", driver="snapshot-access", node_name="snapshot", file="guest")
            for node in ("guest", "snapshot"):
                await d.do("block-export-add", type="nbd", id="y-" + node, node_name=node, name=node, writable=node == "guest")
            say(more, [io_result("guest", command) for command in ("write -P 8 0 64k", "write -P 9 2100k 4k")])
            say(more, [io_result("snapshot", command) for command in ("read -P 1 0 64k", "read -P 4 2M 1M", "read 3M 64k", "read -P 1 2044k 8k")])
        say(more, json.loads(run("qemu-img", "map", "-f", "qcow2", "--output=json", "fleece.qcow2").replace("\n", "")).__len__(), contents("fleece.qcow2"))




async def discard_source(daemon):
    """A backup of a fleecing disk gives the space back of what it has copied, whoever else uses the disk meanwhile."""
    for exported in (False, True):
        for name in ("disk.qcow2", "fleece.qcow2", "target.qcow2", "qmp.sock", "nbd.sock"):
            run("rm", "-f", name)
        make_disk()
        make_target("fleece.qcow2")
        make_target()
        async with Daemon(daemon) as d:
            await d.open("disk", "disk.qcow2")
            await d.open("fleece", "fleece.qcow2", discard="unmap")
            await d.open("target", "target.qcow2")
            await d.do("blockdev-add", driver="copy-before-write", node_name="guest", file="disk", target="fleece")
            await d.do("blockdev-add", driver="snapshot-access", node_name="snapshot", file="guest", discard="unmap")
            await d.serve("guest")
            await write("guest", "write -P 9 0 1M", "write -P 9 4900k 300k")
            say("discarded in advance" if exported else "", len(json.loads(run("qemu-img", "map", "-U", "-f", "qcow2", "--output=json", "fleece.qcow2"))) > 1)
            await d.do("blockdev-backup", job_id="job0", device="snapshot", target="target", sync="full", discard_source=True)
            await d.ended()
            await d.shape()
            # The disk itself, with a guest on it.
            if exported:
                run("rm", "-f", "other.qcow2")
                make_target("other.qcow2")
                await d.open("other", "other.qcow2", discard="unmap")
                await d.do("block-export-add", type="nbd", id="y", node_name="other", name="other", writable=True)
                await write("other", "write -P 3 0 1M")
                run("rm", "-f", "last.qcow2")
                make_target("last.qcow2")
                await d.open("last", "last.qcow2")
                await d.do("blockdev-backup", job_id="job0", device="other", target="last", sync="full", discard_source=True)
                await d.ended()
                await d.shape()
                say(io_result("other", "write -P 4 0 64k"))
        say(contents("target.qcow2"))
        say([extent["data"] for extent in json.loads(run("qemu-img", "map", "-f", "qcow2", "--output=json", "fleece.qcow2"))])


asyncio.run(globals()[sys.argv[1]](sys.argv[2:]))
