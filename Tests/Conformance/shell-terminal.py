"""Runs a program at a terminal of its own: waits for a text, types, and so on. Exits with the program's status.

usage: shell-terminal.py STATE-FOLDER STEPS PROGRAM ARGUMENT...
STEPS is JSON: a list of pairs, what to wait for and what to type then.
"""
import json
import os
import pty
import re
import select
import sys
import time

state, steps, command = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
child, terminal = pty.fork()
if child == 0:
    os.environ.update(XDG_STATE_HOME=os.path.abspath(state), TERM="xterm", NO_COLOR="1")
    os.execv(command[0], command)
seen, place, deadline = "", 0, time.monotonic() + 30
status = None


def receive():
    """Takes what has come. False at the end."""
    global seen
    if not select.select([terminal], [], [], 0.2)[0]:
        return True
    try:
        data = os.read(terminal, 65536)
    except OSError:
        return False
    seen += data.decode(errors="replace")
    return bool(data)


for awaited, typed in steps:
    while awaited not in seen[place:]:
        if time.monotonic() > deadline or not receive():
            if awaited in seen[place:]:
                break
            print(f"waited for {awaited!r}; the terminal was sent:\n{seen!r}", file=sys.stderr)
            os.kill(child, 9)
            sys.exit(99)
    place = seen.index(awaited, place) + len(awaited)
    # Key by key, as a person types, so that a completion is there before what follows it.
    for part in re.findall(r"\x1b\[.|[^\t]*\t|[^\t\x1b]+", typed):
        os.write(terminal, part.encode())
        if part.endswith("\t"):
            receive()
while receive():
    if time.monotonic() > deadline:
        os.kill(child, 9)
        break
_, result = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(result))
