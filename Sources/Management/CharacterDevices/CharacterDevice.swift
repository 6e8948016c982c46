import IOCore
package import ManagedObjects
package import StrataBase
import Synchronization

/// A source of byte streams, made by `chardev-add` or `--chardev`, that one user (a monitor) talks over.
///
/// A device opens a stream as soon as somebody is at its other end: at once for files, when a client connects for sockets, when a program
/// opens the terminal for pseudo terminals. Everything but `label` and `filename` is called on the thread of the context of the device.
package protocol CharacterDevice: ManagedObject {
    /// Chosen by the user.
    var label: String { get }
    /// What is behind it, for `query-chardev`.
    var filename: String { get }
    /// Of a pseudo terminal: what the other program opens.
    var terminalPath: String? { get }
    var slot: FrontendSlot { get }

    /// There is a user now: opens streams for it from here on.
    func start() throws(BlockError)

    /// Ends everything and removes the traces. The user has gone.
    func shutDown()
}

/// Who talks over the streams of a device.
package protocol ChardevFrontend: AnyObject, Sendable {
    /// Somebody is at the other end. Of a server several streams may be open at once.
    /// - Parameter ended: called once, when the conversation is over.
    func opened(_ stream: any ByteStream, ended: @escaping @Sendable () -> Void)
}

extension CharacterDevice {
    package static var parentTypeName: String { "chardev" }
    package var terminalPath: String? { nil }
    package func close() async { shutDown() }

    /// Makes `frontend` the user of the device.
    /// - Throws: `.permissionConflict` when it has one.
    package func attach(_ frontend: any ChardevFrontend) throws(BlockError) {
        guard slot.take(frontend) else { throw BlockError(.permissionConflict, "chardev '\(label)' is already in use") }
        try start()
    }

    package var isFrontendOpen: Bool { slot.frontend != nil }
}

/// The place of the one user of a device, and the log of what is sent over it.
package final class FrontendSlot: Sendable {
    private let user = Mutex<(any ChardevFrontend)?>(nil)
    private let log: ConnectedSocket?

    init(_ options: LogOptions) throws(BlockError) { log = try options.open() }

    var frontend: (any ChardevFrontend)? { user.withLock { $0 } }

    /// - Returns: false when the place is taken.
    fileprivate func take(_ frontend: any ChardevFrontend) -> Bool {
        user.withLock { user in
            if user != nil { return false }
            user = frontend
            return true
        }
    }

    /// Hands a stream to the user. Nobody is there: the stream ends.
    func open(_ stream: any ByteStream, ended: @escaping @Sendable () -> Void = {}) {
        guard let frontend else {
            stream.end()
            return ended()
        }
        if let log { frontend.opened(LoggedStream(stream, log: log), ended: ended) } else { frontend.opened(stream, ended: ended) }
    }
}
