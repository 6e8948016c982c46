package import StorageSchema
import StrataBase
import TraceRuntime

extension StorageService {
    package func traceEventGetState(_ arguments: TraceEventGetStateArguments) async throws -> [TraceEventInfo] {
        try Self.traceEvents(arguments.name).map { event in
            TraceEventInfo(name: event.name, state: !event.isAvailable ? .unavailable : event.isOn ? .enabled : .disabled)
        }
    }

    package func traceEventSetState(_ arguments: TraceEventSetStateArguments) async throws {
        let events = try Self.traceEvents(arguments.name)
        if arguments.ignoreUnavailable != true, let event = events.first(where: { !$0.isAvailable }) {
            throw BlockError(.invalidArgument, "event \"\(event.name)\" is disabled")
        }
        TraceRegistry.set(events, on: arguments.enable)
    }

    /// - Throws: when a name, which is no pattern, is nobody's.
    private static func traceEvents(_ text: String) throws(BlockError) -> [TraceEvent] {
        TraceCatalog.register()
        let pattern = GlobPattern(text)
        let events = TraceRegistry.events { pattern.matches($0) }
        if events.isEmpty, !pattern.isWild { throw BlockError(.invalidArgument, "unknown event \"\(text)\"") }
        return events
    }
}
