import BlockGraph
import JobCore
import StrataBase

/// What a job holds in the graph, so that it is given back together, whatever becomes of the job.
///
/// On the graph's context only.
final class JobHoldings: @unchecked Sendable {  // unchecked: see above
    private let graph: BlockGraph
    private let job: Job
    private var backends: [BlockBackend] = []
    private var blockers: [OperationBlocker.ID] = []
    /// Nodes that get their options back when the job is over.
    private var reopened: [String] = []

    init(_ graph: BlockGraph, _ job: Job) {
        self.graph = graph
        self.job = job
    }

    /// Attaches a backend in the job's name.
    func attach(to node: BlockNode, _ grant: PermissionGrant, in change: GraphChange) -> BlockBackend {
        let backend = change.makeBackend(named: job.holderName, on: node, grant)
        backends.append(backend)
        return backend
    }

    /// Holds a node between the images that are committed and the base. What it shows for itself makes no sense while the base changes, unless it is a
    /// filter on the base.
    func attachBetween(_ node: BlockNode, base: BlockNode, in change: GraphChange) {
        let shared: BlockPermissions = node.image === base.image ? [.consistentRead, .writeUnchanged, .write] : [.writeUnchanged, .write]
        _ = attach(to: node, PermissionGrant(used: [], shared: shared), in: change)
    }

    /// Keeps users from doing things to a node as long as the job lives.
    /// - Parameter isBetween: the node is neither what the job reads for its users nor what it writes to, and who wants to remove it is told of the job.
    func block(_ name: String, isBetween: Bool = false, in change: GraphChange) {
        let blocker = OperationBlocker.job(reason: job.blockReason, isToldFirst: isBetween)
        blockers.append(blocker.id)
        change.addBlocker(blocker, to: name)
    }

    /// Makes a node writable for the time of the job, if it is not.
    func makeWritable(_ name: String) async throws(BlockError) {
        if try await graph.makeWritable(name) { reopened.append(name) }
    }

    /// Detaches the backends as part of a change that makes something else of the graph.
    func detachAll(in change: GraphChange) { for backend in backends { change.detach(backend) } }

    /// Gives everything back.
    /// - Parameter kept: a node that stays writable, because somebody writes to it from now on.
    func release(keepingWritable kept: String? = nil) async {
        for backend in backends { await graph.release(backend) }
        backends = []
        let (blockers, reopened) = (blockers, reopened)
        (self.blockers, self.reopened) = ([], [])
        do throws(BlockError) {
            try await graph.change { change in for id in blockers { change.removeBlocker(id) } }
        } catch { preconditionFailure("taking blockers away is never refused: \(error)") }
        for name in reopened {
            // Somebody may need the node writable by now, or it is gone.
            do throws(BlockError) { try await graph.endWritable(name, staysWritable: name == kept) } catch {
                Trace.jobKeepsWritable(job: job.id, node: name, reason: error.description)
            }
        }
    }

    /// Runs what makes the job; if it fails everything is given back.
    func making<Result: Sendable>(_ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        do throws(BlockError) { return try await body() } catch {
            // The change that has failed has attached nothing.
            backends = []
            blockers = []
            await release()
            throw error
        }
    }
}
