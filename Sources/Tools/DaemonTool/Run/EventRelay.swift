import QAPIRuntime
import QMPMonitor
import Synchronization

/// Takes the service's events to the monitors, which can only be made after the service whose commands they offer.
final class EventRelay: Sendable {
    private let monitors = Mutex<QMPServer?>(nil)

    func connect(to server: QMPServer) { monitors.withLock { $0 = server } }

    /// Any thread.
    func send(_ event: any QAPIEvent) {
        let server = monitors.withLock { $0 }
        server?.send(event)
    }
}
