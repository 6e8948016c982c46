import BlockGraph
import IOCore
import StorageSchema
import StrataBase

/// Where a run of guest bytes is.
enum MappedPlace: Hashable {
    /// In the file, byte for byte, from this offset on.
    case data(HostOffset)
    /// Inside a compressed grain that begins there; a run never leaves its grain.
    case compressed(HostOffset)
    /// Nowhere: zeroes, because the image says so.
    case zero
    /// Nowhere, because nobody has written there; reads as zeroes.
    case unallocated
}

/// A run of guest bytes.
struct MappedRun: Hashable {
    var byteCount: Int
    var place: MappedPlace

    /// Takes in what follows, if that is of the same kind and lies next to it.
    mutating func absorb(_ next: MappedRun) -> Bool {
        switch (place, next.place) {
        case (.data(let here), .data(let there)): if there != here + byteCount { return false }
        case (.zero, .zero), (.unallocated, .unallocated): break
        default: return false
        }
        byteCount += next.byteCount
        return true
    }
}

/// A format that keeps a disk in blocks of its file, and that we only read. A driver says where a block is; reading and reporting are here.
protocol MappedImage: ImageDescribing, Reopening {
    var file: BlockChild { get }
    /// The tables, which `run` looks things up in.
    var tables: MetadataCache { get }
    /// Where the bytes at `offset` are: a run of at least 1 and at most `limit` bytes, in one block. The offset lies inside the disk. No I/O.
    func run(at offset: GuestOffset, limit: Int) throws(MappingObstacle) -> MappedRun
    /// Reads a part of a compressed grain. - Parameter place: of the grain.
    func readCompressed(_ target: IOVector, at offset: GuestOffset, in place: HostOffset) async throws(BlockError)
    /// The same for a grain that is in memory; false when it is not.
    func tryReadCompressed(_ target: IOVector, at offset: GuestOffset, in place: HostOffset) -> Bool
}

extension MappedImage {
    package static var kind: DriverKind { .format }
    package static var isReadOnly: Bool { true }
    package var children: [BlockChild] { [file] }

    func readCompressed(_ target: IOVector, at offset: GuestOffset, in place: HostOffset) async throws(BlockError) {
        preconditionFailure("only a format with compressed grains has runs in them")
    }

    func tryReadCompressed(_ target: IOVector, at offset: GuestOffset, in place: HostOffset) -> Bool { false }

    /// As `run`, with the blocks that follow in the file as in the disk, as far as their entries are in memory.
    private func longRun(at offset: GuestOffset, limit: Int) throws(MappingObstacle) -> MappedRun {
        var whole = try run(at: offset, limit: limit)
        while whole.byteCount < limit {
            do {
                if !whole.absorb(try run(at: offset + whole.byteCount, limit: limit - whole.byteCount)) { break }
            } catch {
                break  // what is wrong there is reported when its turn comes
            }
        }
        return whole
    }

    func findRun(at offset: GuestOffset, limit: Int) async throws(BlockError) -> MappedRun {
        while true {
            do {
                return try longRun(at: offset, limit: limit)
            } catch {
                switch error {
                case .page(let page): try await tables.load(page)
                case .damage(let damage): throw damage
                }
            }
        }
    }

    func tryFindRun(at offset: GuestOffset, limit: Int) -> MappedRun? {
        while true {
            do {
                return try longRun(at: offset, limit: limit)
            } catch {
                guard case .page(let page) = error, tables.tryLoad(page) else { return nil }
            }
        }
    }

    // MARK: Reading

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        if file.observesFaultPoints { return false }
        var done = 0
        while done < target.byteCount {
            guard let run = tryFindRun(at: offset + done, limit: target.byteCount - done) else { return false }
            let part = target.slice(at: done, byteCount: run.byteCount)
            switch run.place {
            case .data(let host): if !file.tryRead(part, at: host.asGuest) { return false }
            case .compressed(let grain): if !tryReadCompressed(part, at: offset + done, in: grain) { return false }
            case .zero, .unallocated: part.zero()
            }
            done += run.byteCount
        }
        return true
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        var done = 0
        while done < target.byteCount {
            let run = try await findRun(at: offset + done, limit: target.byteCount - done)
            let part = target.slice(at: done, byteCount: run.byteCount)
            switch run.place {
            case .data(let host):
                try requireInFile(host, byteCount: run.byteCount, for: offset + done)
                file.reached(.readAio)
                try await file.read(part, at: host.asGuest)
            case .compressed(let grain):
                file.reached(.readCompressed)
                try await readCompressed(part, at: offset + done, in: grain)
            case .zero, .unallocated: part.zero()
            }
            done += run.byteCount
        }
    }

    /// - Throws: when the file ends before the data, up to its last sector, does: zeroes would not be what was stored there.
    private func requireInFile(_ host: HostOffset, byteCount: Int, for offset: GuestOffset) throws(BlockError) {
        guard host.rawValue + byteCount - 512 < file.length else {
            throw BlockError(
                .corruptImage, "\(Self.formatName): the data of guest offset \(offset) lie at \(host), beyond the end of node '\(file.node.name)': the image was cut off")
        }
    }

    /// What is known of the image is known of the file that it was opened with.
    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard request.replaced["file"] == nil else { throw BlockError(.unsupported, "The 'file' child of a node of driver '\(Self.formatName)' cannot be exchanged") }
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        throw BlockError(.readOnly, "Images of format '\(Self.formatName)' can only be read")
    }
}

/// A mapped image that says where its data lie.
protocol MappedStatus: MappedImage, StatusReporting {
    /// Whether the file may know of holes in the data.
    var hasHolesInData: Bool { get }
}

extension MappedStatus {
    var hasHolesInData: Bool { false }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        tryFindRun(at: range.start, limit: range.byteCount).map(status)
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        status(of: try await findRun(at: range.start, limit: range.byteCount))
    }

    private func status(of run: MappedRun) -> BlockStatus {
        switch run.place {
        case .data(let host):
            let flags: BlockStatus.Flags = hasHolesInData ? [.data, .allocated, .offsetValid, .recurse] : [.data, .allocated, .offsetValid]
            return BlockStatus(byteCount: run.byteCount, flags: flags, offset: host, file: file)
        case .compressed: return BlockStatus(byteCount: run.byteCount, flags: [.data, .allocated, .compressed])
        case .zero: return BlockStatus(byteCount: run.byteCount, flags: [.zero, .allocated])
        // A format that knows no backing files has always the last word.
        case .unallocated: return BlockStatus(byteCount: run.byteCount, flags: Self.supportsBacking ? .zero : [.zero, .allocated])
        }
    }
}

extension BlockChild {
    /// Opens the file of an image of this kind.
    static func imageFile(_ reference: BlockdevRef, _ opener: NodeOpener) async throws(BlockError) -> BlockChild {
        try await opener.openChild(reference, as: "file", role: [.data, .metadata, .primary])
    }

    /// A piece of the file; what lies beyond its end reads as zeroes.
    /// - Precondition: the place is a possible one, and the piece is small: both have been checked.
    func bytes(at offset: Int, byteCount: Int) async throws(BlockError) -> IOBuffer {
        let buffer = IOBuffer(byteCount: byteCount)
        defer { withExtendedLifetime(buffer) {} }
        try await read(buffer.vector, at: GuestOffset(offset))
        return buffer
    }

    /// Whether a table lies wholly in the file. No number can be too large for the question.
    func holds(_ offset: UInt64, byteCount: UInt64) -> Bool {
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        return !overflow && end <= UInt64(length)
    }
}
