"""Plays a random sequence of jobs, verbs, changes of the graph and guests' writes on a storage daemon, legal and illegal ones, and prints what came of
each in words that do not depend on whose daemon it is. Two daemons that do the same print the same.

Usage: random-jobs.py SEED DAEMON [ARGUMENT...]    (in an empty folder)
"""

import asyncio
import json
import random
import re
import sys

from qemu.qmp import ExecuteError

from scenario_stage import MIB, Daemon, address, contents, io, run, say

SIZE = 4 * MIB
RESTS = ("ready", "standby", "pending", "concluded", "paused", "null")


class Duel:
    """One sequence. What is chosen depends on the seed and on what the daemon has answered so far."""

    def __init__(self, seed, daemon):
        self.random = random.Random(seed)
        self.d = daemon
        self.events = []
        self.jobs = {}  # by id: the kind and whether it rests while it runs
        self.count = 0
        self.faulty = None
        # QEMU leaves the base of a commit writable that was cancelled when it was ready.
        self.tells_read_only = True
        self.completing = set()
        self.held = set()

    def chance(self, one):
        return self.random.randrange(one) == 0

    def pick(self, *of):
        return self.random.choice(of)

    # What there is

    async def prepare(self):
        depth = self.random.randint(1, 4)
        self.chain = [f"n{index}" for index in range(depth)]
        self.nodes = self.chain + ["t", "r", "s"]
        for index, name in enumerate(self.chain):
            below = ["-b", f"n{index - 1}.qcow2", "-F", "qcow2"] if index else []
            size = [] if index else [str(SIZE)]
            run("qemu-img", "create", "-q", "-f", "qcow2", *below, name + ".qcow2", *size)
            writes = []
            for _ in range(self.random.randint(1, 5)):
                offset = self.random.randrange(0, SIZE, 512)
                length = self.random.randrange(512, min(SIZE - offset, 700_000) + 1, 512)
                writes.append(f"write {self.pick('-z', '-P 1', '-P 2', '-P 3', '-P 4')} {offset} {length}")
            io(name + ".qcow2", *writes)
        run("qemu-img", "create", "-q", "-f", "qcow2", "t.qcow2", str(SIZE))
        run("qemu-img", "create", "-q", "-f", "raw", "r.raw", str(SIZE))
        run("qemu-img", "create", "-q", "-f", "raw", "s.raw", str(MIB))
        # A node whose reads of one place fail, once or always.
        self.faulty = self.pick(None, None, None, "n0", self.chain[-1])
        rule = {
            "event": "none", "iotype": "read", "errno": self.pick(5, 28), "once": not self.chance(4),
            "sector": self.random.randrange(0, SIZE // 512),
        }
        for index, name in enumerate(self.chain):
            await self.open(name, "qcow2", rule, backing=f"n{index - 1}" if index else None, read_only=index < depth - 1 and self.chance(3))
        await self.open("t", "qcow2", rule)
        await self.open("r", "raw", rule)
        await self.open("s", "raw", rule)
        await self.d.do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        await self.d.do("block-export-add", type="nbd", id="x", node_name=self.chain[-1], name="x", writable=True)
        if self.chance(3):
            await self.d.do("object-add", qom_type="iothread", id="thread")
        for name in self.random.sample(self.chain, k=self.random.randint(0, depth)):
            await self.d.do("block-dirty-bitmap-add", node=name, name="b", persistent=self.chance(2) and name != self.faulty and not await self.is_read_only(name))

    async def is_read_only(self, name):
        return next(node["ro"] for node in await self.d.do("query-named-block-nodes", flat=True) if node["node-name"] == name)

    async def open(self, name, fmt, rule, **more):
        file = {"driver": "file", "filename": f"{name}.{fmt}", "node-name": name + "-file"}
        if self.chance(2):
            file["auto-read-only"] = True
        more = {key: value for key, value in more.items() if value is not None or key == "backing"}
        if name in ("t", "r", "s"):
            more.pop("backing", None)
        if self.faulty == name:
            image = {"driver": fmt, "file": file, **{key.replace("_", "-"): value for key, value in more.items()}}
            await self.d.do("blockdev-add", driver="blkdebug", node_name=name, image=image, **{"inject-error": [rule]})
        else:
            await self.d.do("blockdev-add", driver=fmt, node_name=name, file=file, **more)

    # Commands

    def any_node(self):
        return self.random.choice(self.nodes + ["nope"]) if self.chance(8) else self.random.choice(self.nodes)

    def chain_node(self):
        return self.any_node() if self.chance(8) else self.random.choice(self.chain)

    def maybe(self, arguments, one, **more):
        for key, value in more.items():
            if self.chance(one):
                arguments[key.replace("_", "-")] = value
        return arguments

    def common(self):
        if not self.chance(25):
            self.count += 1
        arguments = {"job-id": f"j{self.count}"}
        self.maybe(arguments, 3, auto_finalize=False)
        self.maybe(arguments, 4, auto_dismiss=False)
        return self.maybe(arguments, 30, speed=self.pick(0, 1 << 40))

    def policy(self):
        return self.pick("report", "ignore", "stop", "stop", "enospc", "auto")

    def stream(self):
        arguments = {"device": self.chain_node(), **self.common()}
        self.maybe(arguments, 4, base_node=self.chain_node())
        self.maybe(arguments, 8, bottom=self.chain_node())
        self.maybe(arguments, 10, filter_node_name=self.pick("f", "n0", "9"))
        self.maybe(arguments, 6, backing_file=self.pick("x.qcow2", "n0.qcow2"), on_error=self.policy())
        self.maybe(arguments, 12, backing_mask_protocol=True)
        return "block-stream", arguments

    def commit(self):
        arguments = {"device": self.chain[-1] if not self.chance(4) else self.chain_node(), **self.common()}
        self.maybe(arguments, 3, top_node=self.chain_node(), base_node=self.chain_node())
        self.maybe(arguments, 10, top=self.chain_node() + ".qcow2", base=self.chain_node() + ".qcow2", filter_node_name=self.pick("f", "n0"))
        self.maybe(arguments, 6, backing_file=self.pick("x.qcow2", "n0.qcow2"), on_error=self.policy())
        return "block-commit", arguments

    def mirror(self):
        arguments = {
            "device": self.chain[-1] if not self.chance(4) else self.any_node(), "target": self.pick("t", "r", "t", "r", self.any_node()), **self.common(),
            "sync": self.pick("full", "full", "top", "none") if not self.chance(12) else self.pick("incremental", "bitmap"),
        }
        self.maybe(arguments, 3, copy_mode=self.pick("background", "write-blocking"))
        self.maybe(arguments, 8, replaces=self.any_node(), granularity=self.pick(0, 512, 4096, 65536, 1 << 20, 1000, 100, 1 << 27))
        self.maybe(arguments, 8, buf_size=self.pick(0, 1, 4096, 65536, -1, 1 << 20), filter_node_name=self.pick("f", "t"))
        self.maybe(arguments, 4, on_source_error=self.policy(), on_target_error=self.policy())
        return "blockdev-mirror", arguments

    def backup(self):
        arguments = {
            "device": self.chain[-1] if not self.chance(4) else self.any_node(), "target": self.pick("t", "r", "t", "r", "s", "nope"), **self.common(),
            "sync": self.pick("full", "full", "top", "none", "none", "incremental", "bitmap"),
        }
        self.maybe(arguments, 3, bitmap=self.pick("b", "b", "nope"))
        self.maybe(arguments, 4, bitmap_mode=self.pick("on-success", "never", "always"))
        if arguments["target"] == "t":
            self.maybe(arguments, 8, compress=True)
        self.maybe(arguments, 8, filter_node_name=self.pick("f", "t"), discard_source=True)
        self.maybe(arguments, 4, on_source_error=self.policy(), on_target_error=self.policy())
        if self.chance(8):
            arguments["x-perf"] = self.pick(
                {"use-copy-range": True}, {"max-workers": 1}, {"max-workers": 0}, {"max-chunk": 65536}, {"max-chunk": 1000}, {"min-cluster-size": 1 << 18},
                {"min-cluster-size": 1000}, {"max-chunk": -1}, {"max-workers": 1 << 40})
        return "blockdev-backup", arguments

    def start(self):
        return self.pick(self.stream, self.commit, self.commit, self.mirror, self.mirror, self.backup, self.backup)()

    def verb(self):
        job = self.random.choice(sorted(self.jobs)) if self.jobs and not self.chance(15) else "nope"
        verb = self.pick("pause", "resume", "cancel", "cancel", "complete", "complete", "complete", "finalize", "finalize", "dismiss", "dismiss", "set-speed", "change")
        if verb == "set-speed":
            return "block-job-set-speed", {"device": job, "speed": self.pick(0, 0, -1)}
        if verb == "change":
            return "block-job-change", {"id": job, "type": "mirror", "copy-mode": self.pick("background", "write-blocking")}
        if self.chance(2):
            return f"job-{verb}", {"id": job}
        arguments = {"id" if verb in ("finalize", "dismiss") else "device": job}
        if verb == "cancel":
            self.maybe(arguments, 2, force=self.chance(2))
        return f"block-job-{verb}", arguments

    def bitmap(self):
        action = self.pick("add", "remove", "clear", "enable", "disable", "merge")
        arguments = {"node": self.chain_node()}
        if action == "merge":
            return "block-dirty-bitmap-merge", {**arguments, "target": "b", "bitmaps": [self.pick("b", "c", {"node": self.chain_node(), "name": "b"})]}
        arguments["name"] = self.pick("b", "b", "c")
        return f"block-dirty-bitmap-{action}", arguments

    def edit(self):
        kind = self.pick("snapshot", "delete", "resize", "backing", "bitmap", "bitmap", "thread", "transaction")
        if kind == "bitmap":
            return self.bitmap()
        if kind == "delete":
            return "blockdev-del", {"node-name": self.any_node()}
        if kind == "resize":
            # Not what is exported: its size is promised.
            return "block_resize", {"node-name": self.pick(*self.nodes[:-3], "t", "r"), "size": SIZE}
        if kind == "backing" and self.faulty not in self.chain:
            return "change-backing-file", {"device": self.chain[-1], "image-node-name": self.chain_node(), "backing-file": self.pick("n0.qcow2", "other")}
        if kind in ("thread", "backing"):
            return "x-blockdev-set-iothread", {"node-name": self.any_node(), "iothread": self.pick("thread", None), "force": True}
        if kind == "transaction":
            actions = []
            for _ in range(self.random.randint(1, 3)):
                command, arguments = self.pick(self.bitmap, self.bitmap, self.backup)()
                actions.append({"type": command, "data": arguments})
            if self.chance(4):
                actions.append({"type": "abort", "data": {}})
            return "transaction", {"actions": actions}
        self.count += 1
        return "blockdev-snapshot-sync", {
            "node-name": self.chain_node(), "snapshot-file": f"o{self.count}.qcow2", "snapshot-node-name": f"o{self.count}", "format": "qcow2"}

    # Playing

    def take_events(self):
        for event in self.d.listener.clear():
            data = event.get("data", {})
            name = event["event"]
            job = data.get("id", data.get("device", ""))
            if name == "JOB_STATUS_CHANGE":
                self.events.append((job, data["status"]))
            elif name.startswith("BLOCK_JOB"):
                words = [name, data.get("type", ""), data.get("operation", ""), data.get("action", ""), data.get("error", "")]
                self.events.append((job, " ".join(word for word in words if word)))

    def told(self, job):
        """Without the pauses that drained sections make, and jobs that were never more than a mistake."""
        lines = []
        for line in (line for of, line in self.events if of == job):
            last = lines[-1] if lines else ""
            if (last, line) in (("paused", "running"), ("standby", "ready"), ("created", "null")):
                lines.pop()
            elif line.startswith("BLOCK_JOB_ERROR") and line == last:
                # How many requests fail depends on how many are under way.
                pass
            else:
                lines.append(line)
        return [] if lines == ["created", "aborting", "concluded", "null"] else lines

    async def settle(self):
        """Waits until every job rests."""
        for _ in range(4000):
            statuses = {job["id"]: job["status"] for job in await self.d.do("query-jobs")}
            self.take_events()
            if all(status in RESTS or (status == "running" and self.jobs.get(job) == "none") for job, status in statuses.items()):
                infos = {info["device"]: info for info in await self.d.do("query-block-jobs")}
                statuses = {job: infos[job]["status"] for job in statuses if job in infos}
                # What was told to end or to go on has done so.
                if not any(self.is_on_its_way(job, status, infos.get(job)) for job, status in statuses.items()):
                    return statuses
            await asyncio.sleep(0.003)
        raise AssertionError(f"never at rest: {statuses}")

    def is_on_its_way(self, job, status, info):
        if info is None:
            return False
        if status in ("pending", "concluded"):
            return info["auto-finalize" if status == "pending" else "auto-dismiss"]
        if status in ("paused", "standby"):
            # QEMU's jobs are also held for a moment while something else changes.
            return not info["paused"] or (job not in self.held and info["io-status"] == "ok")
        if status not in ("ready", "running"):
            return True
        if status in ("ready", "running"):
            return info["paused"] or self.ends.get(job, 0) > 0
        return False

    async def play(self, steps):
        self.ends = {}
        for step in range(steps):
            command, arguments = self.pick(self.start, self.start, self.verb, self.verb, self.verb, self.edit)()
            before = {job["id"]: job for job in await self.d.do("query-jobs")}
            try:
                await self.d.do(command, **arguments)
                outcome = "done"
            except ExecuteError as error:
                outcome = f"{error.error_class}: {error}"
            say(step, command, json.dumps(arguments, sort_keys=True), "->", self.plain(outcome))
            job = arguments.get("id", arguments.get("device", ""))
            self.ends = {}
            if outcome == "done":
                if "job-id" in arguments:
                    self.jobs[arguments["job-id"]] = arguments.get("sync", "") if command == "blockdev-backup" else ""
                if command == "transaction":
                    for action in arguments["actions"]:
                        if "job-id" in action["data"]:
                            self.jobs[action["data"]["job-id"]] = action["data"]["sync"]
                if command in ("job-complete", "job-cancel", "block-job-complete", "block-job-cancel") and before.get(job, {}).get("status") != "standby":
                    self.ends[job] = 1
                if re.match("(block-)?job-finalize", command):
                    self.ends[job] = 1
                if command.endswith("job-complete"):
                    self.completing.add(job)
                if command.endswith("job-resume") and job in self.completing:
                    self.ends[job] = 1
                if command.endswith("job-pause"):
                    self.held.add(job)
                elif re.match("(block-)?job-(resume|cancel)", command):
                    self.held.discard(job)
                if command == "block-job-cancel":
                    self.tells_read_only = False
            statuses = await self.settle()
            self.jobs = {job: kind for job, kind in self.jobs.items() if job in statuses}
            errors = {job["id"]: f"({job['error']})" for job in await self.d.do("query-jobs") if "error" in job}
            say("   ", " ".join(f"{job}={status}{errors.get(job, '')}" for job, status in sorted(statuses.items())))
            if outcome == "done" and not command.startswith("block-dirty"):
                await self.shape()
            if self.chance(3) and not any(status == "pending" for status in statuses.values()):
                await self.write()

    def plain(self, text):
        """Without what we say beyond QEMU's words."""
        text = re.sub(r"#block\d+", "#block", text).removeprefix("GenericError: Could not replace node: ").removeprefix("GenericError: ")
        if "read-only" in text:
            return "read-only"
        # Which of several that are busy is told, and which of several overlays, is the order in which they are looked at.
        text = re.sub(r"Node '[^']*' is busy: (node is used as backing hd of)?.*", r"Node is busy: \1", text)
        for more in (" are both required by ", ". It is held by ", " not supported for this drive "):
            text = text.split(more)[0]
        if text.startswith("Node ") and text.endswith(" is in use"):
            return "Node is busy: "
        return text.replace("consistent-read", "consistent read")

    async def shape(self):
        nodes = []
        for node in await self.d.do("query-named-block-nodes", flat=True):
            if "#" not in node["node-name"]:
                bitmaps = ",".join(sorted(
                    f"{bitmap['name']}:{bitmap['busy']}:{bitmap['recording']}" for bitmap in node.get("dirty-bitmaps", []) if bitmap.get("name")))
                nodes.append(f"{node['node-name']}{'!' if node['ro'] and self.tells_read_only and node['node-name'] in self.chain else ''}[{bitmaps}]")
            else:
                nodes.append("#" + node["drv"])
        say("   ", " ".join(sorted(nodes)))
        await self.d.shape()

    async def write(self):
        offset = self.random.randrange(0, SIZE - 200_000)
        command = f"{self.pick('write -P 7', 'write -P 8', 'write -z')} {offset} {self.random.randrange(1, 200_000)}"
        process = await asyncio.create_subprocess_exec(
            "qemu-io", "-f", "raw", "-c", command, address("x"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await process.communicate()
        if self.faulty is None:
            say("   ", command, "failed" if b"failed" in output else process.returncode)
        await self.settle()

    async def finish(self):
        for job in sorted(self.jobs):
            for verb in ("block-job-cancel", "job-cancel", "job-finalize", "job-dismiss"):
                try:
                    await self.d.do(verb, **({"device": job, "force": True} if verb == "block-job-cancel" else {"id": job}))
                    say("end", verb, job)
                except ExecuteError:
                    pass
                self.ends = {job: 1}
                await self.settle()
        self.take_events()
        await self.shape()
        for job in sorted({job for job, _ in self.events}):
            if lines := self.told(job):
                say("told", job, lines)
        if self.faulty is None:
            run("qemu-img", "convert", "-f", "raw", "-O", "raw", address("x"), "seen.raw")
            say("seen", contents("seen.raw", "raw"))


async def main(seed, daemon):
    async with Daemon(daemon) as d:
        duel = Duel(seed, d)
        await duel.prepare()
        await duel.play(20)
        await duel.finish()


asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
