import Foundation
import Strata
import Synchronization
import Testing

/// What management layers do every day, in one process and without a monitor, while guests write; Tests/Conformance has the same over QMP.
@Suite("what management layers do, in one process")
struct ManagementScenarioTests {
    private static let size = 4 << 20

    private let scratch: Scratch
    private let storage: Storage

    init() throws {
        scratch = try Scratch()
        storage = try Storage()
    }

    // MARK: What they have in common

    /// Makes an image with data of its own, over another one or none.
    private func make(_ name: String, over backing: String? = nil, filledWith byte: Int? = nil) throws {
        let below = backing.map { ["-b", scratch.file($0), "-F", "qcow2"] } ?? []
        try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2"] + below + [scratch.file(name), "\(Self.size)"])
        if let byte { try run("/usr/bin/qemu-io", ["-c", "write -P \(byte) \(byte)00k 700k", "-c", "write -P \(byte + 100) 3M 5000", scratch.file(name)]) }
    }

    private func definition(_ name: String, over backing: String? = nil) -> JSONValue {
        [
            "driver": "qcow2", "node-name": .string(name), "backing": backing.map { .string($0) } ?? .null,
            "file": ["driver": "file", "filename": .string(scratch.file(name))],
        ]
    }

    /// Makes and opens a chain of three, whose top a guest has.
    private func openChain() async throws -> Disk {
        try make("base", filledWith: 1)
        try make("mid", over: "base", filledWith: 2)
        try make("top", over: "mid", filledWith: 3)
        try await storage.execute("blockdev-add", definition("base"))
        try await storage.execute("blockdev-add", definition("mid", over: "base"))
        return try await storage.open(describedBy: definition("top", over: "mid").text())
    }

    /// Waits until a job has that status; nil until it is gone.
    private func wait(_ id: String = "j", for status: String?) async throws {
        while true {
            let job = try await storage.execute("query-jobs").array?.first { $0["id"]?.string == id }
            if let error = job?["error"] { Issue.record("job '\(id)' failed: \(error)") }
            if job?["status"]?.string == status || job == nil { break }
            await Task.yield()
        }
        if let status { try #require(try await storage.execute("query-jobs").array?.first { $0["id"]?.string == id }?["status"]?.string == status) }
    }

    private var nodeNames: [String] { get async throws { try await storage.nodes().compactMap(\.nodeName).filter { !$0.hasPrefix("#") } } }

    /// What a guest would read, by QEMU's word.
    private func contents(_ image: String) throws -> [UInt8] {
        let flat = scratch.file(image + ".flat")
        try run("/usr/bin/qemu-img", ["convert", "-f", "qcow2", "-O", "raw", scratch.file(image), flat])
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: flat)))
    }

    // MARK: Scenarios

    @Test("a snapshot, and the active commit that takes it back, lose nothing that guests write")
    func snapshotAndCommit() async throws {
        let guests = try await Guests(try await openChain())
        for round in 0..<3 {
            let overlay = "over\(round)"
            try await guests.pass(20)
            try await storage.execute(
                "blockdev-snapshot-sync",
                ["node-name": "top", "snapshot-node-name": .string(overlay), "snapshot-file": .string(scratch.file(overlay)), "format": "qcow2"])
            try await guests.pass(20)
            try await storage.execute("block-commit", ["job-id": "j", "device": .string(overlay), "base-node": "top"])
            try await wait(for: "ready")
            try await guests.pass(20)
            try await storage.execute("job-complete", ["id": "j"])
            try await wait(for: nil)
            #expect(try await !nodeNames.contains(overlay))
        }
        try await guests.pass(20)
        let expected = try await guests.stop()
        try await storage.close()
        #expect(try contents("top") == expected)
        try run("/usr/bin/qemu-img", ["check", "-q", scratch.file("top")])
    }

    @Test("a disk moves to an NBD server under its guests, who go on there", arguments: ["background", "write-blocking"])
    func migration(mode: String) async throws {
        try make("there")
        let server = try Storage(name: "server")
        let there = try await server.open(describedBy: definition("there").text())
        try await server.startNBDServer(.unix(path: scratch.file("there.sock")))
        try await server.export(there, as: "there", isWritable: true)
        let guests = try await Guests(try await openChain())
        try await storage.execute(
            "blockdev-add", ["driver": "nbd", "node-name": "remote", "export": "there", "server": ["type": "unix", "path": .string(scratch.file("there.sock"))]])
        try await storage.execute("blockdev-mirror", ["job-id": "j", "device": "top", "target": "remote", "sync": "full", "copy-mode": .string(mode)])
        try await wait(for: "ready")
        try await guests.pass(20)
        try await storage.execute("job-complete", ["id": "j"])
        try await wait(for: nil)
        try await storage.execute("blockdev-del", ["node-name": "top"])
        try await guests.pass(20)
        let expected = try await guests.stop()
        try await storage.close()
        try await server.close()
        #expect(try contents("there") == expected)
    }

    @Test("five incremental backups, each on the one before, are the disk at each moment")
    func incrementalChain() async throws {
        try make("disk", filledWith: 4)
        let guests = try await Guests(try await storage.open(describedBy: definition("disk").text()))
        try await storage.execute("block-dirty-bitmap-add", ["node": "disk", "name": "b", "persistent": true])
        var expected: [[UInt8]] = []
        for index in 0...5 {
            let image = "backup\(index)"
            try await guests.pass(20)
            try make(image, over: index > 0 ? "backup\(index - 1)" : nil)
            try await storage.execute("blockdev-add", definition(image, over: index > 0 ? "backup\(index - 1)" : nil))
            // A full one that begins the bitmap anew, then what has changed.
            let (sync, mode) = index > 0 ? ("incremental", "on-success") : ("full", "always")
            // The moment of the backup is between two requests.
            expected.append(await guests.hold())
            try await storage.execute(
                "blockdev-backup",
                ["job-id": "j", "device": "disk", "target": .string(image), "bitmap": "b", "sync": .string(sync), "bitmap-mode": .string(mode)])
            guests.letGo()
            try await wait(for: nil)
        }
        _ = try await guests.stop()
        try await storage.close()
        for (index, moment) in expected.enumerated() { #expect(try contents("backup\(index)") == moment, "backup \(index)") }
        #expect(try run("/usr/bin/qemu-img", ["info", scratch.file("disk")]).contains("name: b"))
    }

    @Test("a moment is read over NBD while guests write")
    func fleecing() async throws {
        try make("disk", filledWith: 4)
        try make("fleece")
        let expected = try contents("disk")
        try await storage.execute("blockdev-add", definition("disk"))
        try await storage.execute("blockdev-add", definition("fleece"))
        let guests = try await Guests(
            try await storage.open(describedBy: #"{"driver": "copy-before-write", "node-name": "guest", "file": "disk", "target": "fleece"}"#))
        let snapshot = try await storage.open(describedBy: #"{"driver": "snapshot-access", "node-name": "snapshot", "file": "guest"}"#)
        try await storage.startNBDServer(.unix(path: scratch.file("nbd.sock")))
        try await storage.export(snapshot, as: "snapshot")
        try await guests.pass(20)
        let uri = "nbd+unix:///snapshot?socket=" + scratch.file("nbd.sock")
        try run("/usr/bin/nbdcopy", [uri, scratch.file("copy")])
        try await guests.pass(20)
        try run("/usr/bin/qemu-img", ["convert", "-f", "raw", "-O", "raw", uri, scratch.file("again")])
        let written = try await guests.stop()
        try await storage.close()
        for copy in ["copy", "again"] { #expect([UInt8](try Data(contentsOf: URL(fileURLWithPath: scratch.file(copy)))) == expected, "\(copy)") }
        #expect(try contents("disk") == written)
        #expect(written != expected)
    }

    @Test("the middle of a chain takes in what is below it under its guests, and the lowest image can go")
    func streamOfTheMiddle() async throws {
        let guests = try await Guests(try await openChain())
        try await guests.pass(20)
        try await storage.execute("block-stream", ["job-id": "j", "device": "mid"])
        try await wait(for: nil)
        try await storage.execute("blockdev-del", ["node-name": "base"])
        try await guests.pass(20)
        let expected = try await guests.stop()
        try await storage.close()
        try FileManager.default.removeItem(atPath: scratch.file("base"))
        #expect(try contents("top") == expected)
    }

    @Test("a base on storage that cannot be written to is refused before anything is touched; with auto-read-only it is committed into and closed again")
    func readOnlyBase() async throws {
        for isWritable in [false, true] {
            let storage = try Storage()
            try make("base", filledWith: 1)
            try make("top", over: "base", filledWith: 2)
            let (whole, before) = (try contents("top"), try Data(contentsOf: URL(fileURLWithPath: scratch.file("base"))))
            let file: JSONValue = ["driver": "file", "filename": .string(scratch.file("base")), "read-only": .bool(!isWritable), "auto-read-only": .bool(isWritable)]
            try await storage.execute("blockdev-add", ["driver": "qcow2", "node-name": "base", "read-only": true, "file": file])
            let top = try await storage.open(describedBy: definition("top", over: "base").text())
            if isWritable {
                try await storage.execute("block-commit", ["job-id": "j", "device": "top", "auto-dismiss": false])
                while try await storage.execute("query-jobs").array?.first?["status"]?.string != "ready" { await Task.yield() }
                try await storage.execute("job-complete", ["id": "j"])
                while try await storage.execute("query-jobs").array?.first?["status"]?.string != "concluded" { await Task.yield() }
                #expect(try await storage.execute("query-jobs").array?.first?["error"] == nil)
                #expect(try await top.read(at: 0, count: Self.size) == whole)
            } else {
                let refusal = await #expect(throws: QMPError.self) { try await storage.execute("block-commit", ["job-id": "j", "device": "top"]) }
                #expect(refusal?.message.contains("read-only") == true)
                #expect(try await storage.execute("query-jobs").array?.isEmpty == true)
            }
            try await storage.close()
            #expect(try contents(isWritable ? "base" : "top") == whole)
            #expect((try Data(contentsOf: URL(fileURLWithPath: scratch.file("base"))) == before) == !isWritable)
        }
        try await storage.close()
    }
}

/// Three guests that write to a disk at random, each to a third of its own, and know what the disk has to be.
private final class Guests: Sendable {
    private struct State {
        var model: [UInt8]
        var requests = 0
        var isEnding = false
        var isHeld = false
        var resting = 0
        var failures: [String] = []
    }

    private static let count = 3
    private let disk: Disk
    private let state: Mutex<State>
    private let tasks = Mutex<[Task<Void, Never>]>([])

    init(_ disk: Disk) async throws {
        self.disk = disk
        state = Mutex(State(model: try await disk.read(at: 0, count: disk.length)))
        let part = disk.length / Self.count
        for number in 0..<Self.count {
            let task = Task { [self] in
                var random = SystemRandomNumberGenerator()
                var isResting = false
                while !state.withLock({ $0.isEnding }) {
                    let isHeld = state.withLock { state in
                        if state.isHeld != isResting { state.resting += isResting ? -1 : 1 }
                        return state.isHeld
                    }
                    isResting = isHeld
                    if isHeld { await Task.yield() } else { await write(in: part * number..<part * (number + 1), &random) }
                }
            }
            tasks.withLock { $0.append(task) }
        }
    }

    private func write(in part: Range<Int>, _ random: inout SystemRandomNumberGenerator) async {
        let count = Int.random(in: 1...20_000, using: &random)
        let start = Int.random(in: part.lowerBound...part.upperBound - count, using: &random)
        let byte = UInt8.random(in: 0...255, using: &random)
        do throws(BlockError) {
            if byte < 20 { try await disk.writeZeroes(at: start, count: count) } else { try await disk.write([UInt8](repeating: byte, count: count), at: start) }
            state.withLock { $0.model.replaceSubrange(start..<start + count, with: repeatElement(byte < 20 ? 0 : byte, count: count)) }
            let expected = state.withLock { Array($0.model[start..<start + count]) }
            if try await disk.read(at: start, count: count) != expected { state.withLock { $0.failures.append("\(count) bytes at \(start) are not what was written") } }
        } catch { state.withLock { $0.failures.append("\(error)") } }
        state.withLock { $0.requests += 1 }
    }

    /// Waits until they have made so many requests more.
    func pass(_ count: Int) async throws {
        let goal = state.withLock { $0.requests } + count
        while state.withLock({ $0.requests }) < goal { await Task.yield() }
    }

    /// Waits until no request is under way, and lets none begin until `letGo`.
    /// - Returns: what the disk holds.
    func hold() async -> [UInt8] {
        state.withLock { $0.isHeld = true }
        while state.withLock({ $0.resting }) < Self.count { await Task.yield() }
        return state.withLock { $0.model }
    }

    func letGo() { state.withLock { $0.isHeld = false } }

    /// - Returns: what the disk has to be.
    func stop() async throws -> [UInt8] {
        state.withLock { $0.isEnding = true }
        for task in tasks.withLock({ $0 }) { await task.value }
        let (model, failures) = state.withLock { ($0.model, $0.failures) }
        #expect(failures.isEmpty, "\(failures.prefix(3))")
        return model
    }
}
