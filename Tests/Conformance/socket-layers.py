"""Talks to a storage daemon's monitor through telnet, websockets and TLS, byte by byte, and prints what came back.

usage: socket-layers.py all|common CERTIFICATES PROGRAM ARGUMENT...
The same steps are done whatever the program is (with `all` there is one more); what is accidental in the answers (dates, servers' names, versions) is left out.
"""
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

steps, certificates, command = sys.argv[1], sys.argv[2], sys.argv[3:]
folder = tempfile.mkdtemp()
os.chdir(folder)
negotiation = b'{"execute": "qmp_capabilities"}'
transcript = []


class Monitor:
    """A daemon with one monitor on a socket device with some options."""

    def __init__(self, options, objects=(), tcp=False):
        self.path = os.path.join(folder, "m.sock")
        if os.path.exists(self.path):
            os.unlink(self.path)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        address = f"host=127.0.0.1,port={self.port}" if tcp else f"path={self.path}"
        self.tcp = tcp
        arguments = [word for text in objects for word in ("--object", text)]
        ready = os.path.join(folder, "ready")
        if os.path.exists(ready):
            os.unlink(ready)
        arguments += ["--chardev", f"socket,id=c,{address},server=on,wait=off,{options}", "--monitor", "c", "--pidfile", ready]
        self.process = subprocess.Popen(command + arguments, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not os.path.exists(ready):
            assert self.process.poll() is None and time.monotonic() < deadline, "the daemon did not start"
            time.sleep(0.01)

    def connect(self):
        if self.tcp:
            client = socket.create_connection(("127.0.0.1", self.port))
        else:
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.path)
        client.settimeout(20)
        return client

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def receive(client, until):
    """Everything up to `until`; None: up to the end of the connection."""
    got = b""
    while until is None or until not in got:
        try:
            chunk = client.recv(65536)
        except ConnectionError:
            chunk = b""
        if not chunk:
            return got + b"<end>"
        got += chunk
    return got


def plain(data):
    """An answer without what differs from program to program."""
    text = data.decode("latin1")
    text = re.sub(r'\{"QMP".*?\}\r\n', "<greeting>", text)
    text = re.sub(r'\{"return": \{"qemu".*?\}(, "id": \d+)?\}\r\n', r"<version\1>", text)
    text = re.sub(r"(Server|Date|Content-Length): [^\r]*\r\n", "", text)
    return text


def note(name, data):
    transcript.append([name, plain(data)])


def telnet():
    with Monitor("telnet=on") as monitor, monitor.connect() as client:
        note("telnet wishes and greeting", receive(client, b"\r\n"))
        for name, data in [
            ("a client that agrees", b"\xff\xfd\x01\xff\xfd\x03\xff\xfb\x00\xff\xfd\x00" + negotiation + b"\r\n"),
            ("a break", b'\xff\xf3{"execute":"query-version", "id": 1}\n'),
            ("refusals", b'\xff\xfe\x01\xff\xfc\x00{"execute":"query-version", "id": 2}\n'),
            ("nothing but an agreement inside a word", b'{"execute":"query-ver\xff\xfd\x03sion", "id": 3}\n'),
        ]:
            client.sendall(data)
            note("telnet: " + name, receive(client, b"\r\n"))


request = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n"
)


def frame(opcode, payload, final=True, masked=True):
    head = bytes([final << 7 | opcode])
    mark = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([mark | len(payload)])
    elif len(payload) < 65536:
        head += bytes([mark | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([mark | 127]) + len(payload).to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = b"\x12\x9a\xff\x00"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def opening(client):
    """The answer to a request, and not a byte more."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        got += exactly(client, 1)
    return got


def payloads(client, until):
    """The data of frames up to a text."""
    got = b""
    while until not in got:
        head = exactly(client, 2)
        length = head[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(exactly(client, 2 if length == 126 else 8), "big")
        got += exactly(client, length)
    return got


def exactly(client, count):
    got = b""
    while len(got) < count:
        chunk = client.recv(count - len(got))
        if not chunk:
            raise EOFError("the server has gone")
        got += chunk
    return got


def conversation():
    """A long conversation over a websocket. QEMU 10.0 takes no second message in."""
    with Monitor("websocket=on") as monitor, monitor.connect() as client:
        # The first command comes behind the request.
        client.sendall(request + frame(2, negotiation))
        assert b"101 Switching" in opening(client)
        assert b"QMP" in payloads(client, b"\r\n")
        assert payloads(client, b"\r\n") == b'{"return": {}}\r\n'
        client.sendall(frame(2, b'{"execute":"query-', final=False) + frame(9, b"between") + frame(0, b'version"}'))
        assert exactly(client, 9) == b"\x8a\x07between"
        assert b"major" in payloads(client, b"\r\n")
        client.sendall(frame(10, b"nobody asked"))
        client.sendall(frame(2, b'{"execute":"query-version","id":"' + b"long" * 30000 + b'"}'))
        assert json.loads(payloads(client, b"\r\n"))["id"] == "long" * 30000
        # More questions than answers fit into the socket: the last answer is there all the same.
        sender = threading.Thread(target=client.sendall, args=(frame(2, b'{"execute":"query-qmp-schema"}') * 50,))
        sender.start()
        for _ in range(50):
            assert any(entry["name"] == "blockdev-add" for entry in json.loads(payloads(client, b"\r\n"))["return"])
        sender.join()
        client.sendall(frame(8, b"\x03\xe8bye"))
        assert receive(client, None)[2:4] == b"\x03\xe8"


def websocket():
    with Monitor("websocket=on") as monitor:
        with monitor.connect() as client:
            client.sendall(request[:50])
            client.sendall(request[50:])
            note("websocket: opening", opening(client))
            note("websocket: greeting", payloads(client, b"\r\n"))
    for name, data in [
        ("text", frame(1, negotiation)),
        ("unmasked", frame(2, negotiation, masked=False)),
        ("long ping", frame(9, b"p" * 126)),
        ("stray continuation", frame(0, b"x")),
        ("unknown kind", frame(3, b"x")),
        ("end without a reason", frame(8, b"")),
    ]:
        with Monitor("websocket=on") as monitor, monitor.connect() as client:
            client.sendall(request)
            opening(client)
            payloads(client, b"\r\n")
            client.sendall(data)
            # The code tells programs why; the sentence behind it is for people.
            answer = receive(client, None)
            transcript.append(["websocket: " + name, answer[0], int.from_bytes(answer[2:4], "big"), answer.endswith(b"<end>")])
    for name, change in [
        ("no protocol", (b"Sec-WebSocket-Protocol: binary\r\n", b"")),
        ("another protocol", (b": binary", b": base64")),
        ("a list of protocols", (b": binary", b": chat, binary")),
        ("another version", (b": 13", b": 8")),
        ("no key", (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"")),
        ("a short key", (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl")),
        ("POST", (b"GET", b"POST")),
        ("another path", (b"GET /", b"GET /x")),
        ("an older protocol", (b"HTTP/1.1", b"HTTP/1.0")),
        ("no host", (b"Host: x\r\n", b"")),
        ("no connection", (b"Connection: Upgrade\r\n", b"")),
        ("a list of connections", (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade")),
        ("no upgrade", (b"Upgrade: websocket\r\n", b"")),
        ("no HTTP", (request, b"hello\r\n\r\n")),
    ]:
        with Monitor("websocket=on") as monitor, monitor.connect() as client:
            client.sendall(request.replace(*change))
            transcript.append(["websocket: " + name, receive(client, b"\r\n").decode("latin1").split("\r\n")[0]])


def tls(options, objects, identity=None):
    """What becomes of a client, perhaps with a certificate, of a monitor over TLS."""
    context = ssl.create_default_context(cafile=f"{certificates}/ca-cert.pem")
    if identity:
        context.load_cert_chain(f"{certificates}/{identity}.pem", f"{certificates}/{identity}.key")
    with Monitor(options, objects, tcp=True) as monitor, monitor.connect() as bare:
        try:
            with context.wrap_socket(bare, server_hostname="localhost") as client:
                if "telnet" in options:
                    return plain(receive(client, b"\r\n"))
                if "websocket" in options:
                    client.sendall(request)
                    opening(client)
                    return plain(payloads(client, b"\r\n"))
                greeting = receive(client, b"\r\n")
                if not greeting.endswith(b"\r\n"):
                    return "turned away"
                client.sendall(negotiation + b'{"execute":"query-qmp-schema", "id": 1}' + b'{"execute":"query-version", "id": 2}' * 500)
                for _ in range(502):
                    last = json.loads(line(client))
                return [plain(greeting), last["id"]]
        except (ssl.SSLError, ConnectionError):
            return "turned away"


def dialling(objects):
    """The daemon is the client: what it says to a server with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificates}/server.pem", f"{certificates}/server.key")
    context.load_verify_locations(f"{certificates}/ca-cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        arguments = [word for text in objects for word in ("--object", text)]
        arguments += ["--chardev", f"socket,id=c,host=localhost,port={port},server=off,tls-creds=t", "--monitor", "c"]
        process = subprocess.Popen(command + arguments, stderr=subprocess.DEVNULL)
        try:
            bare, _ = server.accept()
            bare.settimeout(20)
            with context.wrap_socket(bare, server_side=True) as client:
                who = dict(part[0] for part in client.getpeercert()["subject"])["commonName"]
                return [who, plain(receive(client, b"\r\n"))]
        except (ssl.SSLError, ConnectionError):
            return "turned away"
        finally:
            process.kill()
            process.wait()


buffered = b""


def line(client):
    global buffered
    while b"\n" not in buffered:
        chunk = client.recv(65536)
        if not chunk:
            raise ConnectionError("the server has gone")
        buffered += chunk
    first, _, buffered = buffered.partition(b"\n")
    return first


telnet()
websocket()
if steps == "all":
    conversation()
    # QEMU says its wishes before it encrypts.
    assert tls("tls-creds=t,telnet=on", [f"tls-creds-x509,id=t,dir={certificates},endpoint=server,verify-peer=off"]).endswith("<greeting>")
credentials = f"tls-creds-x509,id=t,dir={certificates},endpoint=server"
for name, options, objects, identity in [
    ("anybody", "tls-creds=t", [credentials + ",verify-peer=off"], None),
    ("nobody without a certificate", "tls-creds=t", [credentials + ",verify-peer=on"], None),
    ("somebody with one", "tls-creds=t", [credentials + ",verify-peer=on"], "mallory"),
    ("somebody on the list", "tls-creds=t,tls-authz=a", [credentials, "authz-simple,id=a,identity=O=Strata,,CN=alice"], "alice"),
    ("somebody who is not", "tls-creds=t,tls-authz=a", [credentials, "authz-simple,id=a,identity=O=Strata,,CN=alice"], "mallory"),
    ("no list", "tls-creds=t,tls-authz=absent", [credentials], "alice"),
    ("websocket inside", "tls-creds=t,websocket=on", [credentials + ",verify-peer=off"], None),
]:
    transcript.append(["tls: " + name, tls(options, objects, identity)])
for name in ["alice", "nobody"]:
    transcript.append(["tls client: " + name, dialling([f"tls-creds-x509,id=t,dir={certificates}/{name},endpoint=client"])])
print(json.dumps(transcript, indent=1))
subprocess.run(["rm", "-rf", folder], check=True)
