import BasicDrivers
import BlockFilters
import BlockGraph
import IOCore
import ChainJobs
import JobCore
import CopyFilters
import NBDClient
import NBDServer
import QCOW2
import QMPMonitor
package import TraceRuntime

/// The modules that have trace points. One line for each.
package enum TraceCatalog {
    package static let modules: [TraceModule] = [
        IOCoreTraceEvents.module,
        BlockGraphTraceEvents.module,
        BasicDriversTraceEvents.module,
        BlockFiltersTraceEvents.module,
        ChainJobsTraceEvents.module,
        JobCoreTraceEvents.module,
        CopyFiltersTraceEvents.module,
        QCOW2TraceEvents.module,
        NBDServerTraceEvents.module,
        NBDClientTraceEvents.module,
        QMPMonitorTraceEvents.module,
    ]

    /// Makes them known, once.
    package static func register() { TraceRegistry.register(modules) }
}
