import Foundation
import IOCore
import StrataBase
import StrataTesting
import Testing

@Suite("host files")
struct HostFileTests {
    /// A file path in a directory of its own; /dev/shm is memory, /tmp a disk.
    static func path(in directory: String = "/tmp") -> String { "\(directory)/strata-hostfile-\(UUID().uuidString)" }

    @Test("what one engine writes every engine reads", arguments: ["/tmp", "/dev/shm"], [AsyncIOMode.automatic, .threads, .native, .ioUring])
    func roundTrip(directory: String, mode: AsyncIOMode) async throws {
        let path = Self.path(in: directory)
        defer { unlink(path) }
        for direct in directory == "/tmp" ? [false, true] : [false] {
            let same = try await IOContextTests.onThread { () async -> Result<Bool, BlockError> in
                do throws(BlockError) {
                    let file = try HostFile(opening: path, .init(writable: true, create: true, truncate: true, direct: direct), mode: mode)
                    let count = 1 << 20
                    let written = IOBuffer(byteCount: count)
                    written.withMutableBytes { bytes in
                        for index in stride(from: 0, to: count, by: 8) { bytes.storeBytes(of: UInt64(index) &* 0x9E37_79B9_7F4A_7C15, toByteOffset: index, as: UInt64.self) }
                    }
                    // Scattered over pieces that are whole pages, so that O_DIRECT accepts them.
                    let pieces = VectorList((0..<16).map { written.vector(at: $0 * 65536, byteCount: 65536) })
                    try await file.write(pieces.vector, at: HostOffset(8192))
                    try await file.flush()
                    let read = IOBuffer(byteCount: count + 8192)
                    try await file.read(read.vector, at: HostOffset(8192))
                    let same = read.withBytes { r in written.withBytes { w in (0..<count).allSatisfy { r.unsafeLoadUnaligned(fromByteOffset: $0, as: UInt8.self) == w.unsafeLoadUnaligned(fromByteOffset: $0, as: UInt8.self) } } }
                    // Beyond the end there are zeroes.
                    return .success(same && read.vector(at: count, byteCount: 8192).isZero)
                } catch { return .failure(error) }
            }
            #expect(try same.get(), "direct \(direct)")
        }
    }

    @Test("a thread for copying writes long pieces to the page cache itself, others hand them on; writeback that was begun changes nothing", arguments: [true, false])
    func copyingThread(isForCopying: Bool) async throws {
        let path = Self.path()
        defer { unlink(path) }
        let thread = try IOContext.startThread(name: "copying", isForCopying: isForCopying)
        let outcome: Result<(atOnce: Bool, isRight: Bool), BlockError> = await withCheckedContinuation { continuation in
            thread.spawn {
                do throws(BlockError) {
                    let file = try HostFile(opening: path, .init(writable: true, create: true))
                    let (written, read) = (IOBuffer(byteCount: 1 << 20), IOBuffer(byteCount: 1 << 20))
                    defer { withExtendedLifetime((written, read)) {} }
                    written.vector.fill(with: 0x5A)
                    let atOnce = file.tryWrite(written.vector, at: HostOffset(0))
                    for index in 1...20 {
                        try await file.write(written.vector, at: HostOffset(index << 20))
                        file.startWriteback()
                    }
                    try await file.flush()
                    try await file.read(read.vector, at: HostOffset(20 << 20))
                    continuation.resume(returning: .success((atOnce, read.vector.firstDifference(from: written.vector) == nil)))
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        thread.stop()
        thread.join()
        let (atOnce, isRight) = try outcome.get()
        #expect(atOnce == isForCopying)
        #expect(isRight)
    }

    @Test("a long write of a copy takes the space that it fills and leaves the file as long as its last byte", arguments: ["/tmp", "/dev/shm"])
    func longWrites(directory: String) async throws {
        let path = Self.path(in: directory)
        defer { unlink(path) }
        let thread = try IOContext.startThread(name: "copying", isForCopying: true)
        let (first, second) = (4096..<4096 + 307_323, 1_048_576 - 100..<1_048_576 + 500_000)
        let file = try HostFile(opening: path, .init(writable: true, create: true))
        let old = IOBuffer(byteCount: 8192)
        old.vector.fill(with: 1)
        // The first long write overwrites the end of this.
        try await file.write(old.vector, at: HostOffset(0))
        let written: [Bool] = await withCheckedContinuation { continuation in
            thread.spawn {
                let new = IOBuffer(byteCount: 1 << 20)
                new.vector.fill(with: 2)
                defer { withExtendedLifetime(new) {} }
                // Twice: what is there already takes no more space.
                let written = [first, second, first].map { file.tryWrite(new.vector.slice(at: 0, byteCount: $0.count), at: HostOffset($0.lowerBound)) }
                continuation.resume(returning: written)
            }
        }
        thread.stop()
        thread.join()
        #expect(written == [true, true, true])
        let status = try file.status()
        #expect(status.size == second.upperBound)
        // A block at either end of each.
        #expect(status.allocatedSize <= 8192 + first.count + second.count + 4 * 4096, "\(status.allocatedSize)")
        #expect(try file.extent(at: HostOffset(first.upperBound.roundedUp(to: 4096)))?.isData == false)
        let expected = (0..<second.upperBound).map { first.contains($0) || second.contains($0) ? 2 : $0 < 8192 ? 1 : 0 as UInt8 }
        #expect(firstDifference([UInt8](try Data(contentsOf: URL(fileURLWithPath: path))), expected) == nil)
    }

    private func describe(_ file: HostFile, _ offset: Int) throws -> String? {
        try file.extent(at: HostOffset(offset)).map { "\($0.isData ? "data" : "hole") \($0.byteCount)" }
    }

    @Test("a hole reads as a hole, data as data, and the end as the end")
    func extents() async throws {
        let path = Self.path(in: "/dev/shm")
        defer { unlink(path) }
        let file = try HostFile(opening: path, .init(writable: true, create: true))
        try await file.setSize(1 << 20)
        let data = IOBuffer(byteCount: 65536)
        data.vector.fill(with: 7)
        try await file.write(data.vector, at: HostOffset(262_144))
        #expect(try describe(file, 0) == "hole 262144")
        #expect(try describe(file, 262_144) == "data 65536")
        #expect(try describe(file, 327_680) == "hole \((1 << 20) - 327_680)")
        #expect(try file.extent(at: HostOffset(1 << 20)) == nil)
        #expect(try await file.punchHole(at: HostOffset(262_144), byteCount: 65536) == .done)
        #expect(try file.extent(at: HostOffset(0))?.isData == false)
        // Space that was set apart and never written is a hole, although the file is as long as what it takes.
        #expect(try await file.allocate(at: HostOffset(0), byteCount: 1 << 20) == .done)
        #expect(try describe(file, 0) == "hole 1048576")
        try await file.write(data.vector, at: HostOffset(262_144))
        #expect(try describe(file, 262_144) == "data 65536")
    }

    @Test("O_DIRECT has a unit on a disk and none in memory, where a hole can begin and end anywhere")
    func directUnit() async throws {
        let (onDisk, inMemory) = (Self.path(in: "/var/tmp"), Self.path(in: "/dev/shm"))
        defer { unlink(onDisk); unlink(inMemory) }
        for path in [onDisk, inMemory] { _ = try HostFile(opening: path, .init(writable: true, create: true)) }
        #expect(try HostFile(opening: onDisk, .init(writable: true, direct: true)).directAlignment >= 512)
        #expect(try HostFile(opening: inMemory, .init(writable: true, direct: true)).directAlignment == 1)
    }

    @Test("two users of one file see each other's locks, as QEMU's do")
    func locks() throws {
        let path = Self.path()
        defer { unlink(path) }
        let first = try HostFile(opening: path, .init(writable: true, create: true))
        let second = try HostFile(opening: path, .init(writable: true))
        // Writes, does not share writing (bit 1).
        try first.acquireLocks(used: 0b0010, unshared: 0b0010, previouslyUsed: 0, previouslyUnshared: 0)
        #expect(throws: BlockError.self) { try second.acquireLocks(used: 0b0010, unshared: 0, previouslyUsed: 0, previouslyUnshared: 0) }
        // Reading is shared, so it is allowed; the failed attempt has left nothing behind that would stop `first` from going on.
        try second.acquireLocks(used: 0b0001, unshared: 0, previouslyUsed: 0, previouslyUnshared: 0)
        let qemu = try run("qemu-io", ["-f", "raw", "-c", "read 0 0", path], joinsErrors: true)
        #expect(!qemu.succeeded && qemu.text.contains("lock"), "\(qemu)")
        first.releaseLocks(used: 0b0010, unshared: 0b0010)
        try second.acquireLocks(used: 0b0010, unshared: 0b0010, previouslyUsed: 0, previouslyUnshared: 0)
    }

    @Test("gathered views behave like the bytes they view", arguments: 0..<20 as Range<UInt64>)
    func vectors(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let memory = IOBuffer(byteCount: 8192)
        var model: [UInt8] = []
        var parts: [IOVector] = []
        memory.withMutableBytes { bytes in for index in 0..<8192 { bytes.storeBytes(of: UInt8.random(in: 0...255, using: &random), toByteOffset: index, as: UInt8.self) } }
        for _ in 0..<Int.random(in: 1...9, using: &random) {
            let start = Int.random(in: 0...8000, using: &random), count = Int.random(in: 0...192, using: &random)
            parts.append(memory.vector(at: start, byteCount: count))
            memory.withBytes { bytes in for index in start..<start + count { model.append(bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt8.self)) } }
        }
        let list = VectorList(parts)
        #expect(list.vector.byteCount == model.count)
        for _ in 0..<20 {
            let start = Int.random(in: 0...model.count, using: &random), count = Int.random(in: 0...(model.count - start), using: &random)
            let slice = list.vector.slice(at: start, byteCount: count)
            let inner = count == 0 ? 0 : Int.random(in: 0..<count, using: &random)
            let copy = IOBuffer(byteCount: count - inner)
            copy.withMutableBytes { slice.slice(at: inner, byteCount: count - inner).copyOut(at: 0, into: &$0) }
            let bytes = copy.withBytes { b in (0..<b.byteCount).map { b.unsafeLoadUnaligned(fromByteOffset: $0, as: UInt8.self) } }
            #expect(bytes == Array(model[start + inner..<start + count]))
            #expect(slice.isZero == model[start..<start + count].allSatisfy { $0 == 0 })
        }
        withExtendedLifetime((memory, list)) {}
    }
}
