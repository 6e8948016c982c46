"""Plays on a storage daemon, through the QEMU project's own QMP client, what comes at a busy moment: guests that write below a job's feet, targets that are too
slow, verbs for jobs that are held by an error, the end of the daemon. Prints what happened in words that do not depend on whose daemon it is.

Usage: busy-scenarios.py SCENARIO DAEMON [ARGUMENT...]    (in an empty folder)
"""

import asyncio
import json
import os
import random
import sys

from qemu.qmp import ExecuteError

from scenario_stage import MIB, Daemon, contents, io, io_result, make_chain, make_disk, make_target, open_chain, run, say, shape_of, write


def clear():
    """Each part of a scenario begins in an empty folder."""
    run("rm", "-rf", *os.listdir("."))


async def status(d):
    return (await d.do("query-jobs"))[0]["status"]


# Guests


async def middle_commit(daemon):
    """A guest writes to the active image while images below it are committed, and while the commit waits to be finalized."""
    for top, base in (("mid", "base"), ("mid", "low"), ("low", "base")):
        clear()
        make_chain("base", "low", "mid", "top")
        numbers = random.Random(7)
        async with Daemon(daemon) as d:
            await open_chain(d, "base", "low", "mid", "top")
            await d.serve("top")
            await d.do("block-commit", job_id="job0", device="top", top_node=top, base_node=base, speed=MIB // 2, auto_finalize=False)

            async def live(rounds):
                for _ in range(rounds):
                    at, length = numbers.randrange(0, 7 * MIB), numbers.randrange(1, 200_000)
                    command = numbers.choice([f"write -P {numbers.randrange(1, 255)} {at} {length}", f"write -z {at} {length}", f"discard {at} {length}"])
                    await write("top", command)

            await live(12)
            say(top, base, await status(d), "while the guest writes")
            await d.do("block-job-set-speed", device="job0", speed=0)
            await live(4)
            await d.until("pending")
            await live(4)
            say(io_result("top", "read 0 8M"))
            await d.do("job-finalize", id="job0")
            await d.ended()
            await live(2)
            await d.shape()
        for image in ("base", "top") + ({"base": ("mid",) if top == "low" else (), "low": ("low",)}[base]):
            say(image, contents(image + ".qcow2"), shape_of(image + ".qcow2"))
            run("qemu-img", "check", image + ".qcow2")


# Slow targets


async def cbw_timeout(daemon):
    """Keeping the old data takes longer than it may: the guest's write fails, or the kept state is given up. What was begun goes on all the same."""
    def told(command, result):
        # NBD has no number for what took too long; QEMU calls it an invalid argument, we an error.
        return command, result.replace("Invalid argument", "failed").replace("Input/output error", "failed")

    for action in (None, "break-guest-write", "break-snapshot"):
        clear()
        make_disk()
        make_target("fleece.qcow2")
        async with Daemon(daemon) as d:
            await d.do("object-add", qom_type="throttle-group", id="slow", limits={"bps-write": 24 << 10})
            await d.open("disk", "disk.qcow2")
            await d.do("blockdev-add", driver="throttle", node_name="fleece", throttle_group="slow", file={
                "driver": "qcow2", "file": {"driver": "file", "filename": "fleece.qcow2"}})
            await d.do("blockdev-add", driver="copy-before-write", node_name="guest", file="disk", target="fleece", **{"cbw-timeout": 1}, **(
                {"on-cbw-error": action} if action else {}))
            await d.do("blockdev-add", driver="snapshot-access", node_name="snapshot", file="guest")
            await d.serve("guest", "snapshot")
            # The first goes through at once, the second has to wait for it.
            for command in ("write -P 8 0 64k", "write -P 9 1M 64k"):
                say(action, *told(command, await asyncio.to_thread(io_result, "guest", command)))
            for command in ("read -P 1 0 64k", "read -P 1 1M 64k"):
                say(action, "snapshot", *told(command, io_result("snapshot", command)))
            say(action, io_result("guest", "read -P 1 1M 64k"))
            # Whoever tries again comes through in the end.
            while io_result("guest", "write -P 10 1M 64k") != "done":
                pass
            for command in ("read -P 1 0 64k", "read -P 1 1M 64k"):
                say(action, "snapshot", *told(command, io_result("snapshot", command)))
        say(contents("disk.qcow2"))
        run("qemu-img", "check", "fleece.qcow2")


# The end of the daemon


async def quits(daemon):
    """The daemon is told to quit while jobs work, wait or are held: images are sound, and show what they showed."""
    async def stream(d):
        await d.do("block-stream", job_id="job0", device="top", speed=1)

    async def commit(d):
        await d.do("block-commit", job_id="job0", device="top", top_node="mid", speed=1)

    async def commit_pending(d):
        await d.do("block-commit", job_id="job0", device="top", top_node="mid", auto_finalize=False)
        await d.until("pending")

    async def active_commit(d):
        await d.do("block-commit", job_id="job0", device="top", speed=1)

    async def active_commit_ready(d):
        await d.do("block-commit", job_id="job0", device="top")
        await d.until("BLOCK_JOB_READY")
        await write("top", "write -P 77 100k 300k")

    async def active_commit_pending(d):
        await d.do("block-commit", job_id="job0", device="top", auto_finalize=False)
        await d.until("BLOCK_JOB_READY")
        await d.do("job-complete", id="job0")
        await d.until("pending")

    def mirror(mode, ends):
        async def play(d):
            await d.do("blockdev-mirror", job_id="job0", device="top", target="target", sync="full", copy_mode=mode, speed=0 if ends else 1, auto_finalize=ends != "pending")
            if ends:
                await d.until("BLOCK_JOB_READY")
                await write("top", "write -P 77 100k 300k")
            if ends in ("standby", "pending"):
                await d.do("job-pause" if ends == "standby" else "job-complete", id="job0")
                await d.until(ends)
        return play

    async def failed_mirror(d):
        await d.do("blockdev-mirror", job_id="job0", device="top", target="faulty", sync="full", on_target_error="stop")
        await d.until("BLOCK_JOB_ERROR")
        await d.until("paused")

    # QEMU's daemon does not end as long as a slow backup sleeps.
    async def backup(d):
        await d.do("blockdev-backup", job_id="job0", device="top", target="target", sync="full", speed=MIB)

    async def incremental(d):
        await d.do("blockdev-backup", job_id="job0", device="top", target="target", sync="incremental", bitmap="kept", speed=MIB // 8)
        await write("top", "write -P 79 3M 200k")

    async def group(d):
        await d.do("transaction", properties={"completion-mode": "grouped"}, actions=[
            {"type": "blockdev-backup", "data": {"job-id": "job0", "device": "top", "target": "target", "sync": "full"}},
            {"type": "blockdev-backup", "data": {"job-id": "job1", "device": "disk", "target": "other", "sync": "none"}}])
        await d.until("waiting")

    async def three(d):
        await d.do("block-commit", job_id="job0", device="top", top_node="mid", speed=1)
        await d.do("blockdev-backup", job_id="job1", device="disk", target="target", sync="none")
        await d.do("blockdev-create", job_id="job2", options={"driver": "file", "filename": "made", "size": 512})

    for name, play in [
        ("stream", stream), ("commit", commit), ("commit that is pending", commit_pending), ("active commit", active_commit),
        ("active commit that is ready", active_commit_ready), ("active commit that is pending", active_commit_pending),
        ("mirror", mirror("background", "")), ("active mirror", mirror("write-blocking", "")), ("ready mirror", mirror("background", "ready")),
        ("ready active mirror", mirror("write-blocking", "ready")), ("mirror that is held", mirror("background", "standby")),
        ("mirror that is pending", mirror("background", "pending")), ("mirror stopped by an error", failed_mirror), ("backup", backup), ("incremental backup", incremental),
        ("group", group), ("three", three)]:
        clear()
        make_chain("base", "mid", "top")
        for target in ("disk", "target", "other", "faulty"):
            make_target(target + ".qcow2")
        rule = {"event": "none", "iotype": "write", "errno": 5, "sector": 3 * MIB // 512}
        async with Daemon(daemon) as d:
            await open_chain(d, "base", "mid", "top")
            for target in ("disk", "target", "other"):
                await d.open(target, target + ".qcow2")
            await d.do("blockdev-add", driver="blkdebug", node_name="faulty", image={
                "driver": "qcow2", "file": {"driver": "file", "filename": "faulty.qcow2"}}, **{"inject-error": [rule]})
            await d.serve("top")
            await d.do("block-dirty-bitmap-add", node="top", name="kept", persistent=True)
            await write("top", "write -P 76 0 192k", "write -P 78 5M 64k")
            await play(d)
        # Who has ended well says so.
        say(name, d.process.returncode, contents("top.qcow2"), shape_of("top.qcow2"), shape_of("mid.qcow2"))
        for image in ("base", "mid", "top", "target", "other", "faulty"):
            run("qemu-img", "check", image + ".qcow2")
        for image in ("base", "mid") if "commit" not in name and name != "three" else ():
            say(contents(image + ".qcow2"))
        run("rm", "-f", "qmp.sock")
        async with Daemon(daemon) as d:
            await open_chain(d, "base", "mid", "top")
            await d.bitmaps("top")


# Verbs


HELD = [("job-" + verb, "id", {}) for verb in ("pause", "resume", "cancel", "complete", "finalize", "dismiss")]
HELD += [("block-job-" + verb, "device", {}) for verb in ("pause", "resume", "cancel", "complete")]
HELD += [("block-job-cancel", "device", {"force": True}), ("block-job-set-speed", "device", {"speed": 1 << 40})]


async def held_by_error(daemon):
    """Each verb, and then each other one, for a job that an error has stopped: before it is ready, and after."""
    for kind in ("mirror", "ready mirror", "backup", "stream", "commit"):
        for first in HELD:
            for second in HELD[:4] if "mirror" in kind and first[0] in ("job-pause", "block-job-set-speed") else (None,):
                clear()
                make_chain("base", "mid", "top", size=2 * MIB, filled=False)
                io("base.qcow2", "write -P 6 0 1M")
                io("mid.qcow2", "write -P 7 0 1M")
                make_target(size=2 * MIB)
                faulty = {"stream": "mid", "commit": "base"}.get(kind, "target")
                rule = {"event": "none", "iotype": "read" if kind == "stream" else "write", "errno": 5, "sector": 3000 if kind == "ready mirror" else 1024}
                async with Daemon(daemon) as d:
                    backing = None
                    for name in ("base", "mid", "top", "target"):
                        image = {"driver": "qcow2", "file": {"driver": "file", "filename": name + ".qcow2"}, **({"backing": backing} if name != "target" else {})}
                        if name == faulty:
                            await d.do("blockdev-add", driver="blkdebug", node_name=name, image=image, **{"inject-error": [rule]})
                        else:
                            await d.do("blockdev-add", node_name=name, **image)
                        backing = name
                    await d.serve("top")
                    if kind == "stream":
                        await d.do("block-stream", job_id="job0", device="top", base_node="base", on_error="stop")
                    elif kind == "commit":
                        await d.do("block-commit", job_id="job0", device="top", top_node="mid", base_node="base", on_error="stop")
                    elif kind == "backup":
                        await d.do("blockdev-backup", job_id="job0", device="top", target="target", sync="full", on_target_error="stop")
                    else:
                        await d.do("blockdev-mirror", job_id="job0", device="top", target="target", sync="full", on_target_error="stop")
                    if kind == "ready mirror":
                        await d.until("BLOCK_JOB_READY")
                        await write("top", "write -P 9 1500k 1k")
                    await d.until("BLOCK_JOB_ERROR")
                    await d.until("standby" if kind == "ready mirror" else "paused")
                    for command, key, more in (first, second) if second else (first,):
                        try:
                            await d.do(command, **{key: "job0"}, **more)
                            answer = "done"
                        except ExecuteError as error:
                            answer = f"{error.error_class}: {error}"
                        say(kind, command, json.dumps(more), "->", answer)
                        if answer == "done" and "resume" in command:
                            # The error comes again.
                            await d.until("BLOCK_JOB_ERROR")
                            await d.until("standby" if kind == "ready mirror" else "paused")
                        elif answer == "done" and "cancel" in command:
                            break
                    if answer != "done" or "cancel" not in command:
                        say([(job["status"], job["paused"], job["io-status"]) for job in await d.do("query-block-jobs")])
                        await d.ask("block-job-cancel", device="job0", force=True)
                    await d.until("null")
                    await d.shape()


async def speeds(daemon):
    """A job is slowed to a crawl and let go again; what is not ready cannot be completed; a job that is told to complete can be held and cancelled."""
    for kind in ("stream", "commit", "active commit", "mirror", "backup"):
        clear()
        # Each change of the speed may let a piece pass.
        make_chain("base", "mid", "top", size=16 * MIB)
        io("mid.qcow2", "write -P 5 4M 10M")
        make_target(size=16 * MIB)
        async with Daemon(daemon) as d:
            await open_chain(d, "base", "mid", "top")
            await d.open("target", "target.qcow2")
            start = {
                "stream": ("block-stream", {"device": "top"}), "commit": ("block-commit", {"device": "top", "top_node": "mid"}),
                "active commit": ("block-commit", {"device": "top"}), "mirror": ("blockdev-mirror", {"device": "top", "target": "target", "sync": "full"}),
                "backup": ("blockdev-backup", {"device": "top", "target": "target", "sync": "full"})}[kind]
            await d.do(start[0], job_id="job0", speed=1, auto_dismiss=False, auto_finalize=False, **start[1])
            for speed in (100, -1, 1, 512):
                await d.ask("block-job-set-speed", device="job0", speed=speed)
            say((await d.do("query-block-jobs"))[0]["speed"], await status(d))
            for verb in ("complete", "finalize", "dismiss"):
                await d.ask("job-" + verb, id="job0")
            await d.do("job-pause", id="job0")
            # Not its event: QEMU's jobs have been held by drained sections before.
            while await status(d) != "paused":
                pass
            await d.ask("block-job-set-speed", device="job0", speed=0)
            await d.ask("job-complete", id="job0")
            await d.do("job-resume", id="job0")
            name, _ = await d.until("ready", "pending")
            if name == "ready":
                await d.ask("job-finalize", id="job0")
                await d.ask("job-dismiss", id="job0")
                await d.ask("job-complete", id="job0")
                await d.until("pending")
                await d.ask("job-complete", id="job0")
            for verb in ("pause", "dismiss", "resume"):
                await d.ask("job-" + verb, id="job0")
            await d.ask("block-job-set-speed", device="job0", speed=1)
            await d.do("job-finalize", id="job0")
            await d.ended()
            for verb in ("finalize", "cancel", "pause"):
                await d.ask("job-" + verb, id="job0")
            await d.ask("block-job-set-speed", device="job0", speed=1)
            await d.ask("job-dismiss", id="job0")
            await d.ask("job-dismiss", id="job0")
            await d.shape()
        say(contents("base.qcow2") if "commit" in kind else contents("target.qcow2"), contents("top.qcow2") if kind != "active commit" else "")


# Names and places


async def masked(daemon):
    """What a chain says of its backing file when the base is a protocol's node, and the name of the protocol is to be hidden, or not."""
    for command, arguments in (("block-commit", {"top-node": "mid", "base-node": "base"}), ("block-stream", {"base-node": "base"}), ("block-stream", {"bottom": "mid"})):
        for mask in (None, False, True):
            # QEMU refuses a name together with `bottom`.
            for more in ({}, {"backing-file": "./base.raw"})[:1 if "bottom" in arguments else 2]:
                clear()
                run("qemu-img", "create", "-q", "-f", "raw", "base.raw", "4M")
                io("base.raw", "write -P 1 0 1M", fmt="raw")
                for name, below, fmt in (("mid", "base.raw", "raw"), ("top", "mid.qcow2", "qcow2")):
                    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", fmt, name + ".qcow2")
                    io(name + ".qcow2", f"write -P {len(below)} {len(below) * 100}k 1M")
                async with Daemon(daemon) as d:
                    await d.do("blockdev-add", driver="file", node_name="base", filename="base.raw")
                    await d.open("mid", "mid.qcow2", backing="base")
                    await d.open("top", "top.qcow2", backing="mid")
                    try:
                        await d.do(command, job_id="job0", device="top", **arguments, **more, **({"backing-mask-protocol": mask} if mask is not None else {}))
                    except ExecuteError as error:
                        say(command, mask, more, "refused:", error)
                        continue
                    await d.ended()
                    await d.shape()
                say(command, mask, more, shape_of("top.qcow2"), contents("top.qcow2"))


async def replaces(daemon):
    """A mirror takes the place of another node than its source: a child of a quorum, the image below a filter."""
    for replaced, source in (("a", "all"), ("b", "all"), ("limited", "limited"), ("c", "limited"), ("nowhere", "all"), ("other", "all"), ("target", "all"), ("all", "all")):
        clear()
        for name in ("a", "b", "c", "other"):
            make_disk(name + ".qcow2")
        make_target()
        async with Daemon(daemon) as d:
            for name in ("a", "b", "c", "other", "target"):
                await d.open(name, name + ".qcow2")
            await d.do("object-add", qom_type="throttle-group", id="group")
            await d.do("blockdev-add", driver="throttle", node_name="limited", throttle_group="group", file="c")
            await d.do("blockdev-add", driver="quorum", node_name="all", children=["a", "b"], **{"vote-threshold": 2})
            await d.serve("all", "limited")
            await write(source, "write -P 44 1M 64k")
            try:
                await d.do("blockdev-mirror", job_id="job0", device=source, target="target", sync="full", replaces=replaced)
            except ExecuteError as error:
                say(replaced, source, "refused:", error)
                continue
            await d.until("BLOCK_JOB_READY")
            await write(source, "write -P 45 3M 64k")
            await d.ask("job-complete", id="job0")
            await d.ended()
            await write(source, "write -P 46 5M 64k")
            await d.shape()
        say(replaced, source, contents("target.qcow2"), contents("a.qcow2"), contents("b.qcow2"), contents("c.qcow2"))


async def unmap(daemon):
    """Zeroes of the source become holes in the target, or keep their place, as wanted."""
    for unmaps in (None, True, False):
        clear()
        run("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "8M")
        io("disk.qcow2", "write -P 1 0 1M", "write -z 2M 4M")
        with open("there.raw", "wb") as file:
            file.write(b"old" * (8 * MIB // 3) + b"xx")
        async with Daemon(daemon) as d:
            await d.open("disk", "disk.qcow2", discard="unmap")
            await d.do("drive-mirror", job_id="job0", device="disk", target="there.raw", format="raw", mode="existing", sync="full", **({} if unmaps is None else {"unmap": unmaps}))
            await d.until("BLOCK_JOB_READY")
            await d.do("job-complete", id="job0")
            await d.until("BLOCK_JOB_COMPLETED")
        say(unmaps, contents("there.raw", "raw") == contents("disk.qcow2"), os.stat("there.raw").st_blocks * 512 > 4 * MIB)


asyncio.run(globals()[sys.argv[1]](sys.argv[2:]))
