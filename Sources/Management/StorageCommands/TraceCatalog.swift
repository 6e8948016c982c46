import BlockGraph
package import TraceRuntime

/// The modules that have trace points. One line for each.
package enum TraceCatalog {
    package static let modules: [TraceModule] = [
        BlockGraphTraceEvents.module
    ]

    /// Makes them known, once.
    package static func register() { TraceRegistry.register(modules) }
}
