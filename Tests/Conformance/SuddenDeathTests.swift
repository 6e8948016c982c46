import Foundation
import StrataTesting
import Testing

/// SIGKILL at any moment, again and again on one image, under a client that writes, zeroes, discards and flushes.
///
/// Every sector that the client writes says which sector it is and when it was written, so that another block's data is recognised.
@Suite("sudden death of the daemon")
struct SuddenDeathTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let options: String
        /// What discards are multiples of, in bytes: the unit in which the image maps.
        let unit: Int
        var testDescription: String { options }
    }

    static let cases: [Case] = [
        Case(options: "cluster_size=512", unit: 512), Case(options: "cluster_size=4k,refcount_bits=64", unit: 4096),
        Case(options: "cluster_size=64k", unit: 65536), Case(options: "cluster_size=16k,extended_l2=on", unit: 512),
        Case(options: "cluster_size=64k,lazy_refcounts=on", unit: 65536),
    ]
    static let rounds = extendedRun ? 40 : 4
    static let size = 8 << 20

    @Test("nothing flushed is lost or is another block's, and check finds leaks at worst", arguments: cases.indices)
    func killed(index: Int) throws {
        let test = Self.cases[index]
        let seed = runSeed &+ UInt64(index)
        var random = SeededGenerator(seed: seed)
        let folder = try TemporaryFolder()
        try Strata.mustImg("create", "-q", "-f", "qcow2", "-o", test.options, "disk.qcow2", "\(Self.size)", in: folder)
        var disk = WitnessedDisk(byteCount: Self.size)
        for round in 0..<Self.rounds {
            let daemon = try Daemon(in: folder)
            try daemon.serve("disk.qcow2", discard: "unmap")
            try Self.live(daemon, test, &disk, &random)
            try daemon.process.wait()
            try OpenFiles.waitUntilUnlocked(folder.path("disk.qcow2"))
            let what = "\(test.options), seed \(seed), round \(round)"
            try QEMU.mustFindClean("disk.qcow2", in: folder, allowingLeaks: true)
            let ours = try Strata.img("check", "-f", "qcow2", "disk.qcow2", in: folder)
            #expect([.exited(0), .exited(3)].contains(ours.ending), "\(what): \(ours)")
            if let problem = disk.settle(on: try QEMU.contents(of: "disk.qcow2", in: folder)) { throw HarnessError("\(what): \(problem)") }
            // Leaks pile up in some rounds and are repaired in others.
            if round % 3 == 2 {
                try Strata.mustImg("check", "-q", "-r", "leaks", "-f", "qcow2", "disk.qcow2", in: folder)
                try QEMU.mustFindClean("disk.qcow2", in: folder)
            }
        }
    }

    @Test("the judge is not blind: lost, misplaced and torn sectors are seen, unflushed ones may be old or new")
    func judgeSees() {
        var disk = WitnessedDisk(byteCount: 4 * 512)
        let first = WitnessedDisk.Request.write(0..<2, generation: disk.nextGeneration)
        disk.begin(first)
        disk.end(first)
        let flush = WitnessedDisk.Request.flush(horizon: disk.horizon)
        let second = WitnessedDisk.Request.write(1..<3, generation: disk.nextGeneration)
        disk.begin(second)
        disk.end(second)
        disk.end(flush)
        func found(_ sectors: [(Int, UInt32)]) -> [UInt8] { sectors.flatMap { WitnessedDisk.contents(sector: $0.0, generation: $0.1) } }
        for (sectors, isFine) in [
            ([(0, 1), (1, 2), (2, 2), (3, 0)], true), ([(0, 1), (1, 1), (2, 0), (3, 0)], true), ([(0, 0), (1, 1), (2, 0), (3, 0)], false),
            ([(0, 1), (1, 0), (2, 0), (3, 0)], false), ([(0, 1), (1, 1), (1, 2), (3, 0)], false), ([(0, 1), (1, 1), (2, 0), (3, 2)], false),
        ] as [([(Int, UInt32)], Bool)] {
            var copy = disk
            #expect((copy.settle(on: found(sectors)) == nil) == isFine, "\(sectors)")
        }
        var torn = found([(0, 1), (1, 2), (2, 2), (3, 0)])
        torn[700] ^= 1
        #expect(disk.settle(on: torn) != nil)
    }

    /// Requests, up to sixteen at a time, until the daemon is killed after a number of replies that the seed says, in the middle of the next ones.
    private static func live(_ daemon: Daemon, _ test: Case, _ disk: inout WitnessedDisk, _ random: inout SeededGenerator) throws {
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        let lastReply = Int.random(in: 1...600, using: &random)
        var inFlight: [UInt64: WitnessedDisk.Request] = [:]
        var replies = 0
        var isKilled = false
        var cookie: UInt64 = 0
        do {
            while true {
                while !isKilled, inFlight.count < 16 {
                    guard let request = Self.request(test, disk, inFlight.values.compactMap(\.range), &random) else { break }
                    cookie += 1
                    inFlight[cookie] = request
                    disk.begin(request)
                    try send(request, cookie, disk, client)
                }
                if replies >= lastReply, !isKilled {
                    // The daemon is at work on what was sent; how far it gets is for the machine to decide.
                    usleep(UInt32.random(in: 0..<3000, using: &random))
                    daemon.process.send(SIGKILL)
                    isKilled = true
                }
                let reply = try client.reply()
                replies += 1
                if let request = inFlight.removeValue(forKey: reply.cookie) { disk.end(request) }
            }
        } catch let error as HarnessError {
            // The connection ends with the daemon, after the replies that were on their way.
            guard isKilled else { throw error }
        }
    }

    /// A request that does not touch what another in flight does; nil if none was found.
    private static func request(_ test: Case, _ disk: WitnessedDisk, _ busy: [Range<Int>], _ random: inout SeededGenerator) -> WitnessedDisk.Request? {
        let kind = Int.random(in: 0..<100, using: &random)
        if kind < 8 { return .flush(horizon: disk.horizon) }
        for _ in 0..<8 {
            // Most of the time the first quarter: clusters are freed and taken again.
            let limit = (Int.random(in: 0..<4, using: &random) == 0 ? size : size / 4) / WitnessedDisk.sector
            let start = Int.random(in: 0..<limit, using: &random)
            var range = start..<min(limit, start + Int.random(in: 1...[4, 40, 300][Int.random(in: 0..<3, using: &random)], using: &random))
            if kind >= 75 {
                let unit = test.unit / WitnessedDisk.sector
                range = range.lowerBound / unit * unit..<(range.upperBound + unit - 1) / unit * unit
            }
            if busy.contains(where: { $0.overlaps(range) }) { continue }
            return kind < 55 ? .write(range, generation: disk.nextGeneration) : kind < 75 ? .zero(range, hole: kind < 68) : .discard(range)
        }
        return nil
    }

    private static func send(_ request: WitnessedDisk.Request, _ cookie: UInt64, _ disk: WitnessedDisk, _ client: PlainNBDClient) throws {
        func place(_ range: Range<Int>) -> (offset: Int, length: Int) { (range.lowerBound * WitnessedDisk.sector, range.count * WitnessedDisk.sector) }
        switch request {
        case .flush: try client.submit(.flush, cookie: cookie)
        case .write(let range, let generation):
            let data = range.flatMap { WitnessedDisk.contents(sector: $0, generation: generation) }
            try client.submit(.write, cookie: cookie, offset: place(range).offset, length: data.count, data: data)
        case .zero(let range, let hole):
            // Bit 1: no hole is to be made.
            try client.submit(.writeZeroes, flags: hole ? 0 : 2, cookie: cookie, offset: place(range).offset, length: place(range).length)
        case .discard(let range): try client.submit(.trim, cookie: cookie, offset: place(range).offset, length: place(range).length)
        }
    }
}

/// What each sector of a disk may hold when its server dies.
struct WitnessedDisk {
    static let sector = 512

    enum Request {
        /// Sectors.
        case write(Range<Int>, generation: UInt32)
        case zero(Range<Int>, hole: Bool)
        case discard(Range<Int>)
        /// - Parameter horizon: what has ended before it began is durable when it ends.
        case flush(horizon: Int)

        var range: Range<Int>? {
            switch self {
            case .write(let range, _), .zero(let range, _), .discard(let range): range
            case .flush: nil
            }
        }
    }

    /// Generation 0 is a sector of zeroes.
    private struct Version {
        var generation: UInt32
        /// When the request was acknowledged, by the count of acknowledgements; nil as long as it is under way.
        var end: Int?
    }

    /// Of each sector the oldest is durable; the others came since.
    private var versions: [[Version]]
    private var acknowledged = 0
    private(set) var nextGeneration: UInt32 = 1

    init(byteCount: Int) { versions = Array(repeating: [Version(generation: 0, end: 0)], count: byteCount / Self.sector) }

    var horizon: Int { acknowledged }

    /// A sector's number and a generation, over and over.
    static func contents(sector: Int, generation: UInt32) -> [UInt8] {
        if generation == 0 { return [UInt8](repeating: 0, count: Self.sector) }
        let stamp = withUnsafeBytes(of: (UInt32(sector).bigEndian, generation.bigEndian)) { Array($0) }
        return (0..<Self.sector / 8).flatMap { _ in stamp }
    }

    mutating func begin(_ request: Request) {
        guard let range = request.range else { return }
        var generation: UInt32 = 0
        if case .write(_, let number) = request {
            generation = number
            nextGeneration += 1
        }
        for sector in range { versions[sector].append(Version(generation: generation, end: nil)) }
    }

    /// - Precondition: no other request on these sectors has begun meanwhile.
    mutating func end(_ request: Request) {
        acknowledged += 1
        switch request {
        case .write(let range, _), .zero(let range, _), .discard(let range):
            for sector in range { versions[sector][versions[sector].count - 1].end = acknowledged }
        case .flush(let horizon):
            for sector in versions.indices where versions[sector].count > 1 {
                let durable = versions[sector].lastIndex { ($0.end ?? .max) <= horizon } ?? 0
                versions[sector].removeFirst(durable)
            }
        }
    }

    /// Compares what was found after a crash with what may be there, and goes on from what was found.
    /// - Returns: what is wrong, if anything.
    mutating func settle(on found: [UInt8]) -> String? {
        guard found.count == versions.count * Self.sector else { return "the disk has \(found.count) bytes" }
        for sector in versions.indices {
            let place = sector * Self.sector
            let isSettled = found.withUnsafeBytes { raw in
                let here = UnsafeRawBufferPointer(rebasing: raw[place..<place + Self.sector])
                // The newest first: that is what is there most of the time.
                guard let match = versions[sector].last(where: { Self.contents(sector: sector, generation: $0.generation).elementsEqual(here) }) else { return false }
                versions[sector] = [Version(generation: match.generation, end: acknowledged)]
                return true
            }
            if !isSettled {
                func number(_ offset: Int) -> UInt32 { found[place + offset..<place + offset + 4].reduce(0) { $0 << 8 | UInt32($1) } }
                return "sector \(sector) holds sector \(number(0)) of generation \(number(4)); allowed are the generations \(versions[sector].map(\.generation))"
            }
        }
        return nil
    }
}
