import IOCore
import StrataBase
import Synchronization

/// What `--salvage` does about sectors that cannot be read: they become zeroes, and each is reported.
final class Salvage: Sendable {
    private let isQuiet: Bool
    /// Positions whose block status has been complained about: it is asked for more than once.
    private let complained = Mutex<Set<Int>>([])

    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    func noteStatus(_ error: BlockError, at position: Int) {
        guard complained.withLock({ $0.insert(position).inserted }) else { return }
        warn("error while reading block status at offset \(position)", error)
    }

    /// Reads what can be read, a sector at a time.
    func read(_ data: IOVector, at position: Int, _ read: (IOVector, Int) async throws(BlockError) -> Void) async {
        for start in stride(from: 0, to: data.byteCount, by: ConvertSource.sectorSize) {
            let sector = data.slice(at: start, byteCount: min(ConvertSource.sectorSize, data.byteCount - start))
            do throws(BlockError) {
                try await read(sector, position + start)
            } catch {
                sector.zero()
                warn("error while reading offset \(position + start)", error)
            }
        }
    }

    private func warn(_ what: String, _ error: BlockError) {
        if !isQuiet { StandardStreams.warn("\(what): \(BlockError.text(ofErrno: error.errno))") }
    }
}
