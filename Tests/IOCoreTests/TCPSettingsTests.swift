import Glibc
import IOCore
import StrataBase
import Testing

@Suite("TCP settings")
struct TCPSettingsTests {
    private static func settings(_ change: (inout TCPSettings) -> Void) -> TCPSettings {
        var settings = TCPSettings()
        change(&settings)
        return settings
    }

    private static func option(_ descriptor: Int32, _ name: Int32) -> Int32 {
        var value: Int32 = -1
        var size = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(descriptor, SOL_SOCKET, name, &value, &size) == 0 ? value : -errno
    }

    private static func accept(_ listener: ListeningSocket) throws -> ConnectedSocket {
        var poll = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
        #expect(Glibc.poll(&poll, 1, 20_000) == 1)
        return try #require(try listener.accept())
    }

    @Test("of several ports the first that is free is listened on, and when none is the last refusal is told")
    func lastPort() throws {
        let first = try ListeningSocket(.tcp(host: "127.0.0.1", port: "0"))
        let taken = HostAddress.tcp(host: "127.0.0.1", port: "\(first.port)")
        #expect(throws: BlockError.self) { try ListeningSocket(taken) }
        #expect(throws: BlockError.self) { try ListeningSocket(taken, tcp: Self.settings { $0.lastPort = first.port }) }
        let second = try ListeningSocket(taken, tcp: Self.settings { $0.lastPort = first.port + 100 })
        #expect(second.port > first.port && second.port <= first.port + 100)
        let client = try ConnectedSocket(connectingTo: .tcp(host: "127.0.0.1", port: "\(second.port)"))
        _ = try Self.accept(second)
        withExtendedLifetime((first, client)) {}
    }

    @Test("names are looked up in the family that is wanted, and not at all where they must be numbers")
    func families() throws {
        let listener = try ListeningSocket(.tcp(host: "localhost", port: "0"), tcp: Self.settings { $0.family = .ipv4 })
        #expect(SocketName(of: listener.descriptor, peer: false)?.family == .ipv4)
        #expect(throws: BlockError.self) { try ListeningSocket(.tcp(host: "127.0.0.1", port: "0"), tcp: Self.settings { $0.family = .ipv6 }) }
        #expect(throws: BlockError.self) { try ConnectedSocket(connectingTo: .tcp(host: "localhost", port: "\(listener.port)"), tcp: Self.settings { $0.isNumeric = true }) }
        #expect(throws: BlockError.self) { try ListeningSocket(.tcp(host: "127.0.0.1", port: "http"), tcp: Self.settings { $0.isNumeric = true }) }
        _ = try ConnectedSocket(connectingTo: .tcp(host: "127.0.0.1", port: "\(listener.port)"), tcp: Self.settings { $0.isNumeric = true })
    }

    @Test("both ends of a connection are probed when they are to be, and otherwise not", arguments: [true, false])
    func keepAlive(isOn: Bool) throws {
        let settings = Self.settings { $0.keepsAlive = isOn }
        let listener = try ListeningSocket(.tcp(host: "127.0.0.1", port: "0"), tcp: settings)
        let client = try ConnectedSocket(connectingTo: .tcp(host: "127.0.0.1", port: "\(listener.port)"), tcp: settings)
        let served = try Self.accept(listener)
        #expect(Self.option(client.descriptor, SO_KEEPALIVE) == (isOn ? 1 : 0) && Self.option(served.descriptor, SO_KEEPALIVE) == (isOn ? 1 : 0))
    }

    @Test("multipath TCP is used where the kernel has it, and refused where it has not; a plain client gets in all the same")
    func multipath() throws {
        let multipath: Int32 = 262
        let settings = Self.settings { $0.usesMultipath = true }
        let probe = socket(AF_INET, Int32(SOCK_STREAM.rawValue), multipath)
        guard probe >= 0 else {
            #expect(throws: BlockError.self) { try ListeningSocket(.tcp(host: "127.0.0.1", port: "0"), tcp: settings) }
            return
        }
        close(probe)
        let listener = try ListeningSocket(.tcp(host: "127.0.0.1", port: "0"), tcp: settings)
        #expect(Self.option(listener.descriptor, SO_PROTOCOL) == multipath)
        for (wishes, expected) in [(settings, multipath), (TCPSettings(), Int32(IPPROTO_TCP))] {
            let client = try ConnectedSocket(connectingTo: .tcp(host: "127.0.0.1", port: "\(listener.port)"), tcp: wishes)
            #expect(Self.option(client.descriptor, SO_PROTOCOL) == expected)
            let served = try Self.accept(listener)
            #expect(client.send([1, 2, 3]) == .bytes(3))
            var poll = pollfd(fd: served.descriptor, events: Int16(POLLIN), revents: 0)
            #expect(Glibc.poll(&poll, 1, 20_000) == 1)
            #expect(served.receive(atMost: 10).bytes == [1, 2, 3])
        }
    }
}
