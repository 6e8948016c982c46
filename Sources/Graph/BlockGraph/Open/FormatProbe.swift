import IOCore
package import StrataBase

/// Finds out the format of an image by its first bytes.
///
/// A guest that writes to a raw disk can make it look like anything, so that a guess must never decide how an image is opened for writing
/// without the user being told; tools that probe say so, and `ProbedRawGuard` keeps the guess true.
package enum FormatProbe {
    /// Enough for every signature below, in bytes.
    package static let headerSize = 512

    /// The name of a driver of ours, `raw` for what nothing recognises.
    /// - Throws: for formats that are recognised but not supported: reading those as raw would be wrong.
    package static func format(of header: RawSpan) throws(BlockError) -> String {
        guard let name = signature(of: header) else { return "raw" }
        // Version 2 of LUKS is another format.
        guard supported.contains(name), name != "luks" || header.checkedBigEndian(at: 6, as: UInt16.self) == 1 else {
            throw BlockError(
                .unsupported, "The image looks like format '\(name)', which is not supported", hint: "Give the format 'raw' to use its bytes as they are.")
        }
        return name
    }

    private static let supported: Set = ["luks", "qcow2", "vdi", "vhdx", "vmdk", "vpc"]

    /// The format whose signature the bytes bear, supported or not; nil for none.
    static func signature(of header: RawSpan) -> String? {
        for (name, offset, signature) in signatures where matches(header, signature, at: offset) {
            // Version 1 is another format with the same signature.
            if name == "qcow2", header.byteCount < 8 || header.checkedBigEndian(at: 4, as: UInt32.self) == 1 { return "qcow" }
            return name
        }
        return nil
    }

    private static let signatures: [(name: String, offset: Int, signature: [UInt8])] = [
        ("qcow2", 0, [0x51, 0x46, 0x49, 0xfb]),
        ("vmdk", 0, Array("KDMV".utf8)), ("vmdk", 0, Array("COWD".utf8)), ("vmdk", 0, Array("# Disk DescriptorFile".utf8)),
        ("vhdx", 0, Array("vhdxfile".utf8)), ("vpc", 0, Array("conectix".utf8)),
        ("vdi", 0x40, [0x7f, 0x10, 0xda, 0xbe]),
        ("qed", 0, [0x51, 0x45, 0x44, 0x00]),
        ("luks", 0, [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]),
        ("parallels", 0, Array("WithoutFreeSpace".utf8)), ("parallels", 0, Array("WithouFreSpacExt".utf8)),
    ]

    private static func matches(_ header: RawSpan, _ signature: [UInt8], at offset: Int) -> Bool {
        guard offset + signature.count <= header.byteCount else { return false }
        return signature.indices.allSatisfy { header.checkedBigEndian(at: offset + $0, as: UInt8.self) == signature[$0] }
    }
}

/// Keeps a guess true: a raw image whose format nobody has named must not be made to look like another format from inside, because whoever
/// guesses next would take it for that, and would open what it says.
///
/// Writes to the first bytes come one after the other (`BlockNode.probedHeader`): several that are harmless by themselves could make a signature together.
enum ProbedRawGuard {
    /// Whether a write from `offset` on has to be looked at.
    static func concerns(_ node: BlockNode, _ offset: GuestOffset) -> Bool { node.options.isProbedRaw && offset.rawValue < FormatProbe.headerSize }

    /// As `check`, for zeroes.
    static func checkZeroes(_ node: BlockNode, _ range: GuestRange) async throws(BlockError) {
        let zeroes = IOBuffer(zeroed: min(range.byteCount, FormatProbe.headerSize))
        defer { withExtendedLifetime(zeroes) {} }
        try await check(node, zeroes.vector, at: range.start)
    }

    /// - Throws: `.accessDenied` for a write after which the image would look like something else.
    static func check(_ node: BlockNode, _ source: IOVector, at offset: GuestOffset) async throws(BlockError) {
        let size = FormatProbe.headerSize
        let start = offset.rawValue
        let header = IOBuffer(zeroed: size)
        defer { withExtendedLifetime(header) {} }
        let written = min(source.byteCount, size - start)
        if written < size, node.length > 0 { try await ReadPipeline.read(node, header.vector(at: 0, byteCount: min(size, node.length)), at: GuestOffset(0), flags: []) }
        header.vector(at: start, byteCount: written).copy(from: source.slice(at: 0, byteCount: written))
        guard let format = header.withBytes({ FormatProbe.signature(of: $0) }) else { return }
        throw BlockError(
            .system(1), "Operation not permitted", hint: "The write would make a raw image look like format '\(format)'. Name the format 'raw' to allow it.")
    }
}
