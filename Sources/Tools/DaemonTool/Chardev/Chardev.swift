import IOCore
import QMPMonitor
import StrataBase

/// A byte stream that is open and waits for its monitor.
final class Chardev {
    private enum State {
        case standardStreams
        /// A client that has come before the monitor is served by it first.
        case listening(ListeningSocket, firstClient: ConnectedSocket?)
        case connected(ConnectedSocket)
        case inUse
    }

    let id: String
    let usesStandardStreams: Bool
    private var state: State

    /// Opens what the options describe.
    /// - Parameter untilCancelled: returns when nobody wants to wait for a client any more.
    /// - Throws: the system's refusal; `.cancelled`.
    init(_ options: ChardevOptions, on context: IOContext, untilCancelled: @escaping @Sendable () async -> Void) async throws(BlockError) {
        id = options.id
        usesStandardStreams = options.kind == .standardStreams
        switch options.kind {
        case .standardStreams: state = .standardStreams
        case .server(let address, let waits):
            let socket = try ListeningSocket(address)
            guard waits else {
                state = .listening(socket, firstClient: nil)
                return
            }
            StandardStreams.printError("waiting for a connection on \(address)\n")
            do throws(BlockError) {
                let client = try await FirstClient.wait(on: socket, context, untilCancelled: untilCancelled)
                state = .listening(socket, firstClient: client)
            } catch {
                socket.removeSocketFile()
                throw error
            }
        case .client(let address):
            let result = await BlockingPool.run { () -> Result<ConnectedSocket, BlockError> in
                do throws(BlockError) { return .success(try ConnectedSocket(connectingTo: address)) } catch { return .failure(error) }
            }
            state = .connected(try result.get())
        }
    }

    /// Serves QMP on the stream.
    /// - Throws: `.permissionConflict` when it has a monitor already.
    func attach(to monitors: QMPServer, pretty: Bool) throws(BlockError) {
        switch state {
        case .standardStreams: try monitors.serve(input: ConnectedSocket(adopting: 0), output: ConnectedSocket(adopting: 1), pretty: pretty)
        case .listening(let socket, let firstClient):
            try monitors.listen(on: socket, pretty: pretty)
            if let firstClient { monitors.serve(firstClient, pretty: pretty) }
        case .connected(let socket): monitors.serve(socket, pretty: pretty)
        case .inUse: throw BlockError(.permissionConflict, "chardev '\(id)' is already in use")
        }
        state = .inUse
    }

    /// Removes the traces of a stream that no monitor has taken over.
    func close() {
        if case .listening(let socket, _) = state { socket.removeSocketFile() }
        state = .inUse
    }
}
