import IOCore
package import StrataBase

/// Finds out the format of an image by looking at its first bytes.
///
/// A guest that writes to a raw disk can make it look like anything, so that a guess must never decide how an image is opened for writing
/// without the user being told; tools that probe say so.
package enum ImageProbe {
    /// Enough for every signature below, in bytes.
    private static let headerSize = 512

    /// The format of a file's content: the name of a driver of ours, `raw` for what nothing recognises.
    /// - Throws: when the file cannot be read, and for formats that are recognised but not supported: reading those as raw would be wrong.
    package static func format(ofFile path: String) async throws(BlockError) -> String {
        let file = try HostFile(opening: path)
        let buffer = IOBuffer(zeroed: headerSize)
        if !file.tryRead(buffer.vector, at: HostOffset(0)) { try await file.read(buffer.vector, at: HostOffset(0)) }
        return try buffer.withBytes { bytes throws(BlockError) in try format(of: bytes) }
    }

    static func format(of header: RawSpan) throws(BlockError) -> String {
        for (name, offset, signature) in signatures where matches(header, signature, at: offset) {
            if name == "qcow2" {
                // Version 1 is another format with the same signature.
                guard header.byteCount >= 8, header.checkedBigEndian(at: 4, as: UInt32.self) != 1 else { throw unsupported("qcow") }
                return name
            }
            throw unsupported(name)
        }
        return "raw"
    }

    private static func unsupported(_ name: String) -> BlockError {
        BlockError(
            .unsupported, "The image looks like format '\(name)', which is not supported",
            hint: "Give the format 'raw' to use its bytes as they are.")
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
