import BlockGraph
import Foundation
import IOCore
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Every call that making an image makes to its file fails once.
@Suite("creating qcow2 images when the file below fails")
struct CreationFaultTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        var options: BlockdevCreateOptionsQcow2
        var password: [UInt8]?

        init(_ description: String, _ change: (inout BlockdevCreateOptionsQcow2) -> Void) {
            testDescription = description
            // The file is the one that is handed over.
            options = BlockdevCreateOptionsQcow2(file: .reference("file"), size: 200 << 10, clusterSize: 512)
            change(&options)
            if options.encrypt != nil { password = Array("secret".utf8) }
        }
    }

    static let cases = [
        Case("plain") { _ in }, Case("version 2 over a backing file") { ($0.version, $0.backingFile, $0.backingFmt) = (.v2, "base", .raw) },
        Case("preallocation=metadata") { $0.preallocation = .metadata }, Case("preallocation=falloc") { $0.preallocation = .falloc },
        Case("preallocation=full") { $0.preallocation = .full },
        Case("subclusters, preallocation=metadata") { ($0.clusterSize, $0.extendedL2, $0.preallocation) = (16384, true, .metadata) },
        Case("luks") { $0.encrypt = QCryptoBlockCreateOptions(.luks(QCryptoBlockCreateOptionsLUKS(keySecret: "s", iterTime: 0))) },
    ]

    private static func create(_ test: Case, _ recorder: Recorder, tries: Int, _ context: IOContext) async throws -> BlockError? {
        let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
        try await graph.add(BlockdevOptions(.nullCo(BlockdevOptionsNull(size: recorder.number)), nodeName: "file"))
        let backend = try await graph.makeBackend(named: "create", on: "file", PermissionGrant(used: .all, shared: .all))
        var failure: BlockError?
        for _ in 0..<tries {
            failure = nil
            do throws(BlockError) {
                // Whoever makes an image empties its file first.
                try await backend.resize(to: 0)
                try await QCOW2Driver.create(test.options, in: backend, password: test.password)
            } catch { failure = error }
            if failure == nil { break }
        }
        await graph.release(backend)
        try await graph.closeAll()
        return failure
    }

    @Test("it says so, and making it again works", arguments: cases)
    func everyCall(test: Case) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let dry = Recorder(disk: [])
        defer { dry.forget() }
        let failure = try await onContext { context in try await Self.create(test, dry, tries: 1, context) }
        try #require(failure == nil)
        let (calls, expected) = dry.state.withLock { ($0.calls, $0.disk) }
        try #require(calls >= 4)
        for call in 1...calls {
            let fault = CrashProof.Fault.allCases[call % CrashProof.Fault.allCases.count]
            func make(tries: Int) async throws -> (failure: BlockError?, disk: [UInt8]) {
                // What was there before is no part of the image.
                let recorder = Recorder(disk: [UInt8](repeating: 0xee, count: 3000))
                defer { recorder.forget() }
                recorder.state.withLock { ($0.failAt, $0.failure, $0.failsHalfway, $0.isRecording) = (call, fault.error, fault == .short, false) }
                let failure = try await onContext { context in try await Self.create(test, recorder, tries: tries, context) }
                return (failure, recorder.state.withLock { $0.disk })
            }
            let first = try await make(tries: 1)
            // Growing the file ahead of need may fail: then the image is another one, and as good.
            #expect(first.failure != nil || test.options.preallocation != nil, "call \(call) of \(calls) fails with \(fault)")
            // Until it is whole it is no image, and nobody takes it for one. Preallocating is done to an image that is there.
            if test.options.preallocation == nil, test.password == nil, fault != .short {
                let isNoneOrWhole = !first.disk.starts(with: [0x51, 0x46, 0x49, 0xfb]) || first.disk == expected
                #expect(isNoneOrWhole, "call \(call) of \(calls) fails with \(fault)")
            }
            let second = try await make(tries: 2)
            #expect(second.failure == nil, "call \(call) of \(calls) fails with \(fault)")
            if test.password == nil, test.options.preallocation == nil {
                // Not as an expectation of two arrays, whose bytes would be told.
                let isSame = second.disk == expected
                #expect(isSame, "call \(call) of \(calls) fails with \(fault)")
            } else if call % 4 == 0 {
                try Data(second.disk).write(to: URL(fileURLWithPath: path))
                let key = test.password == nil ? "" : "encrypt.format=luks,encrypt.key-secret=s,"
                try run("qemu-img", ["check", "--object", "secret,id=s,data=secret", "--image-opts", "driver=qcow2,\(key)file.filename=\(path)"])
            }
        }
    }
}
