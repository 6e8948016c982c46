import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import Testing

@Suite("creating qcow2 images")
struct CreateTests {
    /// Makes an image in a new file.
    static func create(_ path: String, dataFile: String? = nil, _ change: @escaping @Sendable (inout BlockdevCreateOptionsQcow2) -> Void) async throws {
        for path in [path, dataFile].compactMap(\.self) { _ = FileManager.default.createFile(atPath: path, contents: nil) }
        try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            var options = BlockdevOptions(.file(BlockdevOptionsFile(filename: path)))
            options.nodeName = "file"
            try await graph.add(options)
            let backend = try await graph.makeBackend(named: "create", on: "file", PermissionGrant(used: .all, shared: .all))
            var data: BlockBackend?
            if let dataFile {
                var options = BlockdevOptions(.file(BlockdevOptionsFile(filename: dataFile)))
                options.nodeName = "data"
                try await graph.add(options)
                data = try await graph.makeBackend(named: "create", on: "data", PermissionGrant(used: .all, shared: .all))
            }
            let result: Result<Void, any Error>
            do {
                var creation = BlockdevCreateOptionsQcow2(file: .reference("file"), size: 1 << 20)
                change(&creation)
                result = .success(try await QCOW2Driver.create(creation, in: backend, dataFile: data, dataFileName: dataFile))
            } catch { result = .failure(error) }
            await graph.release(backend)
            if let data { await graph.release(data) }
            try await graph.closeAll()
            try result.get()
        }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var clusterSize = 65536
        var refcountBits = 16
        var version = 3
        var size = 1 << 30
        var preallocation = PreallocMode.off
        var testDescription: String { "\(clusterSize)/\(refcountBits) bits/v\(version)/\(size)/\(preallocation)" }
    }

    static let cases: [Case] =
        [512, 4096, 65536, 2 << 20].flatMap { size in [1, 2, 8, 16, 64].map { Case(clusterSize: size, refcountBits: $0) } }
        + [Case(version: 2), Case(clusterSize: 512, version: 2, size: 100 << 20), Case(size: 0), Case(size: 512), Case(size: 8 << 40)]
        + [Case(clusterSize: 512, size: 128 << 30), Case(clusterSize: 512, refcountBits: 64, size: 40 << 30)]
        + [PreallocMode.metadata, .falloc, .full].flatMap { mode in
            [Case(clusterSize: 512, size: 3 << 20, preallocation: mode), Case(size: (20 << 20) + 512, preallocation: mode)]
        }

    @Test("QEMU finds nothing wrong, says about it what it says about its own, and reads zeroes", arguments: cases)
    func createdImage(test: Case) async throws {
        let scratch = try Scratch()
        let ours = scratch.file("a.qcow2"), theirs = scratch.file("b.qcow2")
        try await Self.create(ours) {
            $0.size = test.size
            $0.clusterSize = test.clusterSize
            $0.refcountBits = test.refcountBits
            $0.version = test.version == 3 ? .v3 : .v2
            $0.preallocation = test.preallocation
        }
        try run("qemu-img", [
            "create", "-q", "-f", "qcow2", "-o",
            "cluster_size=\(test.clusterSize),refcount_bits=\(test.refcountBits),compat=\(test.version == 3 ? "1.1" : "0.10"),preallocation=\(test.preallocation.rawValue)",
            theirs, String(test.size),
        ])
        #expect(try Self.facts(ours) == Self.facts(theirs))
        try run("qemu-img", ["check", ours])
        if test.size < 2 << 30 { try run("qemu-img", ["compare", ours, theirs]) }
        if test.preallocation == .off {
            let lengths = try [ours, theirs].map { try FileManager.default.attributesOfItem(atPath: $0)[.size] as? Int ?? -1 }
            #expect(lengths[0] <= lengths[1] + 2 * test.clusterSize)
        }
    }

    /// What `qemu-img info` says that does not depend on where the image lies.
    static func facts(_ path: String) throws -> String {
        let text = try run("qemu-img", ["info", "--output=json", path])
        guard let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] else { return "?" }
        let compared = object.filter { ["virtual-size", "cluster-size", "format", "format-specific", "dirty-flag"].contains($0.key) }
        return String(decoding: try JSONSerialization.data(withJSONObject: compared, options: .sortedKeys), as: UTF8.self)
    }

    @Test("a backing file's name and format are stored")
    func backing() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "raw", scratch.file("base.raw"), "1M"])
        for size in [512, 65536] {
            try await Self.create(path) {
                $0.clusterSize = size
                $0.backingFile = "base.raw"
                $0.backingFmt = .raw
            }
            let text = try run("qemu-img", ["info", "--output=json", path])
            #expect(text.contains(#""backing-filename": "base.raw""#) && text.contains(#""backing-filename-format": "raw""#))
            try run("qemu-img", ["check", path])
        }
    }

    @Test("options that do not go together are refused before anything is written")
    func refusals() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        func message(_ change: @escaping @Sendable (inout BlockdevCreateOptionsQcow2) -> Void) async throws -> String {
            do {
                try await Self.create(path, change)
                return "created"
            } catch let error as BlockError {
                #expect(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int == 0)
                return error.message
            }
        }
        #expect(try await message { $0.clusterSize = 1000 } == "Cluster size must be a power of two between 512 and 2048k")
        #expect(try await message { $0.clusterSize = 4 << 20 } == "Cluster size must be a power of two between 512 and 2048k")
        #expect(try await message { $0.refcountBits = 3 } == "Refcount width must be a power of two and may not exceed 64 bits")
        #expect(try await message { ($0.version, $0.refcountBits) = (.v2, 8) }.hasPrefix("Different refcount widths"))
        #expect(try await message { ($0.version, $0.lazyRefcounts) = (.v2, true) }.hasPrefix("Lazy refcounts only supported"))
        #expect(try await message { ($0.clusterSize, $0.size) = (512, 1 << 40) }.hasPrefix("The image size is too large"))
        #expect(try await message { $0.size = 513 } == "Image size must be a multiple of 512 bytes")
        #expect(try await message { ($0.extendedL2, $0.clusterSize) = (true, 8192) } == "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes")
        #expect(try await message { ($0.extendedL2, $0.version) = (true, .v2) }.hasPrefix("Extended L2 entries are only supported with compatibility level"))
        #expect(try await message { ($0.dataFile, $0.version) = (.reference("x"), .v2) }.hasPrefix("External data files are only supported with compat"))
        #expect(try await message { $0.dataFileRaw = true } == "data-file-raw requires data-file")
        #expect(try await message { ($0.dataFile, $0.dataFileRaw, $0.backingFile) = (.reference("x"), true, "b") } == "Backing file and data-file-raw cannot be used at the same time")
        #expect(try await message { ($0.preallocation, $0.backingFile) = (.metadata, "b") } == "Backing file and preallocation can only be used at the same time if extended_l2 is on")
    }
}
