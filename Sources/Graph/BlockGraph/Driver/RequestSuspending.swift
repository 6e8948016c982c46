package import StorageSchema
package import StrataBase

/// Can hold requests up at chosen points until they are told to go on, so that a test can arrange what happens in between (blkdebug).
///
/// A request stops when it next comes to the node after it has passed the point. Requests that are held up keep drained sections waiting.
package protocol RequestSuspending: BlockDriver {
    /// The next request that passes `point` is held up, under a name. Once.
    func setBreakpoint(at point: BlkdebugEvent, tag: String)
    /// Removes breakpoints of that name that nobody has met, and lets all requests go that are held up under it.
    /// - Returns: whether there were any.
    @discardableResult
    func removeBreakpoint(tag: String) -> Bool
    /// Lets the request go that has been held up longest under the name.
    /// - Throws: `.notFound` when there is none.
    func resumeRequest(tag: String) throws(BlockError)
    func isSuspended(tag: String) -> Bool
    /// Waits until a request is held up under the name.
    func waitUntilSuspended(tag: String) async
}

extension BlockNode {
    /// The driver that holds requests up, of this node or of the next one below.
    package var requestSuspending: (any RequestSuspending)? {
        var node: BlockNode? = self
        while let current = node {
            if let driver = current.driver as? any RequestSuspending { return driver }
            node = current.primaryChild?.node
        }
        return nil
    }
}
