import IOCore
import StrataBase

/// The memory of one request: one buffer, or several that are filled one after the other.
final class TransferBuffer: Sendable {
    /// `--misalign` moves buffers so far from where direct I/O would like them.
    static let misalignment = 16

    private let buffer: IOBuffer
    let vector: IOVector

    /// - Parameter lengths: of the pieces, in bytes.
    init(_ lengths: [Int], isMisaligned: Bool, filledWith byte: UInt8) {
        let byteCount = lengths.reduce(0, +)
        let start = isMisaligned ? Self.misalignment : 0
        buffer = IOBuffer(byteCount: byteCount + start)
        vector = buffer.vector(at: start, byteCount: byteCount)
        vector.fill(with: byte)
    }

    var byteCount: Int { vector.byteCount }

    /// Whether the range holds `byte` and nothing else.
    func holds(_ byte: UInt8, at start: Int, byteCount: Int) -> Bool {
        let expected = IOBuffer(byteCount: min(max(byteCount, 1), 1 << 20))
        defer { withExtendedLifetime((buffer, expected)) {} }
        expected.vector.fill(with: byte)
        var done = 0
        while done < byteCount {
            let count = min(expected.byteCount, byteCount - done)
            let piece = vector.slice(at: start + done, byteCount: count)
            if piece.firstDifference(from: expected.vector(at: 0, byteCount: count)) != nil { return false }
            done += count
        }
        return true
    }

    /// The first bytes of a file, so many or all that it has: what a buffer is to be filled with.
    /// - Throws: a failure that names the file; for one that is empty too.
    static func pattern(inFile path: String, atMost byteCount: Int) throws(CommandFailure) -> [UInt8] {
        let contents: [UInt8]
        do throws(BlockError) {
            contents = try SmallFile.beginning(of: path, byteCount: max(byteCount, 1))
        } catch {
            throw .complained("\(path): \(BlockError.text(ofErrno: error.errno))")
        }
        if contents.isEmpty { throw .complained("\(path): file is empty") }
        return contents
    }

    /// Fills the buffer with these bytes, again and again. There is at least one.
    func fill(with contents: [UInt8]) {
        defer { withExtendedLifetime(buffer) {} }
        var done = 0
        while done < byteCount {
            let count = min(contents.count, byteCount - done)
            vector.slice(at: done, byteCount: count).copyIn(contents, from: 0)
            done += count
        }
    }
}
