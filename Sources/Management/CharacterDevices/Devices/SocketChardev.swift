import IOCore
package import ManagedObjects
import QAPIRuntime
import StorageSchema
package import StrataBase
import Synchronization

/// A socket: a server, whose clients each have a conversation of their own, or a client, who may come back when the connection was lost.
///
/// QEMU lets the second client of a server wait for the first to leave; here both are served.
package final class SocketChardev: CharacterDevice {
    package static let typeName = "chardev-socket"
    package static let properties: [ObjectProperty<SocketChardev>] = [
        ObjectProperty("connected", type: "bool") { device in device.state.withLock { !$0.peers.isEmpty } },
        ObjectProperty("addr", type: "SocketAddress") { $0.presentAddress },
    ]

    private struct State {
        var listener: ClientListener?
        /// Connected before there was a user.
        var waiting: ConnectedSocket?
        /// The ends of the open connections, in the order in which they came, in words for `filename`.
        var peers: [(number: Int, text: String)] = []
        var nextNumber = 0
        /// Connections whose conversation has not begun yet.
        var upgrades: [Int: SocketUpgrade] = [:]
        var isStarted = false
        var isShut = false
    }

    /// Connections at once that may be on their way to a conversation.
    private static let upgradeLimit = 256

    package let label: String
    package let slot: FrontendSlot
    private let options: SocketOptions
    private let context: IOContext
    private let state = Mutex(State())

    /// Listens or connects.
    /// - Parameters:
    ///   - untilCancelled: returns when nobody wants to wait for a client any more.
    /// - Throws: the system's refusal; `.cancelled`.
    init(
        _ label: String, _ options: SocketOptions, context: IOContext, log: LogOptions, untilCancelled: @escaping @Sendable () async -> Void
    ) async throws(BlockError) {
        self.label = label
        self.options = options
        self.context = context
        slot = try FrontendSlot(log)
        if options.isServer {
            try await listen(untilCancelled)
        } else if let delay = options.reconnectDelay {
            // Nothing is lost when the server is not there yet: it is tried again.
            do throws(BlockError) {
                let socket = try await connect()
                state.withLock { $0.waiting = socket }
            } catch {
                warn(error)
                retry(after: delay)
            }
        } else {
            let socket = try await connect()
            state.withLock { $0.waiting = socket }
        }
    }

    // MARK: Server

    private func listen(_ untilCancelled: @escaping @Sendable () async -> Void) async throws(BlockError) {
        let socket = try options.listen()
        let listener = ClientListener(socket, context: context) { [weak self] in self?.open($0) }
        state.withLock { $0.listener = listener }
        guard options.waits else { return }
        StandardStreams.printError("waiting for a connection on \(filename)\n")
        do throws(BlockError) {
            let client = try await FirstClient.wait(on: socket, context, untilCancelled: untilCancelled)
            state.withLock { $0.waiting = client }
        } catch {
            socket.removeSocketFile()
            throw error
        }
    }

    // MARK: Client

    private func connect() async throws(BlockError) -> ConnectedSocket {
        let options = options
        let result = await BlockingPool.run { () -> Result<ConnectedSocket, BlockError> in
            do throws(BlockError) { return .success(try options.connect()) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private func warn(_ error: BlockError) {
        StandardStreams.warn("Unable to connect character device \(label): \(error)")
    }

    private func retry(after delay: Duration) {
        _ = context.schedule(after: delay) { [weak self] in
            guard let self, !self.state.withLock({ $0.isShut }) else { return }
            self.context.spawn { await self.reconnect(delay) }
        }
    }

    private func reconnect(_ delay: Duration) async {
        do throws(BlockError) {
            let socket = try await connect()
            let isStarted = state.withLock { state in
                if !state.isStarted { state.waiting = socket }
                return state.isStarted
            }
            if isStarted { open(socket) }
        } catch {
            // Said once, when it was lost or not there; silence until it is back.
            retry(after: delay)
        }
    }

    // MARK: Conversations

    package func start() throws(BlockError) {
        let (listener, waiting) = state.withLock { state in
            state.isStarted = true
            defer { state.waiting = nil }
            return (state.listener, state.waiting)
        }
        if let waiting { open(waiting) }
        try listener?.start()
    }

    private func open(_ socket: ConnectedSocket) {
        let text = describe(socket)
        let number = state.withLock { state -> Int? in
            // More are turned away: they may be waiting for nothing but our memory.
            if state.isShut || state.upgrades.count >= Self.upgradeLimit { return nil }
            state.nextNumber += 1
            return state.nextNumber
        }
        guard let number else { return }
        guard options.upgrade.takesTime else { return converse(options.upgrade.finish(DescriptorStream(socket)), number, text) }
        let upgrade = SocketUpgrade(socket, options.upgrade, context: context) { [weak self] result in
            guard let self else { return }
            self.state.withLock { $0.upgrades[number] = nil }
            switch result {
            case .success(let stream): self.converse(stream, number, text)
            case .failure(let error):
                if !self.options.isServer, error.code != .cancelled { self.warn(error) }
                self.ended(number)
            }
        }
        state.withLock { $0.upgrades[number] = upgrade }
        upgrade.start()
    }

    private func converse(_ stream: any ByteStream, _ number: Int, _ text: String) {
        state.withLock { $0.peers.append((number, text)) }
        slot.open(stream) { [weak self] in self?.ended(number) }
    }

    private func ended(_ number: Int) {
        let isShut = state.withLock { state in
            state.peers.removeAll { $0.number == number }
            return state.isShut
        }
        if !isShut, let delay = options.reconnectDelay { retry(after: delay) }
    }

    package func shutDown() {
        let (listener, upgrades) = state.withLock { state in
            state.isShut = true
            state.waiting = nil
            defer { state.listener = nil }
            return (state.listener, Array(state.upgrades.values))
        }
        listener?.stop()
        for upgrade in upgrades { upgrade.cancel() }
    }

    // MARK: Descriptions

    /// What is spoken over TCP.
    private var scheme: String { options.upgrade.isTelnet ? "telnet" : options.upgrade.isWebSocket ? "websocket" : "tcp" }

    /// Both ends of a TCP connection; nothing for others, whose peers have no name.
    private func describe(_ socket: ConnectedSocket) -> String {
        guard let here = SocketName(of: socket.descriptor, peer: false), let there = SocketName(of: socket.descriptor, peer: true) else { return "" }
        func text(_ name: SocketName) -> String { name.family == .ipv6 ? "[\(name.host)]:\(name.port)" : "\(name.host):\(name.port)" }
        return "\(scheme):\(text(here))\n\(text(there))"
    }

    package var filename: String {
        let (peer, listener) = state.withLock { ($0.peers.first?.text ?? $0.waiting.map(describe), $0.listener) }
        let server = options.isServer ? ",server=on" : ""
        if let peer, let cut = peer.firstIndex(of: "\n") { return "\(peer[..<cut])\(server) <-> \(peer[peer.index(after: cut)...])" }
        let own: String
        switch options.address {
        case .unix(let path): own = "unix:\(path)"
        case .abstract(let name, let isPadded): own = "unix:\(name),abstract=on\(isPadded ? "" : ",tight=on")"
        case .descriptor(let number): own = "fd:\(number)"
        case .tcp(let host, let port):
            let bound = listener.flatMap { SocketName(of: $0.socket.descriptor, peer: false) }
            own = "\(scheme):\(bound?.host ?? host):\(bound.map { String($0.port) } ?? port)"
        }
        return (peer == nil ? "disconnected:" : "") + own + server
    }

    /// Where it listens in fact, when the user left a part of that to the kernel.
    private var presentAddress: JSONValue {
        let listener = state.withLock { $0.listener }
        guard case .tcp = options.address, let listener, let name = SocketName(of: listener.socket.descriptor, peer: false) else { return options.given.json }
        var address: JSONObject = JSONObject()
        address["type"] = "inet"
        address["host"] = .string(name.host)
        address["port"] = .string(String(name.port))
        address[name.family == .ipv6 ? "ipv6" : "ipv4"] = true
        return .object(address)
    }
}
