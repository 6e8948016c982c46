import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import Synchronization
import Testing

/// Which clusters that became free the file below is told to forget: the options `pass-discard-request`, `pass-discard-snapshot` and `pass-discard-other`.
@Suite("discards that qcow2 passes on")
struct DiscardPassingTests {
    /// Why a cluster becomes free.
    enum Reason: CaseIterable, Sendable { case request, snapshot, other }

    struct Case: Sendable, CustomTestStringConvertible {
        let reason: Reason
        /// nil: by default.
        let option: Bool?
        let isPunched: Bool
        var testDescription: String { "\(reason), \(option.map { "\($0)" } ?? "by default")" }
    }

    static let cases = Reason.allCases.flatMap { reason in
        [Case(reason: reason, option: true, isPunched: true), Case(reason: reason, option: false, isPunched: false), Case(reason: reason, option: nil, isPunched: reason != .other)]
    }

    @Test("a cluster that becomes free is punched out of the file where the option says so, and keeps its bytes where not", arguments: cases)
    func passing(test: Case) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", test.reason == .other ? "write -c -P 5 0 64k" : "write -P 5 0 64k", path])
        if test.reason == .snapshot { try run("qemu-img", ["snapshot", "-c", "s", path]) }
        // What follows lies behind the cluster that is going to be free, so that closing cuts nothing off.
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 6 128k 64k", path])
        let image = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> Int { image[offset..<offset + 8].reduce(0) { $0 << 8 | Int($1) } }
        // Bits 0 to 53 are an offset in either kind of entry: of a compressed cluster of 64 KiB the stream's first byte.
        let place = (word(word(word(40)) & 0x00ff_ffff_ffff_fe00) & 0x003f_ffff_ffff_ffff).roundedDown(to: 512)
        try #require(place > 65536 && image[place..<place + 20].contains { $0 != 0 })
        let recorder = Recorder(disk: image)
        defer { recorder.forget() }
        var options = recorder.imageOptions()
        guard case .qcow2(var own) = options.branch else { return }
        switch test.reason {
        case .request: own.passDiscardRequest = test.option
        case .snapshot: own.passDiscardSnapshot = test.option
        case .other: own.passDiscardOther = test.option
        }
        options.branch = .qcow2(own)
        let opened = options
        try await onContext { context in
            try await withImage(opened, context) { disk in
                switch test.reason {
                case .request: try await disk.discard(GuestRange(GuestOffset(0), byteCount: 65536))
                case .snapshot:
                    try await disk.writeBytes([UInt8](repeating: 7, count: 65536), at: 0)
                    _ = try await disk.node.snapshotting?.deleteSnapshot(SnapshotSelector(name: "s"))
                case .other: try await disk.writeBytes([UInt8](repeating: 7, count: 65536), at: 0)
                }
                try await disk.flush()
            }
        }
        let after = recorder.state.withLock { $0.disk }
        #expect(after[place..<place + 20].allSatisfy { $0 == 0 } == test.isPunched)
        if !test.isPunched { #expect(after[place..<place + 20] == image[place..<place + 20]) }
        try Data(after).write(to: URL(fileURLWithPath: path))
        try run("qemu-img", ["check", path])
    }

    @Test("what only version 3 has is refused for version 2 in qemu-img's words", arguments: [true, false])
    func oldVersion(isDiscard: Bool) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, "1M"])
        let option = isDiscard ? "discard-no-unref=on" : "lazy-refcounts=on"
        let said = try run("qemu-io", ["-c", "read 0 512", "--image-opts", "driver=qcow2,file.filename=\(path),\(option)"], allowedStatus: [1])
        var options = imageOptions(path)
        guard case .qcow2(var own) = options.branch else { return }
        if isDiscard { own.discardNoUnref = true } else { own.lazyRefcounts = true }
        options.branch = .qcow2(own)
        let opened = options
        let error = await #expect(throws: BlockError.self) { try await onContext { context in try await withImage(opened, context) { _ in } } }
        let message = try #require(error?.message)
        #expect(said.contains(message), "\(said)")
    }
}
