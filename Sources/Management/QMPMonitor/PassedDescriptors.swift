package import IOCore
import Synchronization

/// The open files that a client has passed along with its messages and no command has taken yet, first come first taken.
package final class PassedDescriptors: Sendable {
    /// Those of the client whose command is running.
    @TaskLocal package static var current: PassedDescriptors?

    /// More are not kept for a client: the newest are closed.
    package static let limit = 64

    private let waiting = Mutex<[OwnedDescriptor]>([])

    package init() {}

    func add(_ descriptors: [OwnedDescriptor]) {
        // What does not fit is closed when this function is over.
        waiting.withLock { $0 += descriptors.prefix(max(0, Self.limit - $0.count)) }
    }

    /// The oldest one; the caller owns it.
    package func take() -> OwnedDescriptor? { waiting.withLock { $0.isEmpty ? nil : $0.removeFirst() } }
}
