import BlockGraph
import JobCore
import StorageSchema
import StrataBase

// What the commands that start a job have in common.

extension StorageService {
    /// What users say about any job on nodes.
    /// - Parameters:
    ///   - speed: bytes per second; nil and 0 are no limit.
    ///   - node: the job runs where this node is served.
    func jobSettings(_ type: JobType, id: String?, speed: Int?, finalizes: Bool?, dismisses: Bool?, on node: String) async -> JobSettings {
        var settings = JobSettings(id: id ?? "", type: type)
        settings.speed = speed ?? 0
        settings.finalizesAutomatically = finalizes ?? true
        settings.dismissesAutomatically = dismisses ?? true
        settings.context = await graph.context(ofNodeNamed: node)
        return settings
    }

    /// - Throws: `.notFound` in the words for a name that is no device's either.
    func nodeForJob(_ name: String) async throws(BlockError) -> BlockNode {
        guard let node = await graph.node(named: name) else {
            throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'")
        }
        return node
    }
}
