import IOCore
import StrataBase
import Synchronization

/// The I/O threads that users have made by `object-add`, by id. Any thread.
///
/// A thread that is removed while exports run on it loses its name at once and ends with the last of them, as in QEMU.
final class IOThreadTable: Sendable {
    private struct State {
        var threads: [String: IOContext] = [:]
        /// By the id of the export.
        var uses: [String: IOContext] = [:]
    }

    private let state = Mutex(State())

    /// - Throws: `.alreadyExists` when the id is taken; what the kernel says when there is no thread to be had.
    func add(_ id: String) throws(BlockError) {
        let context = try IOContext.startThread(name: id)
        let isNew = state.withLock { state in
            if state.threads[id] != nil { return false }
            state.threads[id] = context
            return true
        }
        guard isNew else {
            Self.end(context)
            throw BlockError(.alreadyExists, "attempt to add duplicate property '\(id)' to object (type 'container')")
        }
    }

    /// - Throws: `.notFound`.
    func remove(_ id: String) throws(BlockError) {
        let (context, isUsed) = state.withLock { state in
            let context = state.threads.removeValue(forKey: id)
            return (context, state.uses.values.contains { $0 === context })
        }
        guard let context else { throw BlockError(.notFound, "object '\(id)' not found") }
        if !isUsed { Self.end(context) }
    }

    /// Keeps a thread running for an export, until `endUse`.
    /// - Throws: `.notFound`.
    func use(_ id: String, by export: String) throws(BlockError) -> IOContext {
        let context = state.withLock { state in
            let context = state.threads[id]
            state.uses[export] = context
            return context
        }
        guard let context else { throw BlockError(.notFound, "iothread \"\(id)\" not found") }
        return context
    }

    /// Called when an export is gone. Exports that use no thread are fine too.
    func endUse(by export: String) {
        let abandoned: IOContext? = state.withLock { state in
            guard let context = state.uses.removeValue(forKey: export) else { return nil }
            let isNeeded = state.threads.values.contains { $0 === context } || state.uses.values.contains { $0 === context }
            return isNeeded ? nil : context
        }
        if let abandoned { Self.end(abandoned) }
    }

    /// Ends every thread and waits for that. No export may be left.
    func stopAll() async {
        let contexts = state.withLock { state in
            let contexts = Array(state.threads.values)
            state = State()
            return contexts
        }
        for context in contexts { context.stop() }
        await BlockingPool.run { for context in contexts { context.join() } }
    }

    /// Ends a thread that nothing runs on any more; its resources are collected in the background.
    private static func end(_ context: IOContext) {
        context.stop()
        Task { await BlockingPool.run { context.join() } }
    }
}
