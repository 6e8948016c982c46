import BlockGraph
import IOCore
package import StrataBase
import Synchronization

extension QCOW2Driver: BackingFileNaming {
    /// Writes another backing file name and format into the header. One write of the header cluster, so that a crash leaves the old or the new.
    /// - Parameter name: nil takes the name out.
    /// - Throws: `.invalidArgument` when the name does not fit behind the header extensions.
    package func changeBackingFile(to name: String?, format: String?) async throws(BlockError) {
        try await prepareForWriting()
        try await flush()
        let header = try await Self.readHeader(of: file).header
        let old = IOBuffer(byteCount: min(file.length, geometry.clusterSize))
        defer { withExtendedLifetime(old) {} }
        try await file.read(old.vector, at: GuestOffset(0))
        let bytes = try Self.header(old.copyToArray(), header, withBacking: name, format: format, clusterSize: geometry.clusterSize)
        let new = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(new) {} }
        do throws(BlockError) {
            try await file.write(new.vector, at: GuestOffset(0))
            try await file.flush()
        } catch { throw error.during("updating the qcow2 header") }
        storedBacking.withLock { $0 = (name, name == nil ? nil : format) }
    }

    /// The header cluster with another backing file. Extensions that are not about it stay as they are, known or not; only the table of feature
    /// names, which is for people, goes if there is no room.
    static func header(_ old: [UInt8], _ header: QCOW2Header, withBacking name: String?, format: String?, clusterSize: Int) throws(BlockError) -> [UInt8] {
        let text = Array((name ?? "").utf8)
        guard text.isEmpty == (name == nil), text.count <= ValidatedHeader.maximumBackingNameSize, !text.contains(0) else {
            throw BlockError(.invalidArgument, "Backing file name too long: \(text.count) bytes")
        }
        let start = Int(header.headerLength)
        let end = header.backingNameOffset != 0 ? Int(header.backingNameOffset) : old.count
        let extensions = rawExtensions(old, from: start, to: min(end, old.count)).filter { $0.type != HeaderExtensions.Kind.backingFormat }

        for keepsNames in [true, false] {
            var area: [UInt8] = []
            func append(_ type: UInt32, _ data: some Collection<UInt8>) {
                let position = area.count
                area += [UInt8](repeating: 0, count: 8)
                area.setBigEndian(type, at: position)
                area.setBigEndian(UInt32(truncatingIfNeeded: data.count), at: position + 4)
                area += data
                while area.count % 8 != 0 { area.append(0) }
            }
            if let format, name != nil { append(HeaderExtensions.Kind.backingFormat, format.utf8) }
            for (type, data) in extensions where keepsNames || type != HeaderExtensions.Kind.featureNames { append(type, data) }
            append(HeaderExtensions.Kind.end, EmptyCollection())
            let offset = start + area.count
            guard offset + text.count <= clusterSize else { continue }
            var bytes = Array(old[..<start]) + area + text
            bytes.setBigEndian(name == nil ? UInt64(0) : UInt64(offset), at: 8)
            bytes.setBigEndian(UInt32(text.count), at: 16)
            // What was longer before leaves nothing behind.
            if bytes.count < old.count { bytes += [UInt8](repeating: 0, count: old.count - bytes.count) }
            return bytes
        }
        throw BlockError(.invalidArgument, "Backing file name too long: \(text.count) bytes do not fit into the header's cluster")
    }

    /// The header extensions in `bytes`, undecoded.
    static func rawExtensions(_ bytes: [UInt8], from start: Int, to end: Int) -> [(type: UInt32, data: ArraySlice<UInt8>)] {
        func word(_ position: Int) -> UInt32 { bytes[position..<position + 4].reduce(0) { $0 << 8 | UInt32($1) } }
        var found: [(type: UInt32, data: ArraySlice<UInt8>)] = []
        var position = start
        while end - position >= 8 {
            let (type, length) = (word(position), Int(word(position + 4)))
            if type == HeaderExtensions.Kind.end || length > end - position - 8 { break }
            found.append((type, bytes[position + 8..<position + 8 + length]))
            position += 8 + length.roundedUp(to: 8)
        }
        return found
    }
}
