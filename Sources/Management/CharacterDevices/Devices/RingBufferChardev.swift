package import ManagedObjects
import StrataBase
import Synchronization

/// Keeps the last bytes that were sent, for `ringbuf-read`.
package final class RingBufferChardev: CharacterDevice {
    package static let typeName = "chardev-ringbuf"
    package static let properties: [ObjectProperty<RingBufferChardev>] = []
    /// Bytes of a buffer whose size was not given.
    private static let defaultSize = 65536
    /// Bytes that one buffer may have at most.
    private static let sizeLimit = 1 << 30

    package let label: String
    package let slot: FrontendSlot
    package let filename = "ringbuf"
    private let size: Int
    private let contents = Mutex<Contents>(Contents())

    private struct Contents {
        var bytes: [UInt8] = []
        /// Bytes at the front that are read already; they go when they are most of the array.
        var start = 0
    }

    /// - Parameter size: bytes, a power of two.
    init(_ label: String, size: Int?, log: LogOptions) throws(BlockError) {
        let size = size ?? Self.defaultSize
        guard size > 0, size & (size - 1) == 0 else { throw BlockError(.invalidArgument, "size of ringbuf chardev must be power of two") }
        guard size <= Self.sizeLimit else { throw BlockError(.tooLarge, "size of ringbuf chardev must be at most \(Self.sizeLimit)") }
        self.label = label
        self.size = size
        slot = try FrontendSlot(log)
    }

    /// Any thread. The oldest bytes make room.
    package func write(_ bytes: some Collection<UInt8>) {
        contents.withLock { contents in
            contents.bytes += bytes.suffix(size)
            let excess = contents.bytes.count - contents.start - size
            if excess > 0 { contents.start += excess }
            if contents.start > contents.bytes.count / 2 {
                contents.bytes.removeFirst(contents.start)
                contents.start = 0
            }
        }
    }

    /// Takes up to `count` bytes out, the oldest first. Any thread.
    package func read(_ count: Int) -> [UInt8] {
        contents.withLock { contents in
            let taken = Array(contents.bytes[contents.start...].prefix(count))
            contents.start += taken.count
            if contents.start > contents.bytes.count / 2 {
                contents.bytes.removeFirst(contents.start)
                contents.start = 0
            }
            return taken
        }
    }

    package func start() { slot.open(SinkStream { [weak self] in self?.write($0) }) }
    package func shutDown() {}
}
