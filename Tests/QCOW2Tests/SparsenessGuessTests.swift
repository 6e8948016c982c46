@testable import QCOW2
import Testing

@Suite("whether map asks the file for holes")
struct SparsenessGuessTests {
    /// Observed: qemu-img 10.0.2's `map` of preallocated images of 64 KiB clusters, filled 4 KiB at a time.
    @Test("the file is asked as long as so much of it is missing as with qemu-img", arguments: [(7, 6), (10, 9), (15, 14), (35, 33), (65, 60)])
    func threshold(clusters: Int, enough: Int) {
        let (clusterSize, step) = (64 << 10, 4 << 10)
        #expect(!SparsenessGuess.isFar(clusters * clusterSize, above: enough * clusterSize, clusterSize: clusterSize))
        #expect(SparsenessGuess.isFar(clusters * clusterSize, above: enough * clusterSize - step, clusterSize: clusterSize))
    }
}
