"""Drives a running daemon with the QEMU project's own QMP client; any surprise ends it with a traceback.

Usage: qmp-peer.py QMP-SOCKET NBD-SOCKET IMAGE
"""

import asyncio
import subprocess
import sys

from qemu.qmp import ExecuteError, QMPClient


async def main(qmp_socket, nbd_socket, image):
    client = QMPClient("conformance")
    events = []

    async def collect():
        with client.listener() as listener:
            async for event in listener:
                events.append(event["event"])

    await client.connect(qmp_socket)
    collector = asyncio.create_task(collect())
    assert "qemu" in await client.execute("query-version")
    assert {"name": "quit"} in await client.execute("query-commands")

    await client.execute("nbd-server-start", {"addr": {"type": "unix", "data": {"path": nbd_socket}}})
    await client.execute("blockdev-add", {"driver": "file", "node-name": "file", "filename": image})
    await client.execute("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
    await client.execute("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": True})

    data = bytes(range(256)) * 4096
    uri = f"nbd+unix:///disk?socket={nbd_socket}"
    writer = await asyncio.create_subprocess_exec("nbdcopy", "-", uri, stdin=subprocess.PIPE)
    await writer.communicate(data)
    assert writer.returncode == 0
    reader = await asyncio.create_subprocess_exec("nbdcopy", uri, "-", stdout=subprocess.PIPE)
    back, _ = await reader.communicate()
    assert back[: len(data)] == data and not any(back[len(data):])

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
    while "BLOCK_EXPORT_DELETED" not in events:
        await asyncio.sleep(0.01)
    await client.execute("blockdev-del", {"node-name": "disk"})
    await client.execute("blockdev-del", {"node-name": "file"})
    assert await client.execute("query-named-block-nodes") == []
    await client.execute("quit")
    collector.cancel()
    try:
        await client.disconnect()
    except EOFError:
        pass  # the daemon hung up first, as it should


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
