package import BlockGraph
import IOCore
import StorageSchema
package import StrataBase
import Synchronization

// Writable when somebody writes, locks that follow, and options that change.
//
// Whatever changes (what the parents do, or the options), the way is the same: the locks that will be needed are taken in addition to those that
// are held, and others asked whether they object; a file that has to be opened in another way is opened beside the old one and gets a copy of the
// locks; commit exchanges the two and gives up what is not needed any more. At every moment one of them holds all locks that matter.

extension FileDriver {
    package func obstacleToWriting() async -> BlockError? {
        let configuration = candidate ?? configuration
        if configuration.isReadOnly { return BlockError(.readOnly, "'\(path)' is used read-only") }
        if file.options.writable { return nil }
        do throws(BlockError) {
            _ = try await reopened(configuration, writable: true)
            return nil
        } catch { return error }
    }

    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        let wanted = candidate ?? configuration
        let isWritable = wanted.wantsWritable(for: grant.used)
        var next = file
        if wanted.openOptions(writable: isWritable) != file.options || wanted.mode != file.mode || wanted.maxBatch != file.maxBatch {
            do throws(BlockError) {
                next = try await reopened(wanted, writable: isWritable)
            } catch {
                // Nobody is stopped from leaving because a file can no longer be opened for reading only: it is kept as it is.
                if isWritable || candidate != nil { throw error }
            }
        }
        try Self.limits(of: next).check(grant, length: length)
        let locks = wanted.locks(for: grant)
        try file.acquireLocks(
            used: locks.used, unshared: locks.unshared, previouslyUsed: held.used, previouslyUnshared: held.unshared, required: wanted.requiresLocks)
        if next !== file {
            do throws(BlockError) {
                try next.copyLocks(used: locks.used, unshared: locks.unshared, required: wanted.requiresLocks)
            } catch {
                if !next.sharesLocks(with: file) { next.release(locks) }
                file.release(locks.subtracting(held))
                throw error
            }
        }
        prepared = PreparedAccess(file: next, locks: locks)
    }

    private func reopened(_ configuration: Configuration, writable: Bool) async throws(BlockError) -> HostFile {
        let (current, request) = (file, configuration.openOptions(writable: writable))
        let (mode, maxBatch) = (configuration.mode, configuration.maxBatch)
        let result = await BlockingPool.run { () -> Result<HostFile, BlockError> in
            do throws(BlockError) { return .success(try current.reopened(request, mode: mode, maxBatch: maxBatch)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    package func commitPermissions() async {
        guard let change = prepared else { return }
        prepared = nil
        // Explicitly, because a member of a descriptor set stays open without us.
        file.release(change.file.sharesLocks(with: file) ? held.subtracting(change.locks) : held.union(change.locks))
        if change.file !== file {
            Trace.fileReopen(path: path, writable: change.file.options.writable)
            file = change.file
            limits = Self.limits(of: file)
        }
        held = change.locks
    }

    package func abortPermissions() async {
        guard let change = prepared else { return }
        prepared = nil
        if !change.file.sharesLocks(with: file) { change.file.release(change.locks) }
        file.release(change.locks.subtracting(held))
    }
}

extension FileDriver: Reopening {
    package static let changeableOptions: Set<String> = ["aio", "aio-max-batch", "locking", "drop-cache", "x-check-cache-dropped"]

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard let own = Self.ownOptions(request.options) else { throw BlockError(.invalidArgument, "options of another driver were given to '\(path)'") }
        candidate = try Configuration(own, request.nodeOptions)
    }

    /// The file itself was made ready by `preparePermissions`, which looks at the candidate.
    package func commitReopen() async {
        guard let new = candidate else { return }
        candidate = nil
        configuration = new
        await commitPermissions()
    }

    package func abortReopen() async { candidate = nil }
}

extension FileDriver: Activating {
    package func inactivate() async throws(BlockError) { try await file.flush() }

    /// The size may be another one, and what the page cache has may be older than what another host has written to shared storage.
    package func activate() async throws(BlockError) {
        if configuration.dropsCache, !configuration.bypassesCache {
            // Dirty pages would stay.
            do throws(BlockError) { try await file.flush() } catch { throw error.during("Could not drop the cached pages of '\(path)'") }
            await file.dropCache()
            if configuration.checksCacheIsDropped, try await file.cachedPageCount() > 0 { throw BlockError(.io, "page cache still in use!") }
        }
        size.store(try file.status().size.roundedUp(to: Self.sector), ordering: .relaxed)
        knownData.withLock { $0 = 0..<0 }
    }
}
