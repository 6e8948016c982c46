import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Makes clusters free whose last mapping is off the disk and that no request can reach any more. Under `commits`.
    func reclaim() async throws(BlockError) {
        while true {
            let runs = state.withLock { state -> [FreedRun] in
                inFlight.advance(&state.epoch)
                guard let first = state.frees.settling.first, inFlight.isOver(first.epoch, currentEpoch: state.epoch) else { return [] }
                state.frees.settling.removeFirst()
                return first.runs
            }
            if runs.isEmpty { return }
            for (number, run) in runs.enumerated() {
                var left = run
                do { try await free(&left) } catch {
                    // What is left stays allocated until the next commit.
                    let rest = [left] + runs[(number + 1)...]
                    state.withLock { $0.frees.settling.insert(($0.epoch - 2, rest), at: 0) }
                    throw error
                }
            }
        }
    }

    /// Frees a run; `run` is what is left of it, also when an error is thrown.
    private func free(_ run: inout FreedRun) async throws(BlockError) {
        file.reached(.clusterFree)
        while run.clusterCount > 0 {
            guard run.isPunched else {
                try await lower(&run, run.clusterCount)
                return
            }
            // Punch while the refcount still keeps everybody else away, and only what nobody shares.
            let first = run.start.rawValue >> geometry.clusterBits
            let limit = run.clusterCount
            let exclusive = try await step { state throws(Obstacle) in
                var count = 0
                while count < limit, !state.metadataClusters.contains(first + count),
                    try state.refcounts.refcount(ofCluster: first + count) == 1
                { count += 1 }
                return count
            }
            if exclusive > 0 {
                do { try await file.discard(GuestRange(run.start.asGuest, byteCount: exclusive << geometry.clusterBits)) } catch {
                    // Giving space back is a service, not a promise.
                }
            }
            try await lower(&run, max(exclusive, 1))
        }
    }

    /// Lowers refcounts at the start of a run and takes those clusters off it.
    private func lower(_ run: inout FreedRun, _ count: Int) async throws(BlockError) {
        var left = count
        while left > 0 {
            let first = run.start.rawValue >> geometry.clusterBits
            let wanted = left
            let (done, found) = try await step { state throws(Obstacle) -> (Int, Contradiction?) in
                for next in 0..<wanted {
                    // What the image's tables lie in is not free, whatever else refers to it.
                    if let kind = state.metadataClusters.value(for: first + next), kind & MetadataKind.tracked.rawValue != 0 {
                        return (next + 1, .overlapsMetadata(HostOffset((first + next) << geometry.clusterBits), MetadataKind(rawValue: kind)))
                    }
                    do throws(Obstacle) { _ = try state.refcounts.lower(first + next) } catch {
                        // Nobody is helped by trying again what cannot be right.
                        if case .corrupt(let contradiction) = error { return (next + 1, contradiction) }
                        if next == 0 { throw error }
                        return (next, nil)
                    }
                }
                return (wanted, nil)
            }
            Trace.qcow2Free(file: file.node.name, host: run.start.rawValue, clusters: done)
            if let found { _ = await signalCorruption(found) }
            run.start += done << geometry.clusterBits
            run.clusterCount -= done
            left -= done
        }
    }
}
