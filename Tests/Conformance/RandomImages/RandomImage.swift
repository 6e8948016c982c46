import Foundation
import StrataTesting

/// The two families of tools. Both take the same command lines.
enum Toolset: CaseIterable {
    case ours, theirs

    func command(_ words: [String]) -> (program: String, arguments: [String]) {
        switch self {
        case .ours: (Strata.binary, words)
        case .theirs: ("qemu-\(words[0])", Array(words.dropFirst()))
        }
    }
}

/// A qcow2 image with features and a history that a seed decides. Each step is one process of one of the two families; what a guest must read
/// afterwards is known from a model.
struct RandomImage {
    /// Who does the steps.
    enum Makers: Int, CaseIterable { case ours, theirs, both }

    let folder: TemporaryFolder
    let name = "disk.qcow2"
    private(set) var model: GuestModel
    private(set) var bitmaps: [String] = []
    /// The commands so far, as a person can type them.
    private(set) var script: [String] = []

    private var random: SeededGenerator
    private let makers: Makers
    private let features: ImageFeatures
    private var snapshots: [String: [UInt8]] = [:]
    /// Clusters that may have been written, where QEMU refuses compressed writes.
    private var written: Set<Int> = []

    init(seed: UInt64) throws {
        folder = try TemporaryFolder()
        random = SeededGenerator(seed: seed)
        makers = Makers.allCases[Int(seed % 3)]
        features = ImageFeatures(&random)
        model = GuestModel(byteCount: features.byteCount)
        do {
            try makeBacking()
            try create()
            for _ in 0..<Int.random(in: 2...5, using: &random) { try step() }
        } catch { throw HarnessError("\(script.joined(separator: "\n"))\n\(error)") }
    }

    /// Options and name that open the image, the name last.
    var words: [String] {
        features.isEncrypted
            ? secretWords + ["--image-opts", "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=\(name)"] : ["-f", "qcow2", name]
    }

    /// The same for a command that asks for no format.
    private var wordsWithoutFormat: [String] { features.isEncrypted ? words : [name] }

    private var secretWords: [String] { features.isEncrypted ? ["--object", "secret,id=s,data=abc"] : [] }

    // MARK: Making

    private mutating func maker() -> Toolset {
        switch makers {
        case .ours: .ours
        case .theirs: .theirs
        case .both: Toolset.allCases.randomElement(using: &random) ?? .ours
        }
    }

    private mutating func carryOut(_ tool: Toolset, _ words: [String]) throws {
        let (program, arguments) = tool.command(words)
        script.append(([tool == .ours ? "strata" : program] + arguments).map { $0.contains(" ") ? "'\($0)'" : $0 }.joined(separator: " "))
        try mustRun(program, arguments, in: folder.url)
    }

    private mutating func makeBacking() throws {
        guard let backing = features.backing else { return }
        let create = ["img", "create", "-q", "-f", backing.format] + backing.options + [backing.name, "\(backing.byteCount)"]
        try carryOut(maker(), create)
        var base = GuestModel(byteCount: backing.byteCount)
        var commands: [String] = []
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            let range = Self.range(base.byteCount, &random), byte = UInt8.random(in: 1...255, using: &random)
            commands += ["-c", "write -P \(byte) \(range.lowerBound) \(range.count)"]
            base.fill(range, with: byte)
        }
        try carryOut(maker(), ["io", "-f", backing.format] + commands + [backing.name])
        base.resize(to: model.byteCount)
        model.take(base.sectors)
    }

    /// Both families accept the same options. The image is the one of the family whose turn it is.
    private mutating func create() throws {
        let words = ["img", "create", "-q"] + secretWords + ["-f", "qcow2", "-o", features.text] + features.backingArguments + [name, "\(features.byteCount)"]
        try carryOut(maker(), words)
    }

    // MARK: History

    private mutating func step() throws {
        switch Int.random(in: 0..<12, using: &random) {
        case 0, 1: try snapshotStep()
        case 2: try bitmapStep()
        case 3: try resizeStep()
        case 4: try amendStep()
        default: try ioStep()
        }
    }

    /// A range of sectors, small or large, at the beginning or end of a cluster or not.
    private static func range(_ byteCount: Int, _ random: inout SeededGenerator) -> Range<Int> {
        let units = byteCount / GuestModel.sector
        let start = Int.random(in: 0..<units, using: &random)
        let longest = [4, 64, units].randomElement(using: &random) ?? 4
        return start * GuestModel.sector..<min(units, start + Int.random(in: 1...longest, using: &random)) * GuestModel.sector
    }

    /// The whole clusters around a range; the last may be cut off by the end of the disk.
    private func clusters(around range: Range<Int>) -> Range<Int> {
        let size = features.clusterSize
        return range.lowerBound / size * size..<min(model.byteCount, (range.upperBound + size - 1) / size * size)
    }

    private mutating func ioStep() throws {
        var commands: [String] = []
        let tool = maker()
        // QEMU 10.0 loses data when one process frees a compressed cluster, writes to its place and compresses again: the new stream goes on where the
        // freed one ended. Its compressed writes have processes of their own.
        let compresses = features.canCompress && (tool == .ours || Int.random(in: 0..<4, using: &random) == 0)
        let compressesOnly = compresses && tool == .theirs
        for _ in 0..<Int.random(in: 2...10, using: &random) {
            var range = Self.range(model.byteCount, &random)
            var byte: UInt8 = 0
            switch compressesOnly ? 15 : Int.random(in: 0..<20, using: &random) {
            case 0..<9:
                byte = UInt8.random(in: 1...255, using: &random)
                commands.append("write -P \(byte) \(range.lowerBound) \(range.count)")
            case 9..<11: commands.append("write -z \(range.lowerBound) \(range.count)")
            case 11..<13: commands.append("write -z -u \(range.lowerBound) \(range.count)")
            case 13..<15 where features.discardsToZero:
                range = clusters(around: range)
                commands.append("discard \(range.lowerBound) \(range.count)")
            case 15..<18 where compresses:
                let cluster = range.lowerBound / features.clusterSize
                range = clusters(around: range.lowerBound..<range.lowerBound + 1)
                if written.contains(cluster) || range.count < features.clusterSize { continue }
                byte = UInt8.random(in: 1...255, using: &random)
                commands.append("write -c -P \(byte) \(range.lowerBound) \(range.count)")
            case 18: commands.append("flush"); continue
            default: commands.append("read \(range.lowerBound) \(range.count)"); continue
            }
            written.formUnion(range.lowerBound / features.clusterSize...(range.upperBound - 1) / features.clusterSize)
            model.fill(range, with: byte)
        }
        if commands.isEmpty { return }
        try carryOut(tool, ["io", "-d", "unmap"] + commands.flatMap { ["-c", $0] } + words)
    }

    private mutating func snapshotStep() throws {
        guard features.canSnapshot else { return try ioStep() }
        if let chosen = snapshots.keys.sorted().randomElement(using: &random), Bool.random(using: &random) {
            // Bitmaps do not know what applying a snapshot changes, so that it is refused.
            if Bool.random(using: &random), bitmaps.isEmpty, let sectors = snapshots[chosen] {
                try carryOut(maker(), ["img", "snapshot", "-a", chosen] + wordsWithoutFormat)
                model.take(sectors)
            } else {
                try carryOut(maker(), ["img", "snapshot", "-d", chosen] + wordsWithoutFormat)
                snapshots[chosen] = nil
            }
        } else if snapshots.count < 2 {
            let new = "s\(script.count)"
            try carryOut(maker(), ["img", "snapshot", "-c", new] + wordsWithoutFormat)
            snapshots[new] = model.sectors
        }
    }

    private mutating func bitmapStep() throws {
        guard features.version == 3 else { return try ioStep() }
        if bitmaps.count < 2 {
            let new = "b\(script.count)"
            let granularity = 1 << Int.random(in: 9...17, using: &random)
            try carryOut(.theirs, ["img", "bitmap", "--add", "-g", "\(granularity)"] + words + [new])
            bitmaps.append(new)
            // From here on every bitmap has these; the older ones have more.
            model.forgetTouched()
        } else {
            try carryOut(.theirs, ["img", "bitmap", "--remove"] + words + [bitmaps.removeFirst()])
        }
    }

    private mutating func resizeStep() throws {
        // A snapshot's size comes back with it. Over a backing file a new part needs zeroes, which version 2 does not have.
        guard snapshots.isEmpty, bitmaps.isEmpty, features.discardsToZero else { return try ioStep() }
        let size = max(GuestModel.sector, model.byteCount + Int.random(in: -40...40, using: &random) * GuestModel.sector)
        try carryOut(maker(), ["img", "resize", "-q"] + (size < model.byteCount ? ["--shrink"] : []) + words + ["\(size)"])
        if size > model.byteCount, features.backing != nil {
            // What the backing file has there is covered by zeroes.
            written.formUnion(model.byteCount / features.clusterSize...size / features.clusterSize)
        }
        model.resize(to: size)
    }

    private mutating func amendStep() throws {
        guard features.version == 3 else { return try ioStep() }
        try carryOut(maker(), ["img", "amend", "-o", "lazy_refcounts=\(Bool.random(using: &random) ? "on" : "off")"] + words)
    }
}
