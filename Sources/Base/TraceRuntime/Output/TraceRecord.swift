import Synchronization

/// Writes one event into the buffer of records: its number, when and by which thread, and its values. Text is made of it later, by the writer's
/// thread.
package struct TraceRecordWriter: ~Copyable {
    /// Longer strings are cut: a record must fit anywhere.
    static let longestString = 4096  // bytes
    static let headerSize = 16

    var bytes: [UInt8]

    init(appendingTo bytes: consuming [UInt8]) { self.bytes = bytes }

    mutating func begin(_ event: TraceEvent, nanoseconds: Int64, thread: Int32) {
        integer(event.number.load(ordering: .relaxed))
        integer(UInt32(bitPattern: thread))
        integer(UInt64(bitPattern: nanoseconds))
    }

    package mutating func add(_ value: some BinaryInteger) { integer(UInt64(truncatingIfNeeded: value)) }
    package mutating func add(_ value: Bool) { integer(value ? 1 : 0 as UInt64) }
    package mutating func add(_ value: AnyObject) { integer(UInt64(UInt(bitPattern: ObjectIdentifier(value)))) }
    package mutating func add(_ value: String) {
        let utf8 = value.utf8.prefix(Self.longestString)
        integer(UInt32(utf8.count))
        bytes.append(contentsOf: utf8)
    }

    private mutating func integer(_ value: some FixedWidthInteger) {
        var rest = value
        for _ in 0..<(value.bitWidth / 8) {
            bytes.append(UInt8(truncatingIfNeeded: rest))
            rest >>= 8
        }
    }
}

/// One event as it was recorded.
struct TraceRecord {
    enum Value: Hashable {
        case integer(UInt64)
        case string(String)
    }
    let event: TraceEvent
    /// Since the start of 1970, UTC.
    let nanoseconds: Int64
    let thread: Int32
    let values: [Value]

    /// Takes the record that begins at `position`, and moves behind it.
    /// - Precondition: `TraceRecordWriter` wrote the bytes.
    init(_ bytes: [UInt8], at position: inout Int, events: [TraceEvent]) {
        func integer<I: FixedWidthInteger>(_: I.Type) -> I {
            var value: I = 0
            for index in (0..<(I.bitWidth / 8)).reversed() { value = value << 8 | I(truncatingIfNeeded: bytes[position + index]) }
            position += I.bitWidth / 8
            return value
        }
        event = events[Int(integer(UInt32.self))]
        thread = Int32(bitPattern: integer(UInt32.self))
        nanoseconds = Int64(bitPattern: integer(UInt64.self))
        var values: [Value] = []
        for argument in event.arguments {
            guard argument.kind == .string else {
                values.append(.integer(integer(UInt64.self)))
                continue
            }
            let count = Int(integer(UInt32.self))
            values.append(.string(String(decoding: bytes[position..<position + count], as: UTF8.self)))
            position += count
        }
        self.values = values
    }

    init(event: TraceEvent, nanoseconds: Int64, thread: Int32, values: [Value]) {
        self.event = event
        self.nanoseconds = nanoseconds
        self.thread = thread
        self.values = values
    }
}
