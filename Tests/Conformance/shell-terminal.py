"""Runs a program at a terminal of its own: waits for a text, types, and so on. Exits with the program's status.

usage: shell-terminal.py STATE-FOLDER STEPS PROGRAM ARGUMENT...
STEPS is JSON: a list of pairs, what to wait for and what to type then: a text, {"signal": NUMBER} for a signal to send to the program, or
{"columns": COUNT} for another width of the terminal. At the end the terminal must be as it was in the beginning.
"""
import json
import os
import fcntl
import pty
import re
import select
import struct
import sys
import termios
import time

state, steps, command = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
ready, starter = os.pipe()
child, terminal = pty.fork()
if child == 0:
    # Not before it is known what the terminal was like.
    os.read(ready, 1)
    os.environ.update(XDG_STATE_HOME=os.path.abspath(state), TERM="xterm", NO_COLOR="1")
    os.execv(command[0], command)
before = termios.tcgetattr(terminal)
os.write(starter, b"x")
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
    if isinstance(typed, dict):
        if "columns" in typed:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, typed["columns"], 0, 0))
        if "signal" in typed:
            os.kill(child, typed["signal"])
        continue
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
if termios.tcgetattr(terminal) != before:
    print("the terminal is not as it was", file=sys.stderr)
    sys.exit(98)
sys.exit(os.waitstatus_to_exitcode(result))
