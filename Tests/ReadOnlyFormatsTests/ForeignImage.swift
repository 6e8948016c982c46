import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import ReadOnlyFormats
import StorageSchema
import StrataBase
import StrataTesting
import Testing

/// An image in a format that we only read, made by QEMU.
struct ForeignImage: Sendable, CustomTestStringConvertible {
    let format: BlockdevDriver
    /// For `-o`; empty for none.
    var options = ""
    /// As qemu-img takes it.
    let size: String
    /// Converted from a disk full of everything, in order; otherwise written here and there, so that blocks lie in the file in another order.
    var isConverted = false

    var testDescription: String { "\(format.rawValue) \(size) \(options)\(isConverted ? " converted" : "")" }
    static let name = "disk.image"

    static let small: [ForeignImage] = [
        ForeignImage(format: .vdi, size: "1000"),
        ForeignImage(format: .vdi, size: "20M"),
        ForeignImage(format: .vdi, size: "3670528", isConverted: true),
        ForeignImage(format: .vdi, options: "static=on", size: "5M"),
        ForeignImage(format: .vpc, size: "1000"),
        ForeignImage(format: .vpc, size: "20M"),
        ForeignImage(format: .vpc, options: "force_size=on", size: "5243392", isConverted: true),
        ForeignImage(format: .vpc, options: "subformat=fixed", size: "3M"),
        ForeignImage(format: .vpc, options: "subformat=fixed,force_size=on", size: "3000000", isConverted: true),
        ForeignImage(format: .vhdx, size: "1000"),
        ForeignImage(format: .vhdx, size: "20M"),
        ForeignImage(format: .vhdx, options: "block_size=1M,block_state_zero=off", size: "20M"),
        ForeignImage(format: .vhdx, options: "subformat=fixed", size: "10M"),
        ForeignImage(format: .vhdx, size: "9999872", isConverted: true),
        ForeignImage(format: .vmdk, size: "1000"),
        ForeignImage(format: .vmdk, size: "20M"), ForeignImage(format: .vmdk, size: "70M"),
        ForeignImage(format: .vmdk, size: "5000192", isConverted: true),
        ForeignImage(format: .vmdk, options: "zeroed_grain=on", size: "20M"),
        ForeignImage(format: .vmdk, options: "subformat=streamOptimized", size: "9999872", isConverted: true),
        ForeignImage(format: .vmdk, options: "subformat=streamOptimized", size: "40M", isConverted: true),
    ]

    static let large: [ForeignImage] = [
        ForeignImage(format: .vdi, size: "0"), ForeignImage(format: .vdi, size: "5G"), ForeignImage(format: .vdi, size: "2T"),
        ForeignImage(format: .vpc, size: "0"), ForeignImage(format: .vpc, size: "5G"), ForeignImage(format: .vpc, options: "force_size=on", size: "5G"),
        ForeignImage(format: .vpc, size: "130G"), ForeignImage(format: .vpc, size: "2040G"),
        ForeignImage(format: .vhdx, size: "5G"), ForeignImage(format: .vhdx, options: "block_size=1M", size: "9G"), ForeignImage(format: .vhdx, size: "3T"),
        ForeignImage(format: .vmdk, size: "5G"), ForeignImage(format: .vmdk, size: "1T"), ForeignImage(format: .vmdk, options: "subformat=streamOptimized", size: "5G"),
    ]

    func make(in folder: TemporaryFolder) throws {
        var generator = SeededGenerator(seed: runSeed ^ UInt64(testDescription.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) }))
        let optionWords = options.isEmpty ? [] : ["-o", options]
        if isConverted {
            try folder.write(mixedContents(try #require(ByteSize.parse(size)), seed: generator.next()), to: "source.raw")
            _ = try mustRun("qemu-img", ["convert", "-f", "raw", "-O", format.rawValue] + optionWords + ["source.raw", Self.name], in: folder.url)
            return
        }
        _ = try mustRun("qemu-img", ["create", "-q", "-f", format.rawValue] + optionWords + [Self.name, size], in: folder.url)
        let byteCount = try #require(ByteSize.parse(size)) / 512 * 512
        if byteCount == 0 { return }
        var commands: [String] = []
        for _ in 0..<12 {
            let start = Int.random(in: 0..<byteCount, using: &generator) / 512 * 512
            let count = min(byteCount - start, 512 * Int.random(in: 1...400, using: &generator))
            commands.append("write -P \(Int.random(in: 1...255, using: &generator)) \(start) \(count)")
        }
        if options.contains("zeroed_grain") { for grain in [3, 100, 200] { commands.append("write -z \(grain * 65536) 64k") } }
        // Grains of a compressed image are written once, and whole.
        if options.contains("streamOptimized") { commands = [0, 65536, byteCount / 2, byteCount - 65536].map { "write -P 7 \($0) 64k" } }
        try QEMU.io(Self.name, format: format.rawValue, commands, in: folder)
    }

    static let drivers = DriverRegistry([FileDriver.self, VDIDriver.self, VHDXDriver.self, VMDKDriver.self, VPCDriver.self])

    /// The node of an image in a host file.
    static func node(_ format: BlockdevDriver, _ path: String) throws -> BlockdevOptions {
        var options = try BlockdevOptions.format(format, over: .definition(BlockdevOptions(.file(BlockdevOptionsFile(filename: path)))))
        options.nodeName = "disk"
        options.readOnly = true
        return options
    }

    /// Opens an image in a graph of its own on a thread of its own.
    static func withBackend<T: Sendable>(
        _ format: BlockdevDriver, _ path: String, _ body: @escaping @Sendable (BlockBackend) async throws -> T
    ) async throws -> T {
        let context = try IOContext.startThread(name: "test")
        defer {
            context.stop()
            context.join()
        }
        return try await Task(executorPreference: context) {
            let graph = BlockGraph(context: context, drivers: drivers)
            try await graph.add(try node(format, path))
            let backend = try await graph.makeBackend(named: "test", on: "disk", PermissionGrant(used: .consistentRead, shared: .all))
            let result: Result<T, any Error>
            do { result = .success(try await body(backend)) } catch { result = .failure(error) }
            await graph.release(backend)
            try await graph.closeAll()
            return try result.get()
        }.value
    }
}

extension BlockBackend {
    func readBytes(at offset: Int, _ count: Int) async throws -> [UInt8] {
        let buffer = IOBuffer(byteCount: count)
        defer { withExtendedLifetime(buffer) {} }
        buffer.vector.fill(with: 0xdb)
        if !tryRead(buffer.vector, at: GuestOffset(offset)) { try await read(buffer.vector, at: GuestOffset(offset)) }
        return buffer.copyToArray()
    }
}
