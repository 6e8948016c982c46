import BlockGraph
import IOCore
import StrataBase
import Synchronization

// The header extension that says where the bitmap directory is. Source: docs/interop/qcow2, "Bitmaps extension".
//
// It changes by steps each of which is one write within a sector, or cannot be seen because the autoclear bit is off: a crash at any moment leaves
// a header that is valid, with the old directory, the new one, or none.

extension QCOW2Driver {
    /// Where an extension lies in the header cluster: its type and length are eight bytes at `position`, its data follow.
    private struct Place {
        let type: UInt32
        let position: Int
        let length: Int
        var end: Int { position + 8 + length.roundedUp(to: 8) }
    }

    /// Lets the header name another directory, or none. The directory is on disk already.
    func writeBitmapsExtension(_ extension: BitmapsExtension?) async throws(BlockError) {
        let header = try await Self.readHeader(of: file).header
        let buffer = IOBuffer(byteCount: min(file.length, geometry.clusterSize))
        try await file.read(buffer.vector, at: GuestOffset(0))
        let bytes = buffer.copyToArray()
        let start = Int(header.headerLength)
        let limit = header.backingNameOffset != 0 ? Int(header.backingNameOffset) : bytes.count
        let (places, end) = Self.extensionPlaces(bytes, from: start, to: min(limit, bytes.count))
        let present = places.first { $0.type == HeaderExtensions.Kind.bitmaps && $0.length == BitmapsExtension.encodedSize }
        switch (present, `extension`) {
        case (let place?, let new?):
            let data = place.position + 8
            if data / 512 != (data + BitmapsExtension.encodedSize - 1) / 512 { try await setBitmapsInForce(false) }
            try await write(new.encoded(), at: data)
            try await setBitmapsInForce(true)
        case (let place?, nil):
            try await setBitmapsInForce(false)
            // What follows moves up; a type of zero ends the area.
            let rest = Array(bytes[place.end..<end]) + [UInt8](repeating: 0, count: 8)
            try await write(rest, at: place.position)
        case (nil, let new?):
            try await makeRoom(40, behind: end, limit: limit, header, bytes)
            // The data and the new end first: until the old end becomes the extension's head, nobody sees them.
            try await write(new.encoded() + [UInt8](repeating: 0, count: 8), at: end + 8)
            var head = [UInt8](repeating: 0, count: 8)
            head.setBigEndian(HeaderExtensions.Kind.bitmaps, at: 0)
            head.setBigEndian(UInt32(BitmapsExtension.encodedSize), at: 4)
            try await write(head, at: end)
            try await setBitmapsInForce(true)
        case (nil, nil): break
        }
    }

    /// Says in the header whether the directory can be believed.
    private func setBitmapsInForce(_ isInForce: Bool) async throws(BlockError) {
        if bitmapStore.content.withLock({ $0.isInForce == isInForce && !$0.isInDoubt }) { return }
        let others = maintainedAutoclear.subtracting(.bitmaps)
        try await writeHeaderBytes(at: QCOW2Header.Field.autoclear, (isInForce ? others.union(.bitmaps) : others).rawValue)
        try await file.flush()
        bitmapStore.content.withLock { $0.isInForce = isInForce }
    }

    /// Makes sure that `byteCount` bytes from `end` on are free in the header cluster: the backing file's name may have to move.
    private func makeRoom(_ byteCount: Int, behind end: Int, limit: Int, _ header: QCOW2Header, _ bytes: [UInt8]) async throws(BlockError) {
        if end + byteCount <= limit { return }
        let size = Int(header.backingNameSize)
        let oldEnd = limit + size
        // Clear of where it is now, so that there is always one whole name.
        let place = max(oldEnd, end + byteCount).roundedUp(to: 8)
        guard header.backingNameOffset != 0, place + size <= bytes.count else {
            throw BlockError(.noSpace, "There is no room for bitmaps in the header's cluster")
        }
        try await write(Array(bytes[limit..<oldEnd]), at: place)
        try await writeHeaderBytes(at: 8, UInt64(place))
        try await file.flush()
    }

    private func write(_ bytes: [UInt8], at position: Int) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(buffer) {} }
        do throws(BlockError) {
            try await file.write(buffer.vector, at: GuestOffset(position))
            try await file.flush()
        } catch { throw error.during("updating the qcow2 header") }
    }

    private static func extensionPlaces(_ bytes: [UInt8], from start: Int, to limit: Int) -> (places: [Place], end: Int) {
        func word(_ position: Int) -> UInt32 { bytes[position..<position + 4].reduce(0) { $0 << 8 | UInt32($1) } }
        var places: [Place] = []
        var position = start
        while limit - position >= 8 {
            let place = Place(type: word(position), position: position, length: Int(word(position + 4)))
            if place.type == HeaderExtensions.Kind.end || place.end > limit { break }
            places.append(place)
            position = place.end
        }
        return (places, position)
    }
}

extension BitmapsExtension {
    init(count: Int, directorySize: Int, directoryOffset: Int) {
        self.count = UInt32(count)
        self.directorySize = UInt64(directorySize)
        self.directoryOffset = UInt64(directoryOffset)
    }

    /// The extension's data as they go to disk.
    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.encodedSize)
        bytes.setBigEndian(count, at: 0)
        bytes.setBigEndian(directorySize, at: 8)
        bytes.setBigEndian(directoryOffset, at: 16)
        return bytes
    }
}
