"""Drives a running daemon, whoever made it, with the QEMU project's own QMP client; any surprise ends it with a traceback.

Prints the events that came, as JSON, without what differs from run to run.

Usage: qmp-peer.py QMP-SOCKET NBD-SOCKET IMAGE
"""

import asyncio
import json
import subprocess
import sys

from qemu.qmp import ExecuteError, QMPClient


async def limited_events(client, nbd_socket, events, seen):
    """One of three children fails every read: of all the complaints the first comes at once and the last when a second is over."""
    # Data, since nobody has to read zeroes that are known to be some.
    votes = nbd_socket + ".votes"
    with open(votes, "wb") as file:
        file.write(b"vote" * 262144)
    for number in range(3):
        child = {"driver": "file", "filename": votes, "read-only": True}
        if number == 1:
            child = {"driver": "blkdebug", "image": child, "inject-error": [{"event": "none", "iotype": "read", "errno": 5}]}
        await client.execute("blockdev-add", {**child, "node-name": f"child{number}"})
    await client.execute(
        "blockdev-add", {"driver": "quorum", "node-name": "quorum", "vote-threshold": 2, "children": ["child0", "child1", "child2"]})
    await client.execute("block-export-add", {"type": "nbd", "id": "q", "node-name": "quorum", "name": "quorum"})
    reads = [word for number in range(40) for word in ("-c", f"read {number * 4096} 4096")]
    reader = await asyncio.create_subprocess_exec(
        "qemu-io", "-r", "-f", "raw", *reads, f"nbd+unix:///quorum?socket={nbd_socket}", stdout=subprocess.DEVNULL)
    assert await reader.wait() == 0
    await seen("QUORUM_REPORT_BAD", 2)
    bad = [details for name, details in events if name == "QUORUM_REPORT_BAD"]
    assert bad[-1]["sector-num"] == 39 * 8, bad
    await client.execute("block-export-del", {"id": "q", "mode": "hard"})
    await seen("BLOCK_EXPORT_DELETED")
    await client.execute("blockdev-del", {"node-name": "quorum"})
    for number in range(3):
        await client.execute("blockdev-del", {"node-name": f"child{number}"})


async def main(qmp_socket, nbd_socket, image):
    client = QMPClient("conformance")
    events = []

    async def collect():
        with client.listener() as listener:
            async for event in listener:
                events.append([event["event"], event.get("data")])

    async def seen(name, count=1):
        """Waits until an event has come that often."""
        while sum(event[0] == name for event in events) < count:
            await asyncio.sleep(0.01)

    await client.connect(qmp_socket)
    collector = asyncio.create_task(collect())
    assert "qemu" in await client.execute("query-version")
    assert {"name": "quit"} in await client.execute("query-commands")

    await client.execute("nbd-server-start", {"addr": {"type": "unix", "data": {"path": nbd_socket}}})
    await client.execute("blockdev-add", {"driver": "file", "node-name": "file", "filename": image})
    await client.execute("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
    await client.execute("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": True})

    await client.execute("block-set-write-threshold", {"node-name": "file", "write-threshold": 400000})
    data = bytes(range(256)) * 4096
    uri = f"nbd+unix:///disk?socket={nbd_socket}"
    writer = await asyncio.create_subprocess_exec("nbdcopy", "-", uri, stdin=subprocess.PIPE)
    await writer.communicate(data)
    assert writer.returncode == 0
    reader = await asyncio.create_subprocess_exec("nbdcopy", uri, "-", stdout=subprocess.PIPE)
    back, _ = await reader.communicate()
    assert back[: len(data)] == data and not any(back[len(data):])

    await seen("BLOCK_WRITE_THRESHOLD")
    await limited_events(client, nbd_socket, events, seen)

    for command, arguments in (("frobnicate", None), ("blockdev-del", {"node-name": "nosuchnode"})):
        try:
            await client.execute(command, arguments)
        except ExecuteError as error:
            assert error.error_class == ("CommandNotFound" if arguments is None else "GenericError"), error
        else:
            raise AssertionError(f"{command} was accepted")

    try:
        await client.execute("blockdev-del", {"node-name": "disk"})
    except ExecuteError as error:
        assert "disk" in str(error)
    else:
        raise AssertionError("a node in use was deleted")

    await client.execute("block-export-del", {"id": "e", "mode": "hard"})
    await seen("BLOCK_EXPORT_DELETED", 2)
    await client.execute("blockdev-del", {"node-name": "disk"})
    await client.execute("blockdev-del", {"node-name": "file"})
    assert await client.execute("query-named-block-nodes") == []
    await client.execute("quit")
    collector.cancel()
    # By how much the threshold was exceeded depends on the layout of the image.
    for _, details in events:
        details.pop("amount-exceeded", None)
    print(json.dumps(events, sort_keys=True))
    try:
        await client.disconnect()
    except EOFError:
        pass  # the daemon hung up first, as it should


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
