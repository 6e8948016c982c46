import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// The first cluster of an image taken apart, so that it can be put together again with something else in it. What is not known is kept.
struct HeaderCluster {
    private var header: QCOW2Header
    /// Fields of a longer header than ours.
    private var unknownFields: [UInt8]
    private var extensions: [(type: UInt32, data: [UInt8])]
    private let backingName: [UInt8]
    /// Where the part of the cluster ends that says something. Bytes.
    let usedBytes: Int

    /// - Parameter header: the valid one in `bytes`.
    init(_ bytes: [UInt8], _ header: QCOW2Header) {
        self.header = header
        let start = Int(header.headerLength)
        let known = min(start, header.encodedSize)
        unknownFields = Array(bytes[known..<start])
        let nameStart = Int(header.backingNameOffset)
        let areaEnd = min(nameStart != 0 ? nameStart : bytes.count, bytes.count)
        extensions = QCOW2Driver.rawExtensions(bytes, from: start, to: areaEnd).map { ($0.type, Array($0.data)) }
        let nameEnd = nameStart != 0 ? min(nameStart + Int(header.backingNameSize), bytes.count) : 0
        backingName = nameStart != 0 && nameStart < nameEnd ? Array(bytes[nameStart..<nameEnd]) : []
        usedBytes = max(nameEnd, start + extensions.reduce(8) { $0 + 8 + $1.data.count.roundedUp(to: 8) })
    }

    mutating func upgrade() {
        header.version = 3
        header.refcountOrder = 4
        extensions.append((HeaderExtensions.Kind.featureNames, FeatureName.standardTable.flatMap { $0.encoded() }))
    }

    mutating func downgrade() {
        header.version = 2
        unknownFields = []
        extensions.removeAll { $0.type == HeaderExtensions.Kind.featureNames || $0.type == HeaderExtensions.Kind.bitmaps }
    }

    mutating func setDataFile(_ name: String) {
        extensions.removeAll { $0.type == HeaderExtensions.Kind.externalDataFile }
        if !name.isEmpty { extensions.insert((HeaderExtensions.Kind.externalDataFile, Array(name.utf8)), at: 0) }
    }

    /// One cluster. The table of feature names, which is for people, goes if there is no room for it or it would leave none for bitmaps.
    func encoded(clusterSize: Int) throws(BlockError) -> [UInt8] {
        for keepsNames in [true, false] {
            var area: [UInt8] = []
            func append(_ type: UInt32, _ data: [UInt8]) {
                let position = area.count
                area += [UInt8](repeating: 0, count: 8)
                area.setBigEndian(type, at: position)
                area.setBigEndian(UInt32(truncatingIfNeeded: data.count), at: position + 4)
                area += data
                while area.count % 8 != 0 { area.append(0) }
            }
            for (type, data) in extensions where keepsNames || type != HeaderExtensions.Kind.featureNames { append(type, data) }
            append(HeaderExtensions.Kind.end, [])
            var header = header
            let start = header.encodedSize + unknownFields.count
            let reserve = keepsNames ? 8 + BitmapsExtension.encodedSize : 0
            guard start + area.count + reserve + backingName.count <= clusterSize else { continue }
            if !backingName.isEmpty {
                header.backingNameOffset = UInt64(start + area.count)
                header.backingNameSize = UInt32(backingName.count)
            }
            var bytes = header.encoded() + unknownFields + area + backingName
            if header.version >= 3 { bytes.setBigEndian(UInt32(start), at: QCOW2Header.Field.headerLength) }
            return bytes + [UInt8](repeating: 0, count: clusterSize - bytes.count)
        }
        throw BlockError(.invalidArgument, "There is no room for this in the header's cluster of \(clusterSize) bytes")
    }
}

extension QCOW2Driver {
    /// Changes the header cluster and reads the image anew.
    ///
    /// Where all that the old header says lies in the first sector, the rest goes first, and the write of the first sector changes everything at once.
    func rewriteHeader(_ change: (inout HeaderCluster) -> Void) async throws(BlockError) {
        try await settleIfWritten()
        let header = try await Self.readHeader(of: file).header
        let old = IOBuffer(byteCount: min(file.length, geometry.clusterSize))
        defer { withExtendedLifetime(old) {} }
        try await file.read(old.vector, at: GuestOffset(0))
        var cluster = HeaderCluster(old.copyToArray(), header)
        change(&cluster)
        let new = IOBuffer(copying: try cluster.encoded(clusterSize: geometry.clusterSize))
        defer { withExtendedLifetime(new) {} }
        let sector = 512
        do throws(BlockError) {
            if new.byteCount > sector, cluster.usedBytes <= sector {
                try await file.write(new.vector(at: sector, byteCount: new.byteCount - sector), at: GuestOffset(sector))
                try await file.flush()
                try await file.write(new.vector(at: 0, byteCount: sector), at: GuestOffset(0))
            } else {
                try await file.write(new.vector, at: GuestOffset(0))
            }
            try await file.flush()
        } catch {
            // Whatever reached the disk, the old one is put back, before anything is written that relies on it.
            do {
                try await file.write(old.vector, at: GuestOffset(0))
                try await file.flush()
            } catch { state.withLock { $0.isCorrupt = true } }
            throw error.during("updating the qcow2 header")
        }
        try await reload()
    }
}
