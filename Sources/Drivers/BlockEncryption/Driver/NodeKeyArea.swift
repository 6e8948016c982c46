package import BlockGraph
import IOCore
package import StrataBase

/// A LUKS header in a node.
package struct NodeKeyArea: KeyArea {
    private let file: BlockChild
    private let start: HostOffset

    package init(_ file: BlockChild, at start: HostOffset = HostOffset(0)) {
        self.file = file
        self.start = start
    }

    package func read(at offset: Int, byteCount: Int) async throws(BlockError) -> [UInt8] {
        let buffer = IOBuffer(byteCount: byteCount)
        defer { withExtendedLifetime(buffer) {} }
        do throws(BlockError) { try await file.read(buffer.vector, at: (start + offset).asGuest) } catch {
            throw error.during("Unable to read encryption header")
        }
        return buffer.copyToArray()
    }

    package func write(_ bytes: [UInt8], at offset: Int) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(buffer) {} }
        do throws(BlockError) { try await file.write(buffer.vector, at: (start + offset).asGuest) } catch {
            throw error.during("Unable to write encryption header")
        }
    }

    package func flush() async throws(BlockError) { try await file.flush() }
}
