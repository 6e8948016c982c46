import IOCore
import StrataBase
package import StrataTesting

/// The contents of sectors by number: equal contents have equal numbers, zeroes have 0. States of a disk are then arrays of small numbers.
package final class SectorContents {
    package static let size = 512

    package private(set) var bytes: [[UInt8]] = [[UInt8](repeating: 0, count: size)]
    package init() {}

    private var numbers: [[UInt8]: Int32] = [[UInt8](repeating: 0, count: size): 0]
    private var parsed: [[UInt64]?] = [[UInt64](repeating: 0, count: size / 8)]
    private var expanded: [[UInt8]: [Int32]] = [:]

    package func number(of content: [UInt8]) -> Int32 {
        if let known = numbers[content] { return known }
        let number = Int32(bytes.count)
        bytes.append(content)
        parsed.append(nil)
        numbers[content] = number
        return number
    }

    package func words(_ number: Int32) -> [UInt64] {
        if let words = parsed[Int(number)] { return words }
        let content = bytes[Int(number)]
        let words = (0..<Self.size / 8).map { word in content[word * 8..<word * 8 + 8].reduce(0) { $0 << 8 | UInt64($1) } }
        parsed[Int(number)] = words
        return words
    }

    /// What a deflate stream expands to; nil when it is broken.
    /// - Parameter count: sectors.
    package func expand(_ stream: [UInt8], to count: Int) -> [Int32]? {
        if let known = expanded[stream] { return known.isEmpty ? nil : known }
        let output = IOBuffer(byteCount: count * Self.size)
        var numbers: [Int32] = []
        do {
            try StreamFormat.deflate.expand(IOBuffer(copying: stream), into: output)
            numbers = self.numbers(of: QCOW2Testing.bytes(of: output))
        } catch { numbers = [] }
        expanded[stream] = numbers
        return numbers.isEmpty ? nil : numbers
    }

    package func numbers(of disk: [UInt8]) -> [Int32] {
        stride(from: 0, to: disk.count, by: Self.size).map { start in
            let part = Array(disk[start..<min(start + Self.size, disk.count)])
            return number(of: part.count == Self.size ? part : part + [UInt8](repeating: 0, count: Self.size - part.count))
        }
    }
}

/// What happened to a disk, sector by sector.
package enum SectorEvent {
    /// Sectors with what they held afterwards.
    case write([(sector: Int, content: Int32)])
    case flush
    /// Sectors.
    case length(Int)

    /// - Parameter log: what was recorded from `initial` on.
    package static func list(_ log: [RecordedOperation], from initial: [UInt8], _ contents: SectorContents) -> [SectorEvent] {
        var live = initial
        let size = SectorContents.size
        return log.map { operation in
            switch operation {
            case .flush: return .flush
            case .resize(let count):
                let rounded = count.roundedUp(to: size)
                if rounded < live.count { live.removeLast(live.count - rounded) } else { live += [UInt8](repeating: 0, count: rounded - live.count) }
                return .length(rounded / size)
            case .write(let offset, let bytes):
                let end = (offset + bytes.count).roundedUp(to: size)
                if end > live.count { live += [UInt8](repeating: 0, count: end - live.count) }
                live.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
                return .write((offset / size..<end / size).map { ($0, contents.number(of: Array(live[$0 * size..<($0 + 1) * size]))) })
            }
        }
    }
}

/// A disk with a volatile cache: what it may hold after a crash. Each sector holds what it held at the last flush or anything that was written to it since.
package struct VolatileDisk {
    package private(set) var base: [Int32]
    private var pending: [(sector: Int, versions: [Int32])] = []
    private var length: Int

    package init(_ base: [Int32]) {
        self.base = base
        length = base.count
    }

    package mutating func apply(_ event: SectorEvent) {
        switch event {
        case .flush:
            for (sector, versions) in pending { if let last = versions.last { base[sector] = last } }
            pending = []
            if base.count > length { base.removeLast(base.count - length) }
        case .length(let count):
            if count > base.count { base += [Int32](repeating: 0, count: count - base.count) }
            if count < length { for sector in count..<length { note(sector, 0) } }
            length = count
        case .write(let sectors):
            for (sector, content) in sectors {
                if sector >= base.count { base += [Int32](repeating: 0, count: sector + 1 - base.count) }
                length = max(length, sector + 1)
                note(sector, content)
            }
        }
    }

    private mutating func note(_ sector: Int, _ content: Int32) {
        if let index = pending.firstIndex(where: { $0.sector == sector }) {
            if pending[index].versions.last != content { pending[index].versions.append(content) }
        } else if base[sector] != content {
            pending.append((sector, [content]))
        }
    }

    /// The states that a crash may leave: all of them if they are at most `limit`, else the telling ones and some at random.
    /// - Parameter body: is handed the disk and what makes the state different from others with the same base.
    package func forEachState(limit: Int, _ random: inout SeededGenerator, _ body: ([Int32], [Int32]) throws -> Void) rethrows {
        let counts = pending.map { $0.versions.count + 1 }
        var total = 1
        for count in counts where total <= limit { total *= count }
        var disk = base
        func visit(_ choice: [Int], _ disk: inout [Int32]) throws {
            var key: [Int32] = []
            for (number, version) in choice.enumerated() {
                let entry = pending[number]
                disk[entry.sector] = version == 0 ? base[entry.sector] : entry.versions[version - 1]
                key.append(Int32(entry.sector))
                key.append(disk[entry.sector])
            }
            try body(disk, key)
        }
        if total <= limit {
            for number in 0..<total {
                var rest = number
                let choice = counts.map { count in
                    defer { rest /= count }
                    return rest % count
                }
                try visit(choice, &disk)
            }
            return
        }
        let none = counts.map { _ in 0 }, all = counts.map { $0 - 1 }
        try visit(none, &disk)
        try visit(all, &disk)
        for index in counts.indices.shuffled(using: &random).prefix(limit / 4) {
            var (alone, missing) = (none, all)
            alone[index] = all[index]
            missing[index] = 0
            try visit(alone, &disk)
            try visit(missing, &disk)
        }
        for _ in 0..<limit / 2 { try visit(counts.map { Int.random(in: 0..<$0, using: &random) }, &disk) }
    }
}
