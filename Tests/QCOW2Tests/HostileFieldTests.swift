import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import Synchronization
import Testing

/// Every offset, size and count that an image has, with every value that somebody's parser once stumbled over. The image is sound otherwise.
@Suite("hostile fields of qcow2 images")
struct HostileFieldTests {
    struct Field: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// Bytes.
        let size: Int
        /// Where it lies.
        let place: @Sendable (Image) -> Int
    }

    /// An image and where its tables are.
    struct Image {
        let bytes: [UInt8]

        func number(_ offset: Int, _ size: Int) -> Int { bytes[offset..<offset + size].reduce(0) { $0 << 8 | Int($1) } }
        var snapshot: Int { number(64, 8) }
        var l1: Int { number(40, 8) }
        var refcountTable: Int { number(48, 8) }
        /// The data of the bitmaps extension.
        var bitmaps: Int {
            var place = number(100, 4)
            while number(place, 4) != 0x2385_2875, number(place, 4) != 0 { place += 8 + (number(place + 4, 4) + 7) / 8 * 8 }
            return place + 8
        }
        var bitmap: Int { number(bitmaps + 16, 8) }

        static func offset(_ entry: Int) -> Int { entry & 0x00ff_ffff_ffff_fe00 }
    }

    private static func header(_ name: String, _ offset: Int, _ size: Int) -> Field { Field(testDescription: name, size: size) { _ in offset } }

    static let fields: [Field] = [
        header("backing file's offset", 8, 8), header("length of the backing file's name", 16, 4), header("cluster_bits", 20, 4), header("virtual size", 24, 8), header("crypt_method", 32, 4),
        header("l1_size", 36, 4), header("l1_table_offset", 40, 8), header("refcount_table_offset", 48, 8), header("refcount_table_clusters", 56, 4),
        header("nb_snapshots", 60, 4), header("snapshots_offset", 64, 8), header("incompatible_features", 72, 8), header("autoclear_features", 88, 8),
        header("refcount_order", 96, 4), header("header_length", 100, 4), header("type of the first extension", 112, 4), header("length of the first extension", 116, 4),
        Field(testDescription: "a snapshot's L1 table", size: 8) { $0.snapshot }, Field(testDescription: "a snapshot's l1_size", size: 4) { $0.snapshot + 8 },
        Field(testDescription: "length of a snapshot's id", size: 2) { $0.snapshot + 12 }, Field(testDescription: "length of a snapshot's name", size: 2) { $0.snapshot + 14 },
        Field(testDescription: "a snapshot's VM state size", size: 4) { $0.snapshot + 32 }, Field(testDescription: "a snapshot's extra data size", size: 4) { $0.snapshot + 36 },
        Field(testDescription: "a snapshot's disk size", size: 8) { $0.snapshot + 48 }, Field(testDescription: "number of bitmaps", size: 4) { $0.bitmaps },
        Field(testDescription: "size of the bitmap directory", size: 8) { $0.bitmaps + 8 }, Field(testDescription: "offset of the bitmap directory", size: 8) { $0.bitmaps + 16 },
        Field(testDescription: "a bitmap's table", size: 8) { $0.bitmap }, Field(testDescription: "size of a bitmap's table", size: 4) { $0.bitmap + 8 },
        Field(testDescription: "a bitmap's flags", size: 4) { $0.bitmap + 12 }, Field(testDescription: "a bitmap's type", size: 1) { $0.bitmap + 16 },
        Field(testDescription: "a bitmap's granularity", size: 1) { $0.bitmap + 17 }, Field(testDescription: "length of a bitmap's name", size: 2) { $0.bitmap + 18 },
        Field(testDescription: "a bitmap's extra data size", size: 4) { $0.bitmap + 20 }, Field(testDescription: "entry of a bitmap's table", size: 8) { $0.number($0.bitmap, 8) },
        Field(testDescription: "refcount table entry", size: 8) { $0.refcountTable }, Field(testDescription: "refcounts", size: 8) { $0.number($0.refcountTable, 8) },
        Field(testDescription: "L1 entry", size: 8) { $0.l1 }, Field(testDescription: "L2 entry", size: 8) { Image.offset($0.number($0.l1, 8)) + 16 },
        Field(testDescription: "entry of a snapshot's L1 table", size: 8) { $0.number($0.snapshot, 8) },
    ]

    /// Nothing, inside the header, unaligned, the last cluster, the end, beyond it, and what overflows or is negative.
    static func values(_ size: Int, _ end: Int) -> Set<UInt64> {
        let all: [UInt64] = [
            0, 1, 7, 64, 512, 513, UInt64(end - 512), UInt64(end), UInt64(end + 512), 1 << 31, (1 << 32) - 1, 1 << 55, 1 << 56, 1 << 62, (1 << 63) - 512, 1 << 63, 1 << 63 | 512,
            1 << 62 | 512, .max,
        ]
        return Set(all.map { size == 8 ? $0 : $0 & (1 << UInt64(size * 8) - 1) } + [UInt64.max >> UInt64(64 - size * 8)])
    }

    static let isExtended = ProcessInfo.processInfo.environment["STRATA_EXTENDED"] != nil

    @Test("no value of a field reaches a trap, costs much time or makes the file grow; what is refused is refused in one line", arguments: fields)
    func everyValue(field: Field) async throws {
        let scratch = try Scratch()
        let image = Image(bytes: try HostileImageTests.base(scratch, clusterSize: 512))
        let place = field.place(image)
        try #require(place > 0 && place + field.size <= image.bytes.count && image.number(image.bitmaps - 8, 4) == 0x2385_2875)
        try await onContext { context in
            let offset = Self.fields.firstIndex { $0.testDescription == field.testDescription } ?? 0
            for (number, value) in Self.values(field.size, image.bytes.count).sorted().enumerated() {
                var bytes = image.bytes
                for index in 0..<field.size { bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (field.size - 1 - index))) }
                let begin = ContinuousClock.now
                // Every value is opened and checked. Using and repairing takes longer: a few values of each field, and all in the extended run.
                if Self.isExtended || (number + offset) % 6 == 0 { _ = await HostileImageTests.exercise(bytes, 1, context) }
                let taken = ContinuousClock.now - begin
                #expect(taken < .seconds(20), "\(field.testDescription) = 0x\(String(value, radix: 16)): \(taken)")
                let recorder = Recorder(disk: bytes)
                defer { recorder.forget() }
                recorder.state.withLock { ($0.isSlow, $0.isRecording) = (false, false) }
                do {
                    try await withImage(recorder.imageOptions(readOnly: true), context) { disk in
                        _ = try await disk.node.checking?.check(repair: [])
                        if disk.length >= 4096 { _ = try await disk.readBytes(at: 0, 4096) }
                    }
                } catch {
                    let message = (error as? BlockError)?.message ?? "\n"
                    #expect(!message.isEmpty && !message.contains("\n"), "\(field.testDescription) = 0x\(String(value, radix: 16)): \(error)")
                }
            }
        }
    }
}
