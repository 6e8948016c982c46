import BlockExports
import BlockGraph
import Foundation
import Glibc
import IOCore
import ManagedObjects
import NBDServer
import StorageSchema
import StrataBase
import Synchronization
import Testing

@Suite("NBD server: exports and clients come and go", .timeLimit(.minutes(2)))
struct LifeCycleTests {
    @Test("safe removal waits for nobody: it is refused while a client is there")
    func safeRemoval() async throws {
        let server = try await TestServer.withTestDisk("quick", byteCount: 1 << 20)
        let path = server.socketPath
        let client = try await server.client { _ in Holder(try RawClient(path)) }
        try await server.client { _ in _ = try client.client.enter("quick") }
        await #expect(throws: BlockError(.permissionConflict, "export 'export-quick' still in use", hint: "Use mode='hard' to force client disconnect")) {
            try await server.registry.remove(id: "export-quick", mode: .safe)
        }
        // Still served.
        let data = try await server.client { _ in try client.client.readStructured(at: 0, 4) }
        #expect(data == [0, 0, 0, 0])
        try await server.registry.remove(id: "export-quick", mode: .hard)
        let isClosed = try await server.client { _ in try client.client.isClosed() }
        #expect(isClosed)
        await server.registry.removeAll()
        #expect(server.deleted.value.withLock { $0 } == ["export-quick"])
        await #expect(throws: BlockError.self) { try await server.registry.remove(id: "export-quick", mode: .hard) }
        // The name is gone for new clients, and free again.
        await #expect(throws: RawClient.Failure.self) { try await server.client { path in _ = try RawClient(path).enter("quick") } }
        try await server.server.addExport(TestServer.export("quick"), graph: server.graph, contexts: [server.context])
        _ = try await server.client { path in try RawClient(path).enter("quick") }
        await server.stop()
    }

    /// A server whose only export is being removed while a client has requests under way.
    private static func removing() async throws -> (TestServer, Holder<RawClient>) {
        let server = try await TestServer.withTestDisk("stuck", byteCount: 1 << 20)
        let client = try await server.client { path in
            let client = try RawClient(path)
            try client.enter("stuck")
            for cookie in UInt64(0)..<200 { try client.request(0, cookie: cookie, at: 0, 4096) }
            return Holder(client)
        }
        try await server.registry.remove(id: "export-stuck", mode: .hard)
        return (server, client)
    }

    @Test("hard removal finishes requests that have begun and lets the node go")
    func hardRemoval() async throws {
        let (server, client) = try await Self.removing()
        await server.registry.removeAll()
        try await server.graph.remove(nodeNamed: "stuck")
        withExtendedLifetime(client) {}
        await server.stop()
    }

    @Test("a server that stops waits for exports that are being removed already")
    func stopDuringRemoval() async throws {
        let (server, client) = try await Self.removing()
        await server.server.stop()
        let summaries = await server.registry.summaries
        #expect(summaries.isEmpty)
        withExtendedLifetime(client) {}
        await server.stop()
    }

    @Test("names and ids are unique, and a refused export leaves nothing behind")
    func uniqueness() async throws {
        let server = try await TestServer(
            drivers: [TestDisk.self], nodes: { _ in [TestDisk.node("a", byteCount: 4096), TestDisk.node("b", byteCount: 4096)] },
            exports: [TestServer.export("a", name: "x", id: "one", writable: false)])
        for refused in [
            TestServer.export("b", name: "x", id: "two", writable: false), TestServer.export("b", name: "y", id: "one", writable: false),
            TestServer.export("nope", name: "y", id: "two", writable: false), TestServer.export("b", name: "y", id: "2 bad", writable: false),
            TestServer.export("b", name: String(repeating: "n", count: 4097), id: "two", writable: false),
        ] {
            await #expect(throws: BlockError.self) { try await server.server.addExport(refused, graph: server.graph, contexts: [server.context]) }
        }
        #expect(await !server.graph.isInUse("b"))
        let summaries = await server.registry.summaries
        #expect(summaries.map(\.id) == ["one"])
        #expect(summaries.first?.nodeName == "a" && summaries.first?.typeName == "nbd" && summaries.first?.isShuttingDown == false)
        // "x" still works after the refused second "x".
        _ = try await server.client { path in try RawClient(path).enter("x") }
        try await server.graph.remove(nodeNamed: "b")
        await server.stop()
    }

    @Test("stopping with idle, half-open and busy clients returns at once and removes the socket")
    func stopWithClients() async throws {
        let server = try await TestServer.withTestDisk("slow", byteCount: 1 << 20)
        let clients = try await server.client { path in
            var clients: [RawClient] = []
            for index in 0..<30 {
                let client = try RawClient(path)
                if index % 3 == 0 { _ = try client.receive(18) }  // half-open
                if index % 3 > 0 { try client.enter("slow") }
                if index % 3 == 2 { for cookie in UInt64(0)..<10 { try client.request(0, cookie: cookie, at: 0, 100_000) } }
                clients.append(client)
            }
            return Holder(clients)
        }
        let clock = ContinuousClock()
        let time = await clock.measure { await server.server.stop() }
        // Nobody is waited for: a handshake alone would have ten seconds. (Not one second: the machine may be busy with other tests.)
        #expect(time < .seconds(5))
        #expect(!FileManager.default.fileExists(atPath: server.socketPath))
        #expect(server.deleted.value.withLock { $0 } == ["export-slow"])
        withExtendedLifetime(clients) {}
        await server.stop()
    }

    @Test("a client that does not choose an export in time is disconnected, others are not")
    func handshakeLimit() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20, handshakeLimit: .milliseconds(300))
        try await server.client { path in
            let good = try RawClient(path)
            try good.enter("disk")
            let silent = try RawClient(path)
            _ = try silent.receive(18)
            let isClosed = try silent.isClosed()
            #expect(isClosed)
            let data = try good.readStructured(at: 0, 4)
            #expect(data == [0, 0, 0, 0])
        }
        await server.stop()
    }

    @Test("no more clients are served at a time than allowed; the next one is when one leaves")
    func maximumConnections() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20, maximumConnections: 2)
        try await server.client { path in
            let first = try RawClient(path)
            try first.enter("disk")
            var second: RawClient? = try RawClient(path)
            try second?.enter("disk")
            let third = try RawClient(path)
            try third.send([0, 0, 0, 3])
            // The third is in the queue of the listening socket: nothing greets it until the second goes.
            var poll = pollfd(fd: third.descriptor, events: Int16(POLLIN), revents: 0)
            let isReady = Glibc.poll(&poll, 1, 50)
            #expect(isReady == 0)
            second = nil
            let greeting = try third.receive(18)
            #expect(greeting.count == 18)
        }
        await server.stop()
    }

    @Test("options that would be ignored are refused", arguments: [
        NbdServerOptions(tlsCreds: "tls0", addr: SocketAddress(.unix(UnixSocketAddress(path: "/x")))),
        NbdServerOptions(addr: SocketAddress(.vsock(VsockSocketAddress(cid: "1", port: "1")))),
    ])
    func refusedOptions(options: NbdServerOptions) {
        #expect(throws: BlockError.self) { try NBDServer.Configuration(options, objects: ObjectRegistry()) }
    }

    @Test("a client that is connected already is served like one that has come to the socket")
    func adopted() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20)
        let (ours, theirs) = try ConnectedSocket.pair()
        await server.server.adopt(ours)
        let number = dup(theirs.descriptor)
        try await server.client { _ in
            let client = RawClient(adopting: number)
            try client.enter("disk")
            let error = try client.write(at: 4096, [1, 2, 3])
            #expect(error == 0)
            let data = try client.readStructured(at: 4095, 5)
            #expect(data == [0, 1, 2, 3, 0])
        }
        await server.stop()
        withExtendedLifetime(theirs) {}
    }

    @Test("a server takes the next port when its own is taken and it may")
    func nextPort() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20)
        func make(_ port: String, to last: UInt16?) throws -> NBDServer {
            let address = SocketAddress(.inet(InetSocketAddress(host: "127.0.0.1", port: port, to: last, keepAlive: true)))
            return NBDServer(try .init(NbdServerOptions(addr: address), objects: ObjectRegistry()), context: server.context, registry: server.registry)
        }
        func port(_ server: NBDServer) async -> Int? {
            if case .tcp(_, let port)? = await server.addresses.first { Int(port) } else { nil }
        }
        let first = try make("0", to: nil)
        try await first.start()
        let taken = try #require(await port(first))
        let refused = try make("\(taken)", to: nil)
        await #expect(throws: BlockError.self) { try await refused.start() }
        let second = try make("\(taken)", to: UInt16(clamping: taken + 100))
        try await second.start()
        #expect(try #require(await port(second)) > taken)
        await first.stop()
        await second.stop()
        await server.stop()
    }

    @Test("a server listens on each of its addresses, and on every address that a name stands for; stopping it ends all of them")
    func severalListeners() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20)
        let path = server.directory + "/second"
        let abstract = "strata-\(UUID().uuidString)"
        let other = NBDServer(
            .init(addresses: [.unix(path: path), .tcp(host: "", port: "0"), .abstract(name: abstract, isPadded: false), .tcp(host: "127.0.0.1", port: "0")]),
            context: server.context, registry: server.registry)
        try await other.start()
        try await other.addExport(TestServer.export("disk", id: "second", writable: false), graph: server.graph, contexts: [server.context])
        let ports = await other.addresses.compactMap { if case .tcp(let host, let port) = $0 { (host, port) } else { nil } }
        // No host is all addresses of either IP.
        try #require(ports.map(\.0) == ["", "", "127.0.0.1"])
        let uris = ["nbd+unix:///disk?socket=\(path)", "nbd://127.0.0.1:\(ports[0].1)/disk", "nbd://[::1]:\(ports[1].1)/disk", "nbd://127.0.0.1:\(ports[2].1)/disk"]
        for uri in uris {
            let result = try await server.client { _ in try run("nbdinfo", ["--size", uri]) }
            #expect(result.output == "1048576\n", "\(uri): \(result.errors)")
        }
        let (first, second) = try await server.client { _ in
            let socket = try ConnectedSocket(connectingTo: .abstract(name: abstract, isPadded: false))
            let clients = (try RawClient(path), withExtendedLifetime(socket) { RawClient(adopting: dup(socket.descriptor)) })
            try clients.0.enter("disk")
            try clients.1.enter("disk")
            return (Holder(clients.0), Holder(clients.1))
        }
        await other.stop()
        let isClosed = try await server.client { _ in try first.client.isClosed() && second.client.isClosed() }
        #expect(isClosed)
        #expect(!FileManager.default.fileExists(atPath: path))
        for uri in uris {
            let result = try await server.client { _ in try run("nbdinfo", ["--size", uri]) }
            #expect(result.status != 0 && result.output.isEmpty, "\(uri)")
        }
        await server.stop()
    }

    @Test("where one of several addresses is taken, none is listened on and nothing is left")
    func takenAddress() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20)
        let taken = try ListeningSocket(.tcp(host: "127.0.0.1", port: "0"))
        let path = server.directory + "/second"
        let other = NBDServer(.init(addresses: [.unix(path: path), .tcp(host: "127.0.0.1", port: "\(taken.port)")]), context: server.context, registry: server.registry)
        await #expect { try await other.start() } throws: { "\($0)".contains("Failed to listen on 127.0.0.1:\(taken.port)") && "\($0)".contains("in use") }
        #expect(!FileManager.default.fileExists(atPath: path))
        await server.stop()
    }

    @Test("a TCP server on a port of the kernel's choice serves as the unix one does")
    func tcp() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20)
        let other = NBDServer(.init(addresses: [.tcp(host: "127.0.0.1", port: "0")]), context: server.context, registry: server.registry)
        try await other.start()
        try await other.addExport(TestServer.export("disk", id: "tcp", writable: false), graph: server.graph, contexts: [server.context])
        let addresses = await other.addresses
        guard case .tcp(_, let port)? = addresses.first else { Issue.record("no address"); return }
        let result = try await server.client { _ in try run("nbdinfo", ["--size", "nbd://127.0.0.1:\(port)/disk"]) }
        #expect(result.output == "1048576\n", "\(result.errors)")
        await other.stop()
        await server.stop()
    }
}

/// Carries what only one task uses at a time from one to the next.
final class Holder<Value>: @unchecked Sendable {
    var client: Value
    init(_ client: Value) { self.client = client }
}
