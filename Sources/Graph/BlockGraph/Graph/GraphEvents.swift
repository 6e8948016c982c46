package import QAPIRuntime

/// Takes what nodes have to say to whoever watches the graph: QMP events that no command asked for.
package struct GraphEvents: Sendable {
    private let receive: @Sendable (any QAPIEvent) -> Void

    /// - Parameter receive: called on any thread, in the middle of a request; it must not wait.
    package init(_ receive: @escaping @Sendable (any QAPIEvent) -> Void) { self.receive = receive }

    /// For a graph that nobody watches.
    package static let unheard = GraphEvents { _ in }

    package func send(_ event: any QAPIEvent) { receive(event) }
}
