"""Plays a scenario of jobs on a storage daemon through the QEMU project's own QMP client, and prints what happened in
words that do not depend on whose daemon it is. Two daemons that do the same print the same.

Usage: job-scenarios.py SCENARIO DAEMON [ARGUMENT...]    (in an empty folder)
"""

import asyncio
import json
import re
import sys

from qemu.qmp import ExecuteError

from scenario_stage import MIB, Daemon, address, contents, io, make_chain, make_disk, make_target, open_chain, run, say, shape_of, write


# Making images


FILE = {"driver": "file", "filename": "made.file"}
QCOW2 = {"driver": "qcow2", "file": "node", "size": 4 * MIB}
LUKS = {"driver": "luks", "file": "node", "size": MIB, "key-secret": "key", "iter-time": 10}
CREATIONS = [
    {**FILE, "size": MIB}, {**FILE, "size": 1000}, {**FILE, "size": 0},
    {**FILE, "size": MIB, "preallocation": "falloc"}, {**FILE, "size": MIB, "preallocation": "full"}, {**FILE, "size": MIB, "preallocation": "metadata"},
    {**FILE, "size": MIB, "preallocation": "off", "nocow": True}, {**FILE, "size": MIB, "extent-size-hint": 0},
    {"driver": "file", "filename": "nowhere/made.file", "size": MIB}, {"driver": "file", "filename": "", "size": MIB},
    {"driver": "raw"}, {"driver": "nbd"}, {"driver": "null-co"}, {"driver": "blkdebug"}, {},
    {"driver": "file"}, {"driver": "qcow2", "size": MIB}, {"driver": "qcow2", "file": "node"},
    QCOW2, {**QCOW2, "version": "v2"}, {**QCOW2, "version": "v3", "lazy-refcounts": True}, {**QCOW2, "version": "v2", "lazy-refcounts": True},
    {**QCOW2, "version": "v2", "compression-type": "zstd"}, {**QCOW2, "version": "v2", "refcount-bits": 1}, {**QCOW2, "version": "v2", "extended-l2": True},
    {**QCOW2, "compression-type": "zstd"}, {**QCOW2, "extended-l2": True}, {**QCOW2, "extended-l2": True, "cluster-size": 4096},
    {**QCOW2, "cluster-size": 512}, {**QCOW2, "cluster-size": 2 * MIB}, {**QCOW2, "cluster-size": 4 * MIB}, {**QCOW2, "cluster-size": 1000},
    {**QCOW2, "cluster-size": 0}, {**QCOW2, "refcount-bits": 64}, {**QCOW2, "refcount-bits": 3}, {**QCOW2, "refcount-bits": 128}, {**QCOW2, "size": 1000},
    {**QCOW2, "size": 0}, {**QCOW2, "preallocation": "metadata"}, {**QCOW2, "preallocation": "falloc"},
    {**QCOW2, "preallocation": "full"}, {**QCOW2, "backing-file": "base.qcow2", "backing-fmt": "qcow2"}, {**QCOW2, "backing-fmt": "qcow2"},
    {**QCOW2, "backing-file": "base.qcow2", "backing-fmt": "qcow2", "preallocation": "metadata"},
    {**QCOW2, "data-file": "data"}, {**QCOW2, "data-file": "data", "data-file-raw": True}, {**QCOW2, "data-file": "nope"}, {**QCOW2, "data-file-raw": True},
    {**QCOW2, "data-file": "data", "version": "v2"}, {**QCOW2, "file": "nope"}, {**QCOW2, "file": "read-only"}, {**QCOW2, "file": "busy"},
    {**QCOW2, "file": {"driver": "file", "filename": "inline.file"}}, {**QCOW2, "file": {"driver": "file", "filename": "missing.file"}},
    {**QCOW2, "encrypt": {"format": "luks", "key-secret": "key", "iter-time": 10}}, {**QCOW2, "encrypt": {"format": "luks", "key-secret": "nope"}},
    {**QCOW2, "encrypt": {"format": "luks"}}, LUKS, {**LUKS, "cipher-alg": "aes-128", "cipher-mode": "cbc", "ivgen-alg": "plain64", "hash-alg": "sha1"},
    {**LUKS, "key-secret": "nope"}, {key: value for key, value in LUKS.items() if key != "key-secret"}, {**LUKS, "preallocation": "full"},
    {**LUKS, "cipher-mode": "ecb"}, {**LUKS, "size": 0},
]


async def create(daemon):
    """Every driver that makes images, over files that are there and not, with options that can be and cannot: the job's life, and what it has made."""
    for name in ("base.qcow2",):
        run("qemu-img", "create", "-q", "-f", "qcow2", name, "4M")
    for options in CREATIONS:
        run("rm", "-f", "made.file", "qmp.sock")
        for name in ("node.file", "data.file", "inline.file", "busy.file", "read-only.file"):
            with open(name, "wb") as file:
                file.write(b"something" * 100_000)
        async with Daemon(daemon) as d:
            await d.do("object-add", qom_type="secret", id="key", data="secret")
            for name in ("node", "data", "busy"):
                await d.do("blockdev-add", driver="file", node_name=name, filename=name + ".file")
            await d.do("blockdev-add", driver="file", node_name="read-only", filename="read-only.file", read_only=True)
            await d.do("blockdev-add", driver="raw", node_name="user", file="busy")
            await d.do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
            await d.do("block-export-add", type="nbd", id="x", node_name="user", writable=True)
            say(json.dumps(options, sort_keys=True))
            try:
                await d.do("blockdev-create", job_id="job0", options=options)
            except ExecuteError as error:
                say("refused:", error)
                continue
            seen = []
            while not seen or seen[-1] != "concluded":
                seen.append((await d.until(*"created running waiting pending aborting concluded BLOCK_JOB_COMPLETED".split()))[0])
            job = (await d.do("query-jobs"))[0]
            # Who wants what of whom is told from either side.
            error = re.sub(r"(permissions|Block node) .*", r"\1", job.get("error", "")).replace("device='nope'", "device=''")
            say(seen, job["type"], job["status"], error, (await d.do("query-block-jobs")))
            await d.ask("blockdev-create", job_id="job0", options=options)
            await d.ask("job-dismiss", id="job0")
            say(await d.do("query-jobs"))
        run("rm", "-f", "nbd.sock")
        if "error" not in job:
            where = options.get("filename") or {"node": "node.file", "busy": "busy.file"}.get(str(options["file"]), "inline.file")
            told = json.loads(run("qemu-img", "info", "-f", {"file": "raw"}.get(options["driver"], options["driver"]), "--output=json", where))
            about = told.get("format-specific", {}).get("data", {})
            say(shape_of(where) if options["driver"] == "qcow2" else told["virtual-size"], told.get("cluster-size"), {
                key: value for key, value in about.items() if key not in ("encrypt", "uuid", "payload-offset", "master-key-iters", "slots")})
            if options["driver"] == "qcow2" and not {"data-file", "encrypt"} & set(options):
                say(run("qemu-img", "check", "-f", "qcow2", where).splitlines()[0])


# Verbs in each state


VERBS = [("job-" + verb, "id", {}) for verb in ("pause", "resume", "cancel", "complete", "finalize", "dismiss")]
VERBS += [("block-job-" + verb, "device", {}) for verb in ("pause", "resume", "cancel", "complete")]
VERBS += [("block-job-" + verb, "id", {}) for verb in ("finalize", "dismiss")]
VERBS += [("block-job-cancel", "device", {"force": True}), ("block-job-set-speed", "device", {"speed": 0}), ("block-job-set-speed", "device", {"speed": -1})]
VERBS += [("block-job-change", "id", {"type": "mirror", "copy-mode": mode}) for mode in ("background", "write-blocking")]


async def verbs(daemon):
    """Each verb in each status that a job can be brought to."""
    make_disk()
    for name in ("target", "other", "spare"):
        make_target(name + ".qcow2")
    for status in ("running", "paused", "ready", "standby", "waiting", "pending", "concluded", "created image"):
        run("rm", "-f", "qmp.sock")
        async with Daemon(daemon) as d:
            for name in ("disk", "target", "other", "spare"):
                await d.open(name, name + ".qcow2")
            for command, key, more in VERBS:
                await bring(d, status)
                try:
                    await d.do(command, **{key: "job0"}, **more)
                    answer = "done"
                except ExecuteError as error:
                    answer = f"{error.error_class}: {error}"
                say(status, command, json.dumps(more), "->", answer)
                if answer == "done" and command.endswith("change"):
                    await d.ask("block-job-change", id="job0", type="mirror", copy_mode="background")
                await away(d)


async def bring(d, status):
    """A job in that status."""
    if status in ("running", "paused"):
        await d.do("blockdev-backup", job_id="job0", device="disk", target="target", sync="none")
        await d.until("running")
    elif status in ("ready", "standby"):
        await d.do("blockdev-mirror", job_id="job0", device="disk", target="target", sync="full")
        await d.until("BLOCK_JOB_READY")
    elif status == "waiting":
        members = [("job0", "disk", "target", "full"), ("job1", "other", "spare", "none")]
        await d.do("transaction", properties={"completion-mode": "grouped"}, actions=[
            {"type": "blockdev-backup", "data": {"job-id": job, "device": device, "target": target, "sync": sync}} for job, device, target, sync in members])
        await d.until("waiting")
    elif status == "created image":
        await d.do("blockdev-create", job_id="job0", options={"driver": "file", "filename": "made", "size": 512})
        await d.until("concluded")
    else:
        await d.do("blockdev-backup", job_id="job0", device="disk", target="target", sync="full", auto_finalize=status != "pending", auto_dismiss=False)
        await d.until(status)
    if status in ("paused", "standby"):
        await d.do("job-pause", id="job0")
        await d.until(status)


async def away(d):
    """Ends all jobs."""
    while jobs := await d.do("query-jobs"):
        for job in jobs:
            for verb in ("job-cancel", "job-finalize", "job-dismiss"):
                try:
                    await d.do(verb, id=job["id"])
                except ExecuteError:
                    pass
        await asyncio.sleep(0.002)
    while not d.listener.empty():
        d.listener.clear()


# Mirrors


async def mirror_limits(daemon):
    """What granularities and buffers a mirror takes, and that it copies with each."""
    make_disk()
    async with Daemon(daemon) as d:
        await d.open("disk", "disk.qcow2")
        for more in [{"granularity": number} for number in (0, 1, 511, 512, 1000, 4096, 65536, 1 << 20, 1 << 26, (1 << 26) + 1, 1 << 27)] + [
            {"buf-size": number} for number in (-1, 0, 1, 512, 4096, 100_000, 1 << 20, 1 << 30)] + [
            {"granularity": 1 << 20, "buf-size": 4096}, {"granularity": 512, "buf-size": 1}, {"granularity": -1}, {"granularity": 1 << 32}]:
            for name in ("target.qcow2", "new.out"):
                run("rm", "-f", name)
            make_target()
            await d.open("target", "target.qcow2")
            for command, arguments in (("blockdev-mirror", {"target": "target"}), ("drive-mirror", {"target": "new.out", "format": "qcow2"})):
                try:
                    await d.do(command, job_id="job0", device="disk", sync="full", **arguments, **more)
                except ExecuteError as error:
                    say(command, more, "refused:", error)
                    continue
                await d.until("ready")
                await d.do("block-job-cancel", device="job0")
                await d.until("null")
                image = arguments["target"] if "." in arguments["target"] else "target.qcow2"
                say(command, more, contents(image) == contents("disk.qcow2"))
            await d.do("blockdev-del", node_name="target")


async def drive_mirror_active(daemon):
    """drive-mirror of each part of a chain in each mode, while a guest writes; the mode is changed on the way; who pivots goes on in the new image."""
    for sync in ("full", "top", "none"):
        # Until QEMU opens the target's chain, parts of its clusters are filled with zeroes.
        for mode in ("background", "write-blocking") + (("changed",) if sync == "full" else ()):
            for name in ("base.qcow2", "disk.qcow2", "new.qcow2", "qmp.sock", "nbd.sock", "seen.raw"):
                run("rm", "-f", name)
            make_chain("base", "disk")
            async with Daemon(daemon) as d:
                await open_chain(d, "base", "disk")
                await d.serve("disk")
                await d.do(
                    "drive-mirror", job_id="job0", device="disk", target="new.qcow2", format="qcow2", sync=sync, node_name="new",
                    copy_mode="background" if mode == "changed" else mode)
                await d.until("BLOCK_JOB_READY")
                await write("disk", "write -P 33 4000k 5000", "write -z 2M 64k", "write -P 34 7M 300k")
                if mode == "changed":
                    await d.ask("block-job-change", id="job0", type="mirror", copy_mode="write-blocking")
                    await d.ask("block-job-change", id="job0", type="mirror", copy_mode="background")
                    await write("disk", "write -P 35 100k 70000", "write -P 37 7500k 64k")
                while mode != "background" and not (await d.do("query-block-jobs"))[0]["actively-synced"]:
                    await asyncio.sleep(0.01)
                await d.do("job-complete", id="job0")
                await d.ended()
                await write("disk", "write -P 36 6M 64k")
                await d.shape()
                run("qemu-img", "convert", "-f", "raw", "-O", "raw", address("disk"), "seen.raw")
                say(sync, mode, contents("seen.raw", "raw"), shape_of("new.qcow2"))


# Errors


async def policies(daemon):
    """Errors of each side under each policy, for the jobs on chains: one that comes once, and one that stays until the job is cancelled."""
    for kind, side in (("commit", "read"), ("commit", "write"), ("active commit", "write"), ("mirror", "read"), ("mirror", "write"), ("stream", "read"), ("stream", "write")):
        for policy in ("report", "ignore", "stop", "enospc", "auto"):
            for number in (5, 28):
                for once in (True, False):
                    # What is ignored is tried again and again, and tells so as often: how often is chance.
                    if policy == "ignore" and not once:
                        continue
                    if policy == "auto" and kind == "stream":
                        continue
                    await policy_of(daemon, kind, side, policy, number, once)


async def stubborn(daemon):
    """A target that always fails, under a policy of ignoring it: the job is not ready and does not end, and can be held and cancelled."""
    for kind in ("commit", "active commit", "mirror", "backup"):
        for name in ("base.qcow2", "mid.qcow2", "top.qcow2", "target.qcow2", "qmp.sock"):
            run("rm", "-f", name)
        run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "4M")
        make_chain("base", "mid", "top", size=4 * MIB, filled=False)
        io("mid.qcow2", "write -P 7 0 4M")
        make_target(size=4 * MIB)
        faulty = "base" if "commit" in kind else "target"
        async with Daemon(daemon) as d:
            for name, backing in (("base", None), ("mid", "base"), ("top", "mid"), ("target", None)):
                image = {"driver": "qcow2", "file": {"driver": "file", "filename": name + ".qcow2"}, **({"backing": backing} if name != "target" else {})}
                if name == faulty:
                    rule = {"event": "none", "iotype": "write", "errno": 5, "sector": 4000}
                    await d.do("blockdev-add", driver="blkdebug", node_name=name, image=image, **{"inject-error": [rule]})
                else:
                    await d.do("blockdev-add", node_name=name, **image)
            if kind == "mirror":
                await d.do("blockdev-mirror", job_id="job0", device="top", target="target", sync="full", on_target_error="ignore")
            elif kind == "backup":
                await d.do("blockdev-backup", job_id="job0", device="top", target="target", sync="full", on_target_error="ignore")
            else:
                more = {"top_node": "mid"} if kind == "commit" else {}
                await d.do("block-commit", job_id="job0", device="top", base_node="base", on_error="ignore", **more)
            seen = set()
            for _ in range(20):
                name, _ = await d.until("BLOCK_JOB_ERROR", "BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED")
                seen.add(name)
            say(kind, seen, (await d.do("query-jobs"))[0]["status"])
            await d.do("job-pause", id="job0")
            await d.until("paused")
            await d.do("job-resume", id="job0")
            await d.until("BLOCK_JOB_ERROR")
            await d.do("block-job-cancel", device="job0", force=True)
            await d.until("BLOCK_JOB_CANCELLED")
            await d.until("null")
            await d.shape()
        say(contents("top.qcow2"))


async def policy_of(daemon, kind, side, policy, number, once):
    for name in ("base.qcow2", "mid.qcow2", "top.qcow2", "target.qcow2", "qmp.sock"):
        run("rm", "-f", name)
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "2M")
    make_chain("base", "mid", "top", size=2 * MIB, filled=False)
    io("mid.qcow2" if kind in ("commit", "stream") else "top.qcow2", "write -P 7 0 1M")
    make_target(size=2 * MIB)
    faulty = {"commit": {"read": "mid", "write": "base"}, "active commit": {"write": "base"}, "mirror": {"read": "top", "write": "target"},
              "stream": {"read": "mid", "write": "top"}}[kind][side]
    rule = {"event": "none", "iotype": side, "errno": number, "sector": 1024, "once": once}
    async with Daemon(daemon) as d:
        backing = None
        for name in ("base", "mid", "top", "target"):
            image = {"driver": "qcow2", "file": {"driver": "file", "filename": name + ".qcow2"}}
            if name != "target":
                image["backing"] = backing
                backing = name
            if name == faulty:
                await d.do("blockdev-add", driver="blkdebug", node_name=name, image=image, **{"inject-error": [rule]})
            else:
                await d.do("blockdev-add", node_name=name, **image)
        policies = {"on-error": policy}
        if kind == "commit":
            await d.do("block-commit", job_id="job0", device="top", top_node="mid", base_node="base", **policies)
        elif kind == "active commit":
            await d.do("block-commit", job_id="job0", device="top", base_node="base", **policies)
        elif kind == "stream":
            await d.do("block-stream", job_id="job0", device="top", base_node="base", **policies)
        else:
            await d.do("blockdev-mirror", job_id="job0", device="top", target="target", sync="full", on_source_error=policy, on_target_error=policy)
        _, data = await d.until("BLOCK_JOB_ERROR")
        say(kind, side, policy, number, "once" if once else "always", data["operation"], data["action"])
        action = data["action"]
        if action == "stop":
            await d.until("paused")
            info = (await d.do("query-block-jobs"))[0]
            say(info["status"], info["io-status"], info["paused"])
            await d.do("job-resume", id="job0")
            if not once:
                # It fails again, and is held again.
                await d.until("paused")
                await d.do("block-job-cancel", device="job0", force=True)
        name, data = await d.until("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")
        if name == "BLOCK_JOB_READY":
            await d.do("job-complete", id="job0")
            name, data = await d.until("BLOCK_JOB_COMPLETED")
        await d.until("null")
        say(name, data.get("error"))
        await d.shape()
    # How much of a failed commit is in the base is chance.
    say(contents("top.qcow2"), contents("base.qcow2") if once and action != "report" else "")


# What jobs leave behind


async def read_only_again(daemon):
    """Images that have become read-only because they have an overlay are so again after every job that had to write to them, whatever its end."""
    async def overlay(d, below, above):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below + ".qcow2", "-F", "qcow2", above + ".qcow2")
        await d.open(above, above + ".qcow2", backing=None)
        await d.do("blockdev-snapshot", node=below, overlay=above)

    async def show(d, words):
        await d.until("null")
        say(words, sorted((node["node-name"], node["ro"]) for node in await d.do("query-named-block-nodes", flat=True) if node["node-name"][0] in "bmt"))

    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "4M")
    io("base.qcow2", "write -P 1 0 1M")
    async with Daemon(daemon) as d:
        await d.open("base", "base.qcow2")
        await overlay(d, "base", "mid")
        await overlay(d, "mid", "top")
        for name in ("base", "mid"):
            await d.do("block-stream", job_id="job0", device=name)
            await show(d, "streamed " + name)
        await d.do("block-commit", job_id="job0", device="top", auto_finalize=False)
        await d.until("BLOCK_JOB_READY")
        await d.do("job-complete", id="job0")
        await d.until("pending")
        await d.do("job-cancel", id="job0")
        await show(d, "commit cancelled when it was pending")
        await d.do("block-commit", job_id="job0", device="top")
        await d.until("BLOCK_JOB_READY")
        await d.do("block-job-cancel", device="job0", force=True)
        await show(d, "commit cancelled by force")
        await overlay(d, "top", "tip")
        await d.do("block-commit", job_id="job0", device="tip", top_node="top", base_node="mid")
        await show(d, "committed top")


async def moving(daemon):
    """An idle image that has an overlay may be a backup's target; a job's nodes may move to another thread, and the job goes on."""
    make_chain("base", "top")
    make_disk("source.qcow2")
    async with Daemon(daemon) as d:
        await open_chain(d, "base", "top")
        await d.open("source", "source.qcow2")
        await d.do("object-add", qom_type="iothread", id="thread")
        await d.ask("blockdev-mirror", job_id="job0", device="source", target="base", sync="full")
        await d.do("blockdev-backup", job_id="job0", device="source", target="base", sync="full", auto_finalize=False)
        await d.until("pending")
        for node in ("source", "base"):
            await d.ask("x-blockdev-set-iothread", node_name=node, iothread="thread", force=True)
        await d.do("job-finalize", id="job0")
        await d.ended()
        await d.do("blockdev-del", node_name="top")
        await d.do("blockdev-mirror", job_id="job0", device="source", target="base", sync="full")
        await d.until("BLOCK_JOB_READY")
        await d.ask("x-blockdev-set-iothread", node_name="source", iothread=None, force=True)
        await d.do("job-complete", id="job0")
        await d.ended()
        await d.shape()
    say(contents("base.qcow2") == contents("source.qcow2"))


# Who may be there


async def guarded(daemon):
    """Nobody gets below a backup or a mirror that has no other user."""
    make_disk()
    for name in ("target", "other"):
        make_target(name + ".qcow2")
    async with Daemon(daemon) as d:
        for name in ("disk", "target", "other"):
            await d.open(name, name + ".qcow2")
        await d.do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        await d.do("blockdev-backup", job_id="job0", device="disk", target="target", sync="none")
        for writable in (False, True):
            await d.ask("block-export-add", type="nbd", id="x", node_name="disk", name=f"x{writable}", writable=writable)
        await d.ask("blockdev-mirror", job_id="job1", device="other", target="disk", sync="none")
        await d.ask("block_resize", node_name="disk", size=16 * MIB)
        await d.ask("blockdev-del", node_name="disk")
        # Options may change, but not so that the job cannot go on.
        for name in ("target", "disk"):
            for more in ({"discard": "unmap"}, {"read-only": True}, {}, {"backing": "other"}):
                await d.ask("blockdev-reopen", options=[{"driver": "qcow2", "node-name": name, "file": {"driver": "file", "filename": name + ".qcow2"}, **more}])
        await d.do("job-cancel", id="job0")
        await d.ended()
        # An inactive disk is nobody's to mirror or commit.
        make_target("idle.qcow2")
        await d.open("idle", "idle.qcow2")
        await d.do("blockdev-set-active", node_name="idle", active=False)
        await d.ask("blockdev-mirror", job_id="job0", device="idle", target="target", sync="full", filter_node_name="filter")
        await d.ask("blockdev-mirror", job_id="job0", device="disk", target="idle", sync="full", filter_node_name="filter")
        await d.ask("blockdev-backup", job_id="job0", device="idle", target="target", sync="full", filter_node_name="filter")
        await d.shape()


async def removed(daemon):
    """What is said to who wants to remove an image from a chain that is being committed."""
    for top in ("mid", "top"):
        for name in ("base", "low", "mid", "top"):
            run("rm", "-f", name + ".qcow2", "qmp.sock")
        make_chain("base", "low", "mid", "top")
        async with Daemon(daemon) as d:
            await open_chain(d, "base", "low", "mid", "top")
            await d.do("block-commit", job_id="job0", device="top", top_node=top, base_node="base", auto_finalize=False)
            await d.until("pending", "ready")
            for name in ("base", "low", "mid"):
                await d.ask("blockdev-del", node_name=name)
            await d.do("job-cancel", id="job0")
            await d.ended()
            await d.shape()


async def raw_base(daemon):
    """A chain that ends in a raw image: the image is its base, not the file below it."""
    for command, arguments in (
        ("block-commit", {}), ("block-commit", {"top-node": "mid"}), ("block-stream", {}), ("block-stream", {"base-node": "base"}), ("block-stream", {"bottom": "base"}),
        ("block-stream", {"base-node": "base-file"}), ("block-commit", {"base-node": "base-file"}), ("block-commit", {"device": "base"}),
        ("block-commit", {"base": "base.raw"}), ("block-stream", {"base": "base.raw"}), ("block-stream", {"bottom": "base", "backing-file": "x"}),
    ):
        for name in ("base.raw", "mid.qcow2", "top.qcow2", "qmp.sock"):
            run("rm", "-f", name)
        run("qemu-img", "create", "-q", "-f", "raw", "base.raw", "4M")
        io("base.raw", "write -P 1 0 1M", fmt="raw")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2")
        io("mid.qcow2", "write -P 2 512k 1M")
        io("top.qcow2", "write -P 3 1200k 1M")
        async with Daemon(daemon) as d:
            await d.do("blockdev-add", driver="raw", node_name="base", file={"driver": "file", "filename": "base.raw", "node-name": "base-file"})
            await d.open("mid", "mid.qcow2", backing="base")
            await d.open("top", "top.qcow2", backing="mid")
            try:
                await d.do(command, **{"job-id": "job0", "device": "top", **arguments})
            except ExecuteError as error:
                say(command, arguments, "refused:", error)
                continue
            name, _ = await d.until("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED")
            if name == "BLOCK_JOB_READY":
                await d.do("job-complete", id="job0")
            await d.until("null")
            say(command, arguments)
            await d.shape()
        say(contents("base.raw", "raw"), contents("mid.qcow2"), contents("top.qcow2"), shape_of("mid.qcow2"), shape_of("top.qcow2"))


asyncio.run(globals()[sys.argv[1]](sys.argv[2:]))
