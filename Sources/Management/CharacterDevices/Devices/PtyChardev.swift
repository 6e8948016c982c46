import IOCore
package import ManagedObjects
import StrataBase
import Synchronization

/// A pseudo terminal. Each program that opens it has a conversation of its own, one after the other.
package final class PtyChardev: CharacterDevice {
    package static let typeName = "chardev-pty"
    package static let properties: [ObjectProperty<PtyChardev>] = []
    /// How often to look whether a program has opened the terminal: the kernel tells only that nobody has, and that again and again.
    private static let lookInterval = Duration.milliseconds(100)

    package let label: String
    package let slot: FrontendSlot
    package var filename: String { "pty:\(terminal.path)" }
    package var terminalPath: String? { terminal.path }
    private let terminal: PseudoTerminal
    private let link: String?
    private let context: IOContext
    private let isShut = Mutex(false)

    /// - Parameter link: a symbolic link to make to the terminal.
    init(_ label: String, link: String?, context: IOContext, log: LogOptions) throws(BlockError) {
        self.label = label
        self.link = link
        self.context = context
        slot = try FrontendSlot(log)
        terminal = try PseudoTerminal()
        if let link { try terminal.link(at: link) }
    }

    package func start() { look() }

    private func look() {
        if isShut.withLock({ $0 }) { return }
        guard terminal.isConnected else { return lookLater() }
        // Later even when somebody is there already: a user that wants no conversation any more ends it within this very call.
        slot.open(DescriptorStream(terminal.socket, ending: .leaves)) { [weak self] in self?.lookLater() }
    }

    private func lookLater() {
        _ = context.schedule(after: Self.lookInterval) { [weak self] in self?.look() }
    }

    package func shutDown() {
        let wasShut = isShut.withLock { isShut in
            defer { isShut = true }
            return isShut
        }
        if !wasShut, let link { SymbolicLinks.remove(link, to: terminal.path) }
    }
}
