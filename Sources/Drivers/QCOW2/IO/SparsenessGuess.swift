import BlockGraph
import StrataBase
import Synchronization

/// Whether it is worth asking the file below if clusters that the tables call data are holes.
///
/// They are where only the tables were made in advance (`preallocation=metadata`), and then the file is far longer than what it takes on disk.
/// Elsewhere the question costs a system call for every answer and finds little more than the unused ends of clusters. QEMU decides the same way,
/// and scripts compare what `map` says.
final class SparsenessGuess: Sendable {
    private enum Answer: UInt8 { case unknown, no, yes }
    private let answer = Atomic<UInt8>(Answer.unknown.rawValue)

    /// Found out once: an image is made in advance when it is made. A wrong "no" hides no data, a wrong "yes" costs time.
    func isSparse(_ file: BlockChild, clusterSize: Int) -> Bool {
        switch Answer(rawValue: answer.load(ordering: .relaxed)) {
        case .yes: return true
        case .no: return false
        case .unknown, nil:
            let isSparse = Self.look(at: file, clusterSize: clusterSize)
            answer.store((isSparse ? Answer.yes : .no).rawValue, ordering: .relaxed)
            return isSparse
        }
    }

    private static func look(at file: BlockChild, clusterSize: Int) -> Bool {
        guard let reporting = file.node.driver as? any SpaceReporting, let allocated = reporting.allocatedByteCount else { return false }
        return isFar(file.length, above: allocated, clusterSize: clusterSize)
    }

    /// Some clusters are always missing: those that are free, and what was never written at the end of one.
    static func isFar(_ length: Int, above allocated: Int, clusterSize: Int) -> Bool {
        let (there, stored) = (length.dividedRoundingUp(by: clusterSize), allocated / clusterSize)
        return there >= max(stored + stored / 9, stored + 2)
    }
}
