"""Makes the commands of random-conversations.py."""

import random

MIB = 1 << 20


class Conversation:
    """Makes commands that fit what there is, as QEMU sees it. Each has one thing wrong at most: of two, either may be told first."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.nodes, self.drivers, self.jobs, self.exports, self.bitmaps, self.groups, self.threads = [], {}, {}, [], [], [], []
        self.definitions = {}
        self.count = 0
        self.mistakes = 0
        self.serves = False
        self.doubtful = set()

    def hear(self, command, arguments, answer):
        """Takes note of what no query tells."""
        if "error" in answer and command == "blockdev-reopen":
            # In QEMU bitmaps stay read-only after a change to read-only that has failed.
            self.doubtful |= {options.get("node-name") for options in arguments.get("options", [])}
        if "return" in answer and command.startswith("nbd-server-st"):
            self.serves = command == "nbd-server-start"

    def look(self, daemon):
        """Learns what there is."""
        nodes = daemon.tell("query-named-block-nodes", {"flat": True})
        self.nodes = sorted(node["node-name"] for node in nodes if not node["node-name"].startswith(("#", "flt")))
        self.drivers = {node["node-name"]: node["drv"] for node in nodes}
        self.read_only = {node["node-name"] for node in nodes if node["ro"]}
        self.inactive = {node["node-name"] for node in nodes if not node["active"]}
        self.bitmaps = sorted((node["node-name"], bitmap["name"]) for node in nodes for bitmap in node.get("dirty-bitmaps", []) if "name" in bitmap and node["node-name"] not in self.doubtful)
        jobs = daemon.tell("query-jobs")
        self.jobs = {job["id"]: job["status"] for job in jobs}
        self.commits = {job["id"] for job in jobs if job["type"] == "commit"}
        self.exports = sorted(export["id"] for export in daemon.tell("query-block-exports"))
        graph = daemon.tell("x-debug-query-block-graph")
        names = {node["id"]: node["name"] for node in graph["nodes"]}
        self.roots = sorted(set(self.nodes) - {names[edge["child"]] for edge in graph["edges"]})
        self.overlays = sorted({names[edge["parent"]] for edge in graph["edges"] if edge["name"] == "backing"} & set(self.nodes))
        # What stands on an overlay and is neither an image nor a filter.
        above = {names[edge["parent"]] for edge in graph["edges"] if names[edge["child"]] in self.overlays}
        self.hiding = {name for name in above if self.drivers.get(name) in ("raw", "quorum")}

    def chance(self, probability):
        return self.random.random() < probability

    def slips(self, probability=0.08):
        """Whether to make a mistake here."""
        if self.mistakes or not self.chance(probability):
            return False
        self.mistakes += 1
        return True

    def one(self, good, bad=("nowhere",)):
        """One of the good values, or by mistake a bad one."""
        if good and not self.slips():
            return self.random.choice(list(good))
        self.mistakes += 1
        return self.random.choice(list(bad))

    def fresh(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def maybe(self, options, **choices):
        """Adds each option with a small probability."""
        for key, values in choices.items():
            if values and self.chance(0.15):
                options[key.replace("_", "-")] = self.random.choice(values)
        return options

    def node(self, *drivers):
        return self.one([name for name in self.nodes if self.drivers[name] in (drivers or self.FORMATS)])

    def root(self, among=None):
        """Mostly a node that nobody uses."""
        good = [name for name in self.roots if among is None or name in among]
        return self.one(good) if good and self.chance(0.85) else self.node()

    FORMATS = ("qcow2", "raw", "null-co", "throttle", "copy-on-read", "copy-before-write", "compress", "blkdebug", "quorum")
    IMAGES = ["base.qcow2", "mid.qcow2", "top.qcow2", "lone.qcow2", "marked.qcow2"]
    DISKS = ["disk.img", "disk.img", "odd.img", "base.qcow2"]

    def generic(self, options):
        self.maybe(options, read_only=[True, True, False], discard=["unmap", "ignore"], detect_zeroes=["on", "off"], cache=[{"direct": False}])
        if options.get("discard") == "unmap":
            self.maybe(options, detect_zeroes=["unmap"])
        return options

    def reference(self, depth, *drivers):
        """A child: a node, or the definition of one."""
        if self.nodes and self.chance(0.7):
            return self.one([name for name in self.nodes if self.drivers[name] in (drivers or self.FORMATS) and name not in self.inactive])
        return self.definition(depth + 1)

    def file(self, name):
        options = {"driver": "file", "filename": self.one([name], ["missing.img", "."]), "node-name": self.fresh("f")}
        return self.maybe(self.generic(options), locking=["off", "on", "auto"])

    KINDS = ["file", "qcow2", "qcow2", "qcow2", "raw", "raw", "null-co", "throttle", "copy-before-write", "compress", "blkdebug", "quorum"]

    def definition(self, depth=0, kind=None):
        kind = kind or self.random.choice(self.KINDS if depth < 2 else ["file", "null-co"])
        writable = [name for name in self.nodes if self.drivers[name] == "qcow2" and name not in self.read_only]
        if kind in ("compress", "copy-on-read") and not writable:
            kind = "qcow2"
        if kind == "throttle" and not self.groups:
            kind = "raw"
        if kind == "file":
            return self.file(self.random.choice(self.DISKS))
        if depth and kind == "copy-before-write":
            # In QEMU it cannot be read-only, which it may inherit.
            kind = "qcow2"
        options = {"driver": kind}
        if self.chance(0.8) or not depth:
            options["node-name"] = self.one([self.fresh("n")], ["9bad", "", "x" * 32] + self.nodes[:1])
        self.generic(options)
        if kind == "qcow2":
            options["file"] = self.file(self.random.choice(self.IMAGES))
            options["backing"] = None if self.chance(0.5) or not self.nodes else self.node()
            self.maybe(options, lazy_refcounts=[True, False], overlap_check=["none", "all"], l2_cache_size=[65536], l2_cache_entry_size=[512, 65536])
            if not depth and self.slips():
                options.update(self.random.choice([{"l2-cache-size": -1}, {"l2-cache-entry-size": 1000}, {"file": "nowhere"}, {"cache-size": 1, "l2-cache-size": 65536}]))
        elif kind == "null-co":
            options.update({"size": self.one([MIB, MIB, 2 * MIB], [-1]), "read-zeroes": True})
        elif kind == "raw":
            options["file"] = self.reference(depth)
            options.update(self.random.choice([{}, {}, {"offset": 4096}, {"size": 65536}, {"offset": 65536, "size": 131072}]))
            if self.slips():
                options.update(self.random.choice([{"size": 100}, {"offset": 64 * MIB}]))
        elif kind == "throttle":
            options["throttle-group"] = self.one(self.groups)
            options["file"] = self.reference(depth)
        elif kind == "copy-before-write":
            options.pop("read-only", None)
            options["file"], options["target"] = self.reference(depth), {"driver": "null-co", "size": 2 * MIB, "read-zeroes": True}
            self.maybe(options, on_cbw_error=["break-guest-write", "break-snapshot"], cbw_timeout=[0, 10], min_cluster_size=[65536])
            if self.slips():
                options["min-cluster-size"] = 100
        elif kind == "quorum":
            options["children"] = [{"driver": "null-co", "size": MIB, "read-zeroes": True} for _ in range(self.random.choice([2, 3]))]
            options["vote-threshold"] = self.one([1, 2], [0, 4])
            self.maybe(options, read_pattern=["fifo", "quorum"])
        elif kind == "blkdebug":
            options["image"] = self.reference(depth)
            self.maybe(options, align=[512, 4096], opt_write_zero=[65536], max_discard=[65536])
            if self.slips():
                options["align"] = 1000
        else:
            options.pop("read-only", None)
            options["file"] = self.one(writable)
        if options.get("node-name") not in [None] + self.nodes:
            self.definitions[options["node-name"]] = options
        return options

    def bitmap(self):
        node, name = self.random.choice(self.bitmaps) if self.bitmaps and not self.slips() else (self.node(), "nothing")
        return {"node": node, "name": name}

    # Each of the following makes one command.

    def add(self):
        return "blockdev-add", self.definition()

    def chain(self):
        """An image over what exists, which most conversations need."""
        # Over an inactive node the image's lock may be told first.
        below = [name for name in self.roots if name not in self.inactive]
        options = {"driver": "qcow2", "node-name": self.fresh("n"), "backing": self.random.choice(below) if below and self.chance(0.7) else None,
                   "file": {"driver": "file", "filename": self.random.choice(self.IMAGES), "node-name": self.fresh("f")}}
        self.definitions[options["node-name"]] = options
        return "blockdev-add", options

    def delete(self):
        return "blockdev-del", {"node-name": self.root()}

    def reopen(self):
        """Other options for a node that was defined by itself."""
        # QEMU reopens fewer drivers.
        known = [name for name in self.nodes if name in self.definitions and self.drivers[name] in ("qcow2", "raw", "file", "throttle", "null-co")]
        if not known:
            return self.chain()
        name = self.random.choice(known)
        options = {key: value for key, value in self.definitions[name].items() if key not in ("read-only", "discard", "detect-zeroes", "cache", "l2-cache-size")}
        for key in ("file", "target", "image"):
            if isinstance(options.get(key), dict):
                if "node-name" not in options[key]:
                    return self.chain()
                options[key] = options[key]["node-name"]
        self.generic(options)
        if name in self.read_only:
            options["read-only"] = True
        if options["driver"] == "qcow2":
            # Below a node that is read-only QEMU's copy-before-write lacks write access.
            formats = ("qcow2",) if "copy-before-write" in self.drivers.values() else self.FORMATS
            others = [other for other in self.nodes if other != name and self.drivers[other] in formats]
            options["backing"] = self.one(others) if others and self.chance(0.6) else None
        elif options["driver"] in ("raw", "throttle") and self.chance(0.4):
            options["file"] = self.node()
        if self.slips():
            options.update(self.random.choice([{"driver": "null-co"}, {"surplus": 1}, {"node-name": "nowhere"}]))
        return "blockdev-reopen", {"options": [options]}

    def resize(self):
        # A file that is open twice may be refused for its lock before the node is for being read-only.
        return "block_resize", {"node-name": self.one([name for name in self.roots if name not in self.read_only]), "size": self.one([MIB], [-1])}

    def activate(self):
        # QEMU cannot make it inactive.
        if "copy-before-write" in self.drivers.values():
            return self.question()
        return "blockdev-set-active", {"active": self.chance(0.6), "node-name": self.node()}

    def threshold(self):
        return "block-set-write-threshold", {"node-name": self.node(), "write-threshold": self.random.choice([0, 1 << 40])}

    def change(self):
        arguments = {"parent": self.node("quorum")}
        if self.chance(0.5):
            arguments["node"] = self.root()
        else:
            arguments["child"] = self.random.choice(["children.0", "children.1", "children.2", "backing"])
        return "x-blockdev-change", arguments

    def snapshot_arguments(self):
        node, images = self.node("qcow2"), [name for name in self.nodes if self.drivers[name] == "qcow2" and name not in self.overlays]
        # QEMU's filter uses what is below it although nobody reads there.
        filtered = "copy-before-write" in self.drivers.values()
        return {"node": node, "overlay": self.one([name for name in images if name in self.roots]) if filtered else self.root(images)}

    def snapshot(self):
        return "blockdev-snapshot", self.snapshot_arguments()

    def snapshot_sync_arguments(self):
        roots = [name for name in self.roots if self.drivers[name] == "qcow2"]
        arguments = {"node-name": self.one(roots) if roots else self.node("qcow2"), "snapshot-file": self.fresh("new") + ".qcow2", "snapshot-node-name": self.one([self.fresh("s")], ["9bad"] + self.nodes[:1])}
        if self.slips():
            arguments.update(self.random.choice([{"format": "raw"}, {"format": "nope"}, {"mode": "existing"}]))
        return arguments

    def snapshot_sync(self):
        return "blockdev-snapshot-sync", self.snapshot_sync_arguments()

    def snapshotted(self):
        # Of an inactive image QEMU says that its format has no snapshots.
        return self.one([name for name in self.nodes if self.drivers[name] == "qcow2" and name not in self.inactive])

    def internal(self):
        return "blockdev-snapshot-internal-sync", {"device": self.snapshotted(), "name": self.one(["one", "two", "three"], [""])}

    def delete_internal(self):
        return "blockdev-snapshot-delete-internal-sync", self.maybe({"device": self.snapshotted(), "name": self.one(["one", "two", "three"], [""])}, id=["1", "2"])

    def bitmap_add_arguments(self):
        arguments = {"node": self.node(), "name": self.one([self.fresh("b")], ["", "x" * 1030] + [name for node, name in self.bitmaps[:1]])}
        self.maybe(arguments, granularity=[512, 65536, 1 << 20], disabled=[True, False])
        if self.drivers.get(arguments["node"]) == "qcow2":
            self.maybe(arguments, persistent=[True, True, False])
        if self.slips():
            arguments["granularity"] = 100
        return arguments

    def bitmap_add(self):
        return "block-dirty-bitmap-add", self.bitmap_add_arguments()

    def bitmap_verb(self):
        return f"block-dirty-bitmap-{self.random.choice(['remove', 'clear', 'enable', 'disable'])}", self.bitmap()

    def merge_arguments(self):
        target = self.bitmap()
        sources = [self.bitmap() if self.chance(0.5) else self.bitmap()["name"] for _ in range(self.random.choice([1, 2]))]
        return {"node": target["node"], "target": target["name"], "bitmaps": sources}

    def bitmap_merge(self):
        return "block-dirty-bitmap-merge", self.merge_arguments()

    def transaction(self):
        makers = [
            lambda: ("block-dirty-bitmap-add", self.bitmap_add_arguments()), lambda: ("blockdev-snapshot-sync", self.snapshot_sync_arguments()),
            lambda: ("blockdev-backup", self.backup_arguments()), lambda: ("blockdev-snapshot-internal-sync", {"device": self.snapshotted(), "name": self.fresh("tx")})]
        if self.bitmaps:
            # QEMU stops at an assertion when such an action has not found its bitmap.
            makers += [lambda: (f"block-dirty-bitmap-{self.random.choice(['remove', 'clear', 'enable', 'disable'])}", dict(zip(("node", "name"), self.random.choice(self.bitmaps))))]
        actions = [self.random.choice(makers)() for _ in range(self.random.choice([1, 2, 2, 3]))]
        # A disk that has got its overlay is read-only, with its bitmaps.
        snapshots = [action for action in actions if action[0] == "blockdev-snapshot-sync"]
        # QEMU finds a bitmap that the same transaction has removed, and leaves it changed when all is taken back.
        removed = [data for kind, data in actions if kind == "block-dirty-bitmap-remove"]
        actions = [action for action in actions if action[1] not in removed or action[0] == "block-dirty-bitmap-remove"]
        actions = [action for action in actions if action not in snapshots] + snapshots[:1]
        if self.slips(0.2):
            actions.append(("abort", {}))
        arguments = {"actions": [{"type": kind, "data": data} for kind, data in actions]}
        if all(kind == "blockdev-backup" for kind, _ in actions):
            self.maybe(arguments, properties=[{"completion-mode": "grouped"}])
        return "transaction", arguments

    def group(self):
        name = self.one([self.fresh("g")], ["9bad"] + self.groups[:1])
        self.groups.append(name)
        return "object-add", self.maybe({"qom-type": "throttle-group", "id": name}, limits=[{"iops-total": 100000}, {"bps-read": 1 << 40}])

    def delete_object(self):
        return "object-del", {"id": self.one(self.groups + self.threads)}

    def thread(self):
        self.threads.append(self.fresh("t"))
        return "object-add", {"qom-type": "iothread", "id": self.threads[-1]}

    def set_thread(self):
        return "x-blockdev-set-iothread", {"node-name": self.node(), "iothread": self.one(self.threads, [None, "nowhere"])}

    def server(self):
        return "nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd.sock"}}}

    def server_stop(self):
        return "nbd-server-stop", {}

    def export(self):
        if not self.serves:
            return self.server()
        node = self.root([name for name in self.nodes if self.drivers[name] in self.FORMATS])
        options = {"type": "nbd", "id": self.one([self.fresh("e")], ["9bad"] + self.exports[:1]), "node-name": node, "name": self.fresh("x")}
        if node not in self.read_only:
            self.maybe(options, writable=[True])
        mine = [name for owner, name in self.bitmaps if owner == node]
        return "block-export-add", self.maybe(options, bitmaps=[mine[:1], mine], allocation_depth=[True], writethrough=[True], iothread=self.threads)

    def export_old(self):
        if not self.serves:
            return self.server()
        return "nbd-server-add", self.maybe({"device": self.root(), "name": self.fresh("x")}, writable=[True, False])

    def export_delete(self):
        if self.chance(0.2):
            return "nbd-server-remove", {"name": self.one(self.exports)}
        return "block-export-del", self.maybe({"id": self.one(self.exports)}, mode=["hard", "safe"])

    def job(self, arguments):
        arguments["job-id"] = self.one([self.fresh("j")], ["9bad"] + list(self.jobs)[:1])
        self.maybe(arguments, auto_finalize=[False], auto_dismiss=[False], filter_node_name=[self.fresh("flt")])
        if self.slips():
            arguments["speed"] = -1
        return arguments

    def target(self):
        return self.one([name for name in self.roots if self.drivers[name] in ("qcow2", "null-co") and name not in self.read_only and name not in self.overlays])

    def stream(self):
        arguments = self.job({"device": self.one(self.overlays)})
        # QEMU puts a filter in although there is nothing to copy; it is seen while the job is pending.
        arguments.pop("auto-finalize", None)
        if self.chance(0.4):
            arguments[self.random.choice(["base-node", "bottom"])] = self.node("qcow2")
        return "block-stream", arguments

    def commit(self):
        # What takes the place of a read-only node becomes read-only in QEMU.
        good = [name for name in self.overlays if name not in self.read_only]
        arguments = self.job({"device": self.root(good)})
        if arguments["device"] in self.read_only:
            arguments["device"] = (good + ["nowhere"])[0]
            self.mistakes += not good
        if self.chance(0.4):
            arguments[self.random.choice(["base-node", "top-node"])] = self.node("qcow2")
        return "block-commit", arguments

    def mirror(self):
        # QEMU mirrors of a chain below some nodes the topmost image only; and what takes the place of a read-only node becomes read-only.
        device = self.root()
        good = [name for name in self.roots if name not in self.hiding and name not in self.read_only]
        arguments = self.job({"device": self.one(good) if device in self.hiding | self.read_only else device, "target": self.target(), "sync": self.one(["full", "full", "top", "none"], ["incremental"])})
        self.maybe(arguments, granularity=[512, 65536], copy_mode=["background", "write-blocking"])
        if self.slips():
            arguments.update(self.random.choice([{"granularity": 100}, {"buf-size": -1}, {"replaces": "nowhere"}]))
        return "blockdev-mirror", arguments

    def backup_arguments(self):
        arguments = self.job({"device": self.root(), "target": self.target(), "sync": self.random.choice(["full", "top"])})
        if arguments["device"] not in self.overlays:
            arguments["sync"] = "full"
        mine = [name for owner, name in self.bitmaps if owner == arguments["device"]]
        if mine and self.chance(0.5):
            arguments.update({"sync": "bitmap", "bitmap": self.random.choice(mine), "bitmap-mode": self.random.choice(["on-success", "always", "never"])})
        elif self.slips():
            arguments["sync"] = "bitmap"
        return arguments

    def backup(self):
        return "blockdev-backup", self.backup_arguments()

    def create(self):
        size = self.random.choice([MIB, 2 * MIB])
        return "blockdev-create", {"job-id": self.one([self.fresh("c")], ["9bad"]), "options": self.one([
            {"driver": "file", "filename": self.fresh("made") + ".img", "size": size}, {"driver": "qcow2", "file": self.one([name for name in self.roots if self.drivers[name] == "file"]), "size": size}], [{"driver": "qcow2", "file": "nowhere", "size": size}])}

    def job_verb(self):
        fitting = {"pending": ["finalize", "finalize", "cancel"], "concluded": ["dismiss"], "ready": ["complete", "cancel", "pause"], "standby": ["resume", "cancel"]}
        name = self.one(sorted(self.jobs))
        every = ["cancel", "complete", "dismiss", "finalize", "pause", "resume"]
        verb = self.random.choice(every if self.chance(0.2) else fitting.get(self.jobs.get(name), every))
        if verb == "cancel" and name in self.commits:
            # QEMU leaves the base writable.
            verb = "complete"
        if self.chance(0.5):
            return f"job-{verb}", {"id": name}
        key = "id" if verb in ("dismiss", "finalize") else "device"
        return f"block-job-{verb}", {key: name, **({"force": True} if verb == "cancel" and self.chance(0.5) else {})}

    def job_change(self):
        if self.chance(0.5):
            return "block-job-set-speed", {"device": self.one(sorted(self.jobs)), "speed": self.one([0], [-1])}
        return "block-job-change", {"id": self.one(sorted(self.jobs)), "type": "mirror", "copy-mode": self.random.choice(["background", "write-blocking"])}

    def question(self):
        return self.random.choice([("query-named-block-nodes", {"flat": 3}), ("query-block", {}), ("no-such-command", {}), ("qom-list", {"path": "/objects"})])

    def spoiled(self):
        """A command with something wrong in its arguments."""
        self.mistakes = 1
        command, arguments = self.next()
        if command in ("blockdev-reopen", "block-dirty-bitmap-merge", "transaction", "blockdev-create"):
            return command, {}
        key = self.random.choice(sorted(arguments) or ["x"])
        if self.chance(0.4):
            arguments.pop(key, None)
        elif self.chance(0.5):
            arguments[key] = self.random.choice([7, "text", [], {}, True])
        else:
            arguments["surplus"] = 1
        return command, arguments

    MAKERS = [
        ("add", 12), ("chain", 12), ("delete", 6), ("reopen", 6), ("resize", 2), ("activate", 1), ("threshold", 1), ("change", 2), ("snapshot", 4), ("snapshot_sync", 6),
        ("internal", 2), ("delete_internal", 2), ("bitmap_add", 6), ("bitmap_verb", 5), ("bitmap_merge", 2), ("transaction", 6), ("group", 2),
        ("delete_object", 1), ("thread", 1), ("set_thread", 1), ("server", 3), ("server_stop", 0.5), ("export", 6), ("export_old", 1), ("export_delete", 3), ("stream", 5), ("commit", 5),
        ("mirror", 6), ("backup", 5), ("create", 2), ("job_verb", 9), ("job_change", 2), ("question", 0.5), ("spoiled", 2)]

    def next(self):
        names, weights = zip(*self.MAKERS)
        return getattr(self, self.random.choices(names, weights)[0])()

    def command(self, number):
        """The first ones lay the ground."""
        self.mistakes = 0
        return self.next() if number > 2 else self.server() if number == 0 and self.chance(0.6) else self.chain()
