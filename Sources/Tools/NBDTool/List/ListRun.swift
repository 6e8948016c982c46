import NBDClient
import NBDProtocol
import StrataBase
import ToolSupport

/// Asks the server that the options name.
func list(_ plan: NBDToolPlan) async throws(ToolFailure) -> [ListedExport] {
    let objects = try UserObjects.make(plan.objects)
    do throws(BlockError) {
        return try await ExportListing.fetch(from: plan.address.hostAddress, credentials: plan.tlsCreds, hostName: plan.tlsHostname, objects: objects)
    } catch {
        throw ToolFailure(nil, error)
    }
}
