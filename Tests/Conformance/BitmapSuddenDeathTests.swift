import Foundation
import StrataTesting
import Testing

/// SIGKILL while bitmaps of an image note writes, are stored, changed or taken along by a change of the graph.
@Suite("sudden death of a daemon with bitmaps")
struct BitmapSuddenDeathTests {
    /// What the daemon is at when it dies.
    enum Moment: CaseIterable, Sendable {
        /// The image is open, and nobody writes; a client is there, who has written nothing.
        case idle, served
        /// Writes are under way: the first of this daemon's life, or after the bitmaps have been stored and taken up again.
        case writing, writingAgain
        /// The last writer goes: its export ends, in the middle of its writes or after them; the daemon ends; the disk gets an overlay.
        case leaving, leavingAmidWrites, quitting, overlaid
        /// Nobody writes, and commands change bitmaps, or the node.
        case changing, reopening, deactivating
    }

    /// `STRATA_BITMAP_TRIALS` for another number, each of which tells what was found; a seed of `STRATA_SEED` begins elsewhere.
    private static let asked = ProcessInfo.processInfo.environment["STRATA_BITMAP_TRIALS"].flatMap { Int($0) }
    static let trials = asked ?? (extendedRun ? 200 : 22)

    @Test("after SIGKILL a bitmap is exact or inconsistent, and never misses a block", arguments: 0..<trials)
    func killed(number: Int) throws {
        let seed = runSeed &+ UInt64(number)
        let moment = Moment.allCases[number % Moment.allCases.count]
        let folder = try TemporaryFolder()
        var trial = try BitmapTrial(seed: seed, in: folder)
        // Some life that ends well: the bitmap has something in it.
        try trial.liveWell()
        try trial.die(at: moment)
        // Our view first: loading and storing leaves its own mark.
        for program in [nil, "qemu-storage-daemon"] {
            let verdict = try trial.judge(with: program)
            if Self.asked != nil { print("seed \(seed) \(moment) \(program ?? "ours"): \(verdict)") }
            if case .wrong(let problem) = verdict { Issue.record("seed \(seed), \(moment), \(program ?? "ours"): \(problem)") }
            // Where nothing was going on, giving a bitmap up would be no answer.
            if [.idle, .served].contains(moment) { #expect(verdict == .exact, "seed \(seed), \(moment)") }
        }
    }
}

/// An image with a bitmap `b`, which has noted all writes since the disk was empty, and `c`, which notes the same; and what they have to hold.
struct BitmapTrial {
    enum Verdict: Equatable {
        case exact, inconsistent, wrong(String)
    }

    private static let size = 8 << 20
    private static let granularity = 4096
    private static var granules: Int { size / granularity }

    private let folder: TemporaryFolder
    private var random: SeededGenerator
    /// By granule: what acknowledged writes have touched since `b` was empty.
    private var dirty = [Bool](repeating: false, count: BitmapTrial.granules)
    /// What discards, and requests without an acknowledgement, may have touched besides.
    private var unsure = [Bool](repeating: false, count: BitmapTrial.granules)
    /// What `b` may hold instead, because a command was under way.
    private var others: [[Bool]] = []
    /// What the disk held when `b` was last empty.
    private var before = [UInt8](repeating: 0, count: BitmapTrial.size)

    init(seed: UInt64, in folder: TemporaryFolder) throws {
        self.folder = folder
        random = SeededGenerator(seed: seed)
        let clusterSize = [512, 4096, 65536].randomElement(using: &random) ?? 65536
        try QEMU.img("create", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", "disk.qcow2", "\(Self.size)", in: folder)
        for name in ["b", "c"] { try QEMU.img("bitmap", "--add", "-g", "\(Self.granularity)", "disk.qcow2", name, in: folder) }
    }

    // MARK: Living

    private static let options: [String: JSON] = ["driver": "qcow2", "node-name": "disk", "discard": "unmap", "file": "file"]

    private func open(_ program: String?) throws -> Daemon {
        let daemon = try Daemon(program: program, in: folder)
        try daemon.monitor.execute("blockdev-add", ["driver": "file", "node-name": "file", "filename": "disk.qcow2", "discard": "unmap"])
        try daemon.monitor.execute("blockdev-add", .object(Self.options))
        return daemon
    }

    private func export(_ daemon: Daemon) throws -> PlainNBDClient {
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "disk", "node-name": "disk", "name": "disk", "writable": true])
        return try PlainNBDClient(path: daemon.nbdPath, export: "disk")
    }

    /// The last writer goes; afterwards bitmaps are stored, or being stored.
    private func endExport(_ daemon: Daemon) throws {
        try daemon.monitor.execute("block-export-del", ["id": "disk", "mode": "hard"])
        _ = try daemon.monitor.event("BLOCK_EXPORT_DELETED")
    }

    private struct Request {
        let isTrim: Bool
        let range: Range<Int>
        var granules: ClosedRange<Int> { range.lowerBound / BitmapTrial.granularity...(range.upperBound - 1) / BitmapTrial.granularity }
    }

    /// Bytes, in whole sectors.
    private mutating func makeRequest() -> Request {
        let start = Int.random(in: 0..<Self.size / 512, using: &random) * 512
        let count = min(Self.size - start, Int.random(in: 1...100, using: &random) * 512)
        return Request(isTrim: Int.random(in: 0..<3, using: &random) == 0, range: start..<start + count)
    }

    private func send(_ request: Request, _ cookie: UInt64, _ client: PlainNBDClient) throws {
        let count = request.range.count
        if request.isTrim {
            try client.submit(.trim, cookie: cookie, offset: request.range.lowerBound, length: count)
        } else {
            let byte = UInt8(truncatingIfNeeded: cookie % 255 + 1)
            try client.submit(.write, cookie: cookie, offset: request.range.lowerBound, length: count, data: [UInt8](repeating: byte, count: count))
        }
    }

    /// A discard that has changed nothing may be forgotten; whether it has is seen on the disk.
    private mutating func acknowledge(_ request: Request) {
        for granule in request.granules {
            if request.isTrim { unsure[granule] = true } else { dirty[granule] = true }
        }
    }

    /// Requests one after the other.
    private mutating func write(_ client: PlainNBDClient, rounds: Int) throws {
        for round in 0..<rounds {
            let request = makeRequest()
            try send(request, UInt64(round + 1), client)
            _ = try client.reply()
            acknowledge(request)
        }
    }

    /// Keeps eight requests under way until that many replies have come.
    /// - Returns: what is still under way.
    private mutating func keepWriting(_ client: PlainNBDClient, replies: Int) throws -> [UInt64: Request] {
        var inFlight: [UInt64: Request] = [:]
        var (count, cookie) = (0, 0 as UInt64)
        while true {
            while inFlight.count < 8 {
                cookie += 1
                let request = makeRequest()
                inFlight[cookie] = request
                for granule in request.granules { unsure[granule] = true }
                try send(request, cookie, client)
            }
            if count == replies { return inFlight }
            let reply = try client.reply()
            count += 1
            if let request = inFlight.removeValue(forKey: reply.cookie) { acknowledge(request) }
        }
    }

    /// Reads what still comes from a daemon that is dead, or whose export is ending.
    private mutating func hearOut(_ client: PlainNBDClient, _ inFlight: [UInt64: Request]) {
        for _ in inFlight {
            do {
                let reply = try client.reply()
                if let request = inFlight[reply.cookie] { acknowledge(request) }
            } catch is PlainNBDClient.Refusal {
                // An export that ends may refuse what has not begun.
            } catch { return }
        }
    }

    /// A daemon's life that ends in order.
    mutating func liveWell() throws {
        let daemon = try open(Bool.random(using: &random) ? nil : "qemu-storage-daemon")
        try write(try export(daemon), rounds: 10)
        try daemon.quit()
    }

    // MARK: Dying

    /// The daemon gets on with what it was told for a time that the seed chooses. How far it comes differs, and all of it must do.
    private mutating func kill(_ daemon: Daemon) {
        let end = ContinuousClock.now + .microseconds(Int.random(in: 0...Int.random(in: 1...30_000, using: &random), using: &random))
        while ContinuousClock.now < end, daemon.process.isRunning {}
        daemon.process.send(SIGKILL)
    }

    private func tell(_ daemon: Daemon, _ command: String, _ arguments: JSON? = nil) throws {
        var request: [String: JSON] = ["execute": .string(command)]
        request["arguments"] = arguments
        try daemon.monitor.sendLine(String(decoding: try JSON.object(request).encoded(), as: UTF8.self))
    }

    private func tellToReopen(_ daemon: Daemon, readOnly: Bool) throws {
        var options = Self.options
        options["read-only"] = .bool(readOnly)
        try tell(daemon, "blockdev-reopen", ["options": [.object(options)]])
    }

    mutating func die(at moment: BitmapSuddenDeathTests.Moment) throws {
        let daemon = try open(nil)
        switch moment {
        case .idle: kill(daemon)
        case .served:
            _ = try export(daemon)
            kill(daemon)
        case .writing, .writingAgain, .leavingAmidWrites, .overlaid:
            if moment == .writingAgain {
                try write(try export(daemon), rounds: 3)
                try endExport(daemon)
            }
            let client = try export(daemon)
            let inFlight = try keepWriting(client, replies: Int.random(in: 0...30, using: &random))
            if moment == .leavingAmidWrites { try tell(daemon, "block-export-del", ["id": "disk", "mode": "hard"]) }
            if moment == .overlaid {
                try tell(
                    daemon, "blockdev-snapshot-sync",
                    ["node-name": "disk", "snapshot-file": "over.qcow2", "snapshot-node-name": "over", "format": "qcow2"])
            }
            kill(daemon)
            // Of the requests that end from now on nobody knows whether the disk or its overlay has them.
            if moment != .overlaid { hearOut(client, inFlight) }
        case .leaving:
            try write(try export(daemon), rounds: Int.random(in: 0...20, using: &random))
            try tell(daemon, "block-export-del", ["id": "disk", "mode": "hard"])
            kill(daemon)
        case .quitting:
            try write(try export(daemon), rounds: Int.random(in: 0...20, using: &random))
            try tell(daemon, "quit")
            kill(daemon)
        case .changing: try dieWhileChanging(daemon)
        case .reopening:
            try write(try export(daemon), rounds: Int.random(in: 0...20, using: &random))
            try endExport(daemon)
            for index in 0..<4 { try tellToReopen(daemon, readOnly: index % 2 == 0) }
            kill(daemon)
        case .deactivating:
            try write(try export(daemon), rounds: Int.random(in: 0...20, using: &random))
            try endExport(daemon)
            for index in 0..<4 { try tell(daemon, "blockdev-set-active", ["node-name": "disk", "active": .bool(index % 2 != 0)]) }
            kill(daemon)
        }
        _ = try daemon.process.wait()
        // The kernel gives the locks of a killed process back when the last of its requests is over.
        try OpenFiles.waitUntilUnlocked(folder.path("disk.qcow2"))
        try QEMU.mustFindClean("disk.qcow2", in: folder, allowingLeaks: true)
    }

    /// `b` begins anew; then commands change it and others while nobody writes.
    private mutating func dieWhileChanging(_ daemon: Daemon) throws {
        let client = try export(daemon)
        try write(client, rounds: 5)
        before = try client.read(Self.size, at: 0)
        try endExport(daemon)
        let everything = dirty
        try daemon.monitor.execute("block-dirty-bitmap-clear", ["node": "disk", "name": "b"])
        dirty = [Bool](repeating: false, count: BitmapTrial.granules)
        try write(try export(daemon), rounds: Int.random(in: 0...5, using: &random))
        try endExport(daemon)
        let b: JSON = ["node": "disk", "name": "b"]
        // `c` has noted all from the beginning.
        let all = zip(everything, dirty).map { $0 || $1 }
        switch Int.random(in: 0..<4, using: &random) {
        case 0:
            try tell(daemon, "block-dirty-bitmap-merge", ["node": "disk", "target": "b", "bitmaps": ["c"]])
            others = [all]
        case 1:
            try tell(daemon, "block-dirty-bitmap-clear", b)
            others = [[Bool](repeating: false, count: BitmapTrial.granules)]
        case 2:
            try tell(daemon, "block-dirty-bitmap-add", ["node": "disk", "name": "d", "persistent": true])
            try tell(daemon, "block-dirty-bitmap-remove", ["node": "disk", "name": "c"])
        default:
            let merge: JSON = ["node": "disk", "target": "b", "bitmaps": ["c"]]
            let actions: [(String, JSON)] = [
                ("block-dirty-bitmap-add", ["node": "disk", "name": "d", "persistent": true]), ("block-dirty-bitmap-disable", b),
                ("block-dirty-bitmap-clear", b), ("block-dirty-bitmap-merge", merge),
            ]
            try tell(daemon, "transaction", ["actions": .array(actions.map { ["type": .string($0.0), "data": $0.1] })])
            others = [all]
        }
        kill(daemon)
    }

    // MARK: Judging

    /// Opens the image with a daemon and compares what is in `b` with what has to be, and with what has changed on the disk.
    func judge(with program: String?) throws -> Verdict {
        let contents = try QEMU.contents(of: "disk.qcow2", in: folder)
        let daemon = try open(program)
        let nodes = try daemon.monitor.execute("query-named-block-nodes", ["flat": true]).array ?? []
        let bitmaps = nodes.first { $0["node-name"]?.string == "disk" }?["dirty-bitmaps"]?.array ?? []
        guard let bitmap = bitmaps.first(where: { $0["name"]?.string == "b" }) else { return .wrong("the bitmap is gone: \(bitmaps)") }
        if bitmap["inconsistent"] != nil {
            try daemon.quit()
            return .inconsistent
        }
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "look", "node-name": "disk", "name": "look", "writable": true, "bitmaps": ["b"]])
        let map = try mustRun("nbdinfo", ["--json", "--map=qemu:dirty-bitmap:b", daemon.uri("look")], in: folder.url).output
        try daemon.quit()
        var found = [Bool](repeating: false, count: BitmapTrial.granules)
        for extent in try JSON(parsing: map).array ?? [] where extent["type"]?.integer == 1 {
            guard let start = extent["offset"]?.integer, let length = extent["length"]?.integer else { continue }
            for granule in start / Self.granularity..<(start + length + Self.granularity - 1) / Self.granularity { found[granule] = true }
        }
        if others.contains(where: { other in found.indices.allSatisfy { found[$0] ? other[$0] || unsure[$0] : !other[$0] } }) { return .exact }
        for granule in 0..<Self.granules {
            let place = granule * Self.granularity..<(granule + 1) * Self.granularity
            if !found[granule], contents[place] != before[place] { return .wrong("granule \(granule) has changed and is not dirty") }
            if !found[granule], dirty[granule] { return .wrong("granule \(granule) was written to and is not dirty") }
            if found[granule], !dirty[granule], !unsure[granule] { return .wrong("granule \(granule) is dirty, and nobody has written there") }
        }
        return .exact
    }
}
