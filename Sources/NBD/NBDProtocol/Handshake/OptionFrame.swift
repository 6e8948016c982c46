package import StrataBase

/// The header before an option's payload. 16 bytes, big-endian: magic, option, payload length.
package struct OptionFrame: Hashable, Sendable {
    package static let encodedSize = 16

    package var option: NBDOption
    /// Payload bytes that follow; anything up to 2^32 - 1.
    package var payloadByteCount: Int

    /// - Throws: `.truncated`, or `.invalid` for a wrong magic, after which nothing that the peer sends can be understood.
    package init(decoding bytes: RawSpan) throws(DecodingFailure) {
        let magic = try bytes.bigEndian(at: 0, as: UInt64.self)
        guard magic == NBDMagic.option else { throw .invalid("option magic 0x\(String(magic, radix: 16))") }
        option = NBDOption(rawValue: try bytes.bigEndian(at: 8))
        payloadByteCount = Int(try bytes.bigEndian(at: 12, as: UInt32.self))
    }
}

/// The payload of INFO and GO: a name and the information that is wanted.
package struct ExportQuery: Hashable, Sendable {
    package var name: String
    package var requests: [NBDInfoType]

    /// - Throws: when a length field and the payload disagree, the name is too long or is not UTF-8.
    package init(decoding payload: RawSpan) throws(DecodingFailure) {
        var reader = PayloadReader(byteCount: payload.byteCount)
        name = try reader.string(payload, what: "export name")
        let count = Int(try reader.integer(payload, as: UInt16.self))
        guard reader.remaining == count * 2 else { throw .invalid("\(count) information requests do not take \(reader.remaining) bytes") }
        requests = []
        requests.reserveCapacity(count)
        for _ in 0..<count { requests.append(NBDInfoType(rawValue: try reader.integer(payload, as: UInt16.self))) }
    }
}

/// The payload of LIST_META_CONTEXT and SET_META_CONTEXT: a name and queries.
package struct MetaContextQuery: Hashable, Sendable {
    package var exportName: String
    package var queries: [String]

    /// - Throws: when a length field and the payload disagree, a string is too long or not UTF-8, or there are too many queries.
    package init(decoding payload: RawSpan) throws(DecodingFailure) {
        var reader = PayloadReader(byteCount: payload.byteCount)
        exportName = try reader.string(payload, what: "export name")
        let count = try reader.integer(payload, as: UInt32.self)
        guard count <= NBDLimit.metaContextQueryCount else { throw .invalid("\(count) context queries are more than we answer") }
        queries = []
        for _ in 0..<count { queries.append(try reader.string(payload, what: "context query")) }
        guard reader.remaining == 0 else { throw .invalid("\(reader.remaining) bytes follow the last context query") }
    }
}

/// Walks through a payload from front to back. Holds only positions, so that the bytes can stay a span of the caller's.
struct PayloadReader {
    private var position = 0
    private let end: Int

    init(byteCount: Int) { end = byteCount }

    var remaining: Int { end - position }

    mutating func integer<I: FixedWidthInteger & BitwiseCopyable>(_ bytes: RawSpan, as _: I.Type) throws(DecodingFailure) -> I {
        let value = try bytes.bigEndian(at: position, as: I.self)
        position += MemoryLayout<I>.size
        return value
    }

    /// A 32-bit length and that many bytes of UTF-8.
    mutating func string(_ bytes: RawSpan, what: String) throws(DecodingFailure) -> String {
        let count = Int(try integer(bytes, as: UInt32.self))
        guard count <= NBDLimit.stringByteCount else { throw .invalid("\(what) of \(count) bytes is longer than \(NBDLimit.stringByteCount)") }
        guard count <= remaining else { throw .truncated(needed: position + count, available: end) }
        let text = try String(wireBytes: bytes.extracting(position..<(position + count)), what: what)
        position += count
        return text
    }
}

extension String {
    /// Text from the wire. - Throws: when it is not UTF-8.
    init(wireBytes bytes: RawSpan, what: String) throws(DecodingFailure) {
        var units: [UInt8] = []
        units.reserveCapacity(bytes.byteCount)
        for index in 0..<bytes.byteCount { units.append(bytes.checkedBigEndian(at: index)) }
        guard let text = String(validating: units, as: UTF8.self) else { throw .invalid("\(what) is not UTF-8") }
        self = text
    }
}
