"""Random conversations with two storage daemons at once. Each command goes to both; what they answer has to be the same, and so has what the nodes, jobs,
bitmaps and exports look like afterwards. A conversation in which they differ is shortened, by leaving out one command after another, before it is shown.

Usage: random-conversations.py FOLDER FIRST-SEED COUNT PROGRAM [ARGUMENT...]    (the program is the daemon that is held against qemu-storage-daemon)
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

from random_commands import MIB, Conversation

QEMU = ["qemu-storage-daemon"]
LENGTH = 30
LIMIT = 15  # seconds for one answer


class Lost(Exception):
    """A daemon does not answer any more."""


class Daemon:
    def __init__(self, words, folder):
        self.folder, self.buffer, self.number = folder, b"", 0
        # Jobs that were told to end.
        self.ending = set()
        for attempt in range(4):
            path = os.path.join(folder, "qmp.sock")
            if os.path.exists(path):
                os.unlink(path)
            arguments = ["--chardev", "socket,id=c,path=qmp.sock,server=on,wait=off", "--monitor", "chardev=c"]
            self.log = open(os.path.join(os.path.dirname(folder), os.path.basename(folder) + ".log"), "w+b")
            self.process = subprocess.Popen(words + arguments, cwd=folder, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
            try:
                self.connect(path)
                self.read()
                self.ask("qmp_capabilities")
                return
            except Lost:
                # QEMU 10.0 loses a race at its start once in three thousand times.
                self.kill()
        raise Lost(f"{words[0]} does not start")

    def connect(self, path):
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(LIMIT)
            try:
                return self.socket.connect(path)
            except OSError:
                self.socket.close()
                time.sleep(0.005)
        raise Lost("no monitor")

    def read(self):
        while b"\n" not in self.buffer:
            try:
                more = self.socket.recv(1 << 16)
            except OSError as problem:
                raise Lost(f"no answer: {problem}")
            if not more:
                raise Lost("the monitor has closed the connection")
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def send(self, command, arguments):
        self.number += 1
        try:
            self.socket.sendall(json.dumps({"execute": command, "arguments": arguments, "id": self.number}).encode() + b"\n")
        except OSError as problem:
            raise Lost(f"cannot send: {problem}")

    def answer(self):
        while True:
            message = self.read()
            # QEMU answers some commands twice: a success and then what has gone wrong.
            if message.pop("id", None) == self.number:
                return message

    def ask(self, command, arguments={}):
        self.send(command, arguments)
        return self.answer()

    def tell(self, command, arguments={}):
        """The answer to a question that cannot be refused."""
        answer = self.ask(command, arguments)
        if "return" not in answer:
            raise Lost(f"{command}: {answer}")
        return answer["return"]

    def settle(self):
        """Waits until no job and no export is on its way to another state."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            block_jobs = {job["device"]: job for job in self.tell("query-block-jobs")}
            jobs = self.tell("query-jobs")
            exports = self.tell("query-block-exports")
            if all(self.rests(job, block_jobs.get(job["id"], {})) for job in jobs) and not any(export["shutting-down"] for export in exports):
                return
            time.sleep(0.002)
        raise Lost(f"jobs do not settle: {jobs}")

    def rests(self, job, block_job):
        if job["status"] == "pending":
            return not block_job.get("auto-finalize", False)
        if job["status"] == "concluded":
            return not block_job.get("auto-dismiss", False)
        return job["status"] in ("paused", "standby") or (job["status"] == "ready" and job["id"] not in self.ending)

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
        if getattr(self, "socket", None):
            self.socket.close()

    def end(self):
        try:
            self.ask("quit")
            status = self.process.wait(LIMIT)
        except (Lost, subprocess.TimeoutExpired):
            status = "none"
        self.kill()
        return status


# What two daemons may say differently: names that they make up, the order of lists, advice behind a refusal.

def plain(value):
    if isinstance(value, str):
        if value.startswith("json:"):
            return plain(json.loads(value[5:]))
        # Who may not be written to is told by name, and who wants to resize.
        value = re.sub(" +", " ", value).replace("Could not create node: ", "").replace("consistent-read", "consistent read")
        value = re.sub(r"are both required by .*", "are both required by somebody", value.replace("Could not open backing file: ", ""))
        value = re.sub(r"Failed to get .* lock.*", "Failed to get a lock", value.replace("Image is read-only", "Block node is read-only"))
        value = value.replace("snapshot list: Operation not permitted", "snapshot list: Block node is read-only")
        return re.sub(r"Block node '[^']*' is read-only", "Block node is read-only", re.sub(r"#block[0-9]+", "#block", value))
    if isinstance(value, list):
        # Nodes that jobs put in for themselves show what they are in other ways.
        value = [element for element in value if not (isinstance(element, dict) and element.get("drv") in ("mirror_top", "commit_top"))]
        return sorted((plain(element) for element in value), key=lambda element: json.dumps(element, sort_keys=True))
    if isinstance(value, dict):
        # Jobs of QEMU also write zeroes where the target has them, and mark them as dirty. What an image takes on the disk, and when its bitmaps are stored, differs on purpose.
        # Filters over an image do not tell of its snapshots.
        without = ("vm-clock-sec", "vm-clock-nsec", "date-sec", "date-nsec", "actual-size", "count", "bitmaps", "snapshots", "dirty-flag", "backing-filename-format")
        if "io-status" in value:
            # Drained sections pause QEMU's jobs.
            without += ("paused", "busy")
        if value.get("format") in ("file", "host_device") or value.get("drv") in ("file",):
            without += ("virtual-size",)
        if "dirty-bitmaps" in value:
            # What filters keep for themselves they show or not.
            value = value | {"dirty-bitmaps": [bitmap for bitmap in value["dirty-bitmaps"] if "name" in bitmap]}
        return {key: plain(element) for key, element in value.items() if key not in without and element != []}
    return value


def edges(answer):
    """The graph of nodes as lines."""
    names = {node["id"]: "*" if node["type"] == "block-backend" else plain(node["name"]) for node in answer["nodes"] if node["type"] != "block-job"}
    return sorted(
        # Filters that write what was there already ask for it at other times, and an inactive node of ours has no permissions at all.
        f"{names[edge['parent']]} {edge['name']} {names[edge['child']]} {sorted(set(edge['perm']) - {'write-unchanged', 'consistent-read'})} {sorted(edge['shared-perm'])}"
        for edge in answer["edges"] if edge["parent"] in names and names[edge["parent"]] != "*")


def parts(first, second, path=""):
    """Where two values are not the same."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [line for key in sorted(first.keys() | second.keys()) for line in parts(first.get(key), second.get(key), f"{path}.{key}")]
    if isinstance(first, list) and isinstance(second, list):
        left, right = [one for one in first if one not in second], [one for one in second if one not in first]
        if len(left) == len(right):
            return [line for index, pair in enumerate(zip(left, right)) for line in parts(*pair, f"{path}[{index}]")]
        return [f"{path}: only QEMU has {left}, only ours {right}"]
    return [] if first == second else [f"{path}: {json.dumps(first)}, ours {json.dumps(second)}"]


def difference(command, theirs, ours, is_mistaken=False):
    if "error" in theirs and "error" in ours:
        if is_mistaken and theirs["error"]["class"] == ours["error"]["class"]:
            # Something else may be wrong as well, and either may be told first.
            return None
        first, second = theirs["error"], ours["error"]
        same = first["class"] == second["class"] and plain(second["desc"]).startswith(plain(first["desc"]))
        return None if same else f"{first['class']}: {first['desc']}\n  ours: {second['class']}: {second['desc']}"
    if "error" in ours and re.match("Inactive '.*' can't be a backing child", ours["error"]["desc"]):
        raise Lost("QEMU forgets an overlay that it says it has put over an inactive node")
    if "error" in theirs or "error" in ours:
        return f"{json.dumps(theirs)}\n  ours: {json.dumps(ours)}"
    first, second = theirs["return"], ours["return"]
    if command == "x-debug-query-block-graph":
        first, second = edges(first), edges(second)
    first, second = plain(first), plain(second)
    return "\n  ".join(parts(first, second)) or None


QUESTIONS = [("query-named-block-nodes", {"flat": True}), ("query-jobs", {}), ("query-block-jobs", {}), ("query-block-exports", {}), ("x-debug-query-block-graph", {})]


class Duel:
    """One conversation with both."""

    def __init__(self, folder, program):
        self.daemons = []
        self.folder = folder
        for name, words in (("theirs", QEMU), ("ours", program)):
            place = os.path.join(folder, name)
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(os.path.join(folder, "images"), place)
            self.daemons.append(Daemon(words, place))

    def run(self, command, arguments, is_mistaken):
        """The answer of QEMU and what is different in ours, or None."""
        for daemon in self.daemons:
            daemon.send(command, arguments)
        theirs, ours = (self.receive(daemon) for daemon in self.daemons)
        for daemon, answer in zip(self.daemons, (theirs, ours)):
            if "return" in answer and command.endswith(("-complete", "-cancel")):
                daemon.ending.add(arguments.get("id", arguments.get("device")))
        found = difference(command, theirs, ours, is_mistaken)
        for daemon in self.daemons:
            self.settle(daemon)
        if found is None and not command.startswith("query"):
            # What jobs and these filters ask of the nodes below differs.
            nodes = self.daemons[0].tell("query-named-block-nodes", {"flat": True})
            differs = self.daemons[0].tell("query-jobs") or any(node["drv"] in ("copy-on-read", "copy-before-write") for node in nodes)
            for question, details in QUESTIONS[:-1] if differs else QUESTIONS:
                answers = [daemon.ask(question, details) for daemon in self.daemons]
                found = found or difference(question, *answers)
                if found:
                    found = f"{question}: {found}"
                    break
        return theirs, found

    def receive(self, daemon):
        try:
            return daemon.answer()
        except Lost as problem:
            self.lose(daemon, problem)

    def settle(self, daemon):
        try:
            daemon.settle()
        except Lost as problem:
            self.lose(daemon, problem)

    def lose(self, daemon, problem):
        if daemon is self.daemons[0]:
            raise Lost(f"QEMU: {problem}")
        raise AssertionError(f"ours: {problem}\n{daemon.said()}")

    def end(self):
        statuses = [daemon.end() for daemon in self.daemons]
        if statuses[0] == 0 and statuses[1] != 0:
            return f"ours ends with {statuses[1]}"
        if statuses[0] != 0:
            raise Lost("QEMU does not end well")
        return self.files()

    def files(self):
        places = [os.path.join(self.folder, name) for name in ("theirs", "ours")]
        # An overlay that a transaction has made and taken back stays in QEMU.
        names = [sorted(name for name in os.listdir(place) if not name.endswith(".sock") and not name.startswith("new")) for place in places]
        if names[0] != names[1]:
            return f"files: {names[0]}\n  ours: {names[1]}"
        for name in names[0]:
            shown = []
            for place in places:
                info = subprocess.run(["qemu-img", "info", "--output=json", name], cwd=place, capture_output=True, text=True)
                shown.append(described(json.loads(info.stdout)) if info.returncode == 0 else info.stderr)
            if shown[0] != shown[1]:
                return f"{name}: {shown[0]}\n  ours: {shown[1]}"
            if isinstance(shown[0], dict):
                fmt = shown[0]["format"]
                same = subprocess.run(["qemu-img", "compare", "-f", fmt, "-F", fmt, *(os.path.join(place, name) for place in places)], capture_output=True, text=True)
                if same.returncode == 1:
                    return f"{name}: {same.stdout}"
                if fmt == "qcow2":
                    checks = [subprocess.run(["qemu-img", "check", name], cwd=place, capture_output=True, text=True) for place in places]
                    if checks[1].returncode != 0 and checks[0].returncode == 0:
                        return f"{name}: {checks[1].stdout}{checks[1].stderr}"
        return None

    def kill(self):
        for daemon in self.daemons:
            daemon.kill()


def described(info):
    for key in ("actual-size", "children", "dirty-flag"):
        info.pop(key, None)
    return plain(info)


def attempt(folder, program, commands):
    """Plays recorded commands; the first difference, or None."""
    try:
        duel = Duel(folder, program)
    except Lost:
        return None
    try:
        for command, arguments, is_mistaken in commands:
            _, found = duel.run(command, arguments, is_mistaken)
            if found:
                return f"{command} {json.dumps(arguments)}\n  QEMU: {found}"
        return duel.end()
    except Lost:
        return None
    except AssertionError as problem:
        return str(problem)
    finally:
        duel.kill()


def shortened(folder, program, commands):
    """The shortest conversation that both end in the same way."""
    def sides(found):
        return re.sub(r"[a-z]+[0-9]+", "", found or "")

    whole = sides(attempt(folder, program, commands))
    for index in reversed(range(len(commands))):
        shorter = commands[:index] + commands[index + 1:]
        if sides(attempt(folder, program, shorter)) == whole:
            commands = shorter
    return commands


def make_images(folder):
    os.makedirs(folder)

    def run(*words):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)

    for name in ("base", "mid", "top", "lone", "marked"):
        backing = {"mid": "base", "top": "mid"}.get(name)
        run("qemu-img", "create", "-q", "-f", "qcow2", *(["-b", backing + ".qcow2", "-F", "qcow2"] if backing else []), name + ".qcow2", "1M")
        place = {"base": 0, "mid": 128, "top": 256, "lone": 384, "marked": 512}[name]
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {len(name)} {place}k 150k", name + ".qcow2")
    run("qemu-img", "bitmap", "--add", "marked.qcow2", "kept")
    run("qemu-img", "snapshot", "-c", "one", "marked.qcow2")
    for name, size in (("disk.img", MIB), ("odd.img", 100000)):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(bytes(range(250)) * (size // 250))
            file.truncate(size)


def converse(folder, program, seed, statistics):
    """One conversation; what is different in it, as text, or None."""
    conversation = Conversation(seed)
    played, found = [], None
    duel = Duel(folder, program)
    try:
        for number in range(LENGTH):
            conversation.look(duel.daemons[0])
            command, arguments = conversation.command(number)
            played.append((command, arguments, conversation.mistakes > 0))
            theirs, found = duel.run(*played[-1])
            conversation.hear(command, arguments, theirs)
            done, refused = statistics.get(command, (0, 0))
            statistics[command] = (done + ("return" in theirs), refused + ("error" in theirs))
            if found:
                break
        found = found or duel.end()
    except AssertionError as problem:
        found = str(problem)
    except Lost as problem:
        # QEMU stops at an assertion or waits for ever: there is nothing to compare with.
        statistics["lost"] = statistics.get("lost", 0) + 1
        print(f"seed {seed}: {problem}: {played[-1:]}", file=sys.stderr)
        return None
    finally:
        duel.kill()
    if not found:
        return None
    if attempt(folder, program, played):
        played = shortened(folder, program, played)
        found = attempt(folder, program, played) or found
    script = "\n".join(f"{command} {json.dumps(arguments)}" for command, arguments, _ in played)
    return f"seed {seed}:\n{script}\n=> {found}\n"


def main():
    folder, first, count, program = os.path.abspath(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    program[0] = os.path.abspath(program[0])
    make_images(os.path.join(folder, "images"))
    statistics, failures = {}, 0
    for seed in range(first, first + count):
        found = converse(folder, program, seed, statistics)
        if found:
            failures += 1
            print(found, flush=True)
    for command, numbers in sorted(statistics.items(), key=str):
        print(command, numbers, file=sys.stderr)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
