import QMPMonitor
import Synchronization

/// Who hears of events: the embedder, and the monitors, which can only be made after the service whose commands they offer.
final class EventListeners: Sendable {
    private let embedder: @Sendable (any QAPIEvent) -> Void
    private let monitors = Mutex<QMPServer?>(nil)

    init(_ embedder: @escaping @Sendable (any QAPIEvent) -> Void) { self.embedder = embedder }

    func connect(_ server: QMPServer) { monitors.withLock { $0 = server } }

    /// Any thread.
    func send(_ event: any QAPIEvent) {
        embedder(event)
        let server = monitors.withLock { $0 }
        server?.send(event)
    }
}
