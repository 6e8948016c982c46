package import IOCore
package import NBDProtocol
package import StrataBase

/// A connection for somebody who speaks the transmission phase himself: the kernel.
package struct PlainSession: Sendable {
    package let socket: ConnectedSocket
    package let session: NBDClientSession

    /// Chooses an export, with simple replies and without contexts, which is all that the kernel's client knows. On an I/O context.
    /// - Parameter socket: has just been connected to a server.
    package init(over socket: ConnectedSocket, export: String) async throws(BlockError) {
        guard let context = IOContext.current else { preconditionFailure("a negotiation runs on an I/O context") }
        let wishes = ClientHandshake.Wishes(exportName: export, metaContext: nil, replyStyle: .simple)
        let result = try await Negotiation.run(ClientHandshake(wishes), over: socket, nil, context: context)
        guard result.received.isEmpty else { throw BlockError(.connection, "The NBD server broke the protocol: it answers what nobody has asked") }
        self.socket = result.socket
        session = result.session
    }
}
