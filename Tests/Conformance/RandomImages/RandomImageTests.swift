import Foundation
import StrataTesting
import Testing

/// Images with random features and histories, made half by our tools and half by QEMU's. Each family reads what the other wrote, and says the
/// same about it.
@Suite("random images between Strata and QEMU")
struct RandomImageTests {
    /// `STRATA_IMAGES` for more than the usual number; `STRATA_SEED` begins elsewhere.
    private static let count = ProcessInfo.processInfo.environment["STRATA_IMAGES"].flatMap { UInt64($0) } ?? (extendedRun ? 5000 : 504)
    private static let lanes: UInt64 = 4

    @Test("both families read, check, map and measure them alike, and find every byte that was written", arguments: 0..<lanes)
    func images(lane: UInt64) throws {
        for index in stride(from: lane, to: Self.count, by: Int(Self.lanes)) {
            let seed = runSeed &+ index
            do {
                let image = try RandomImage(seed: seed)
                if let difference = try Self.difference(image) {
                    Issue.record("STRATA_SEED=\(seed) STRATA_IMAGES=1\n\(image.script.joined(separator: "\n"))\n\(difference)")
                }
            } catch { Issue.record("STRATA_SEED=\(seed) STRATA_IMAGES=1\n\(error)") }
        }
    }

    private static func run(_ tool: Toolset, _ words: [String], _ image: RandomImage) throws -> Finished {
        let (program, arguments) = tool.command(words)
        return try StrataTesting.run(program, arguments, in: image.folder.url)
    }

    /// The first thing that the families do not say alike, or that is not as the model has it.
    private static func difference(_ image: RandomImage) throws -> String? {
        var seesHolesAlike = true
        for question in [["info"], ["check"], ["map"], ["measure", "-O", "qcow2"]] {
            // Describing an encrypted image takes no secret.
            let words = ["img"] + question + ["--output=json"] + (question == ["info"] ? ["-f", "qcow2", image.name] : image.words)
            let answers = try Toolset.allCases.map { try run($0, words, image) }
            guard answers.allSatisfy(\.succeeded) else { return "\(answers[0])\n\(answers[1])" }
            var values = try answers.map { try JSON(parsing: $0.output) }
            if question == ["map"] {
                seesHolesAlike = values[0] == values[1]
                values = values.map(MapExtent.normalised)
            } else if question[0] == "measure", !seesHolesAlike {
                values = values.map { .object(($0.object ?? [:]).filter { $0.key != "required" }) }
            }
            if values[0] != values[1] { return "\(answers[0])\n\(answers[1])" }
        }
        for tool in Toolset.allCases {
            let verified = try run(tool, ["io", "-r"] + image.model.verification.flatMap { ["-c", $0] } + image.words, image)
            if !verified.succeeded || verified.text.contains("failed") { return "\(verified)" }
        }
        for bitmap in image.bitmaps {
            if let difference = try bitmapDifference(image, bitmap) { return "bitmap \(bitmap): \(difference)" }
        }
        return nil
    }

    /// Both servers show the same bits, and all that was touched is among them.
    private static func bitmapDifference(_ image: RandomImage, _ bitmap: String) throws -> String? {
        let maps = try Toolset.allCases.map { tool in
            let (program, arguments) = tool.command(["nbd", "-r", "-B", bitmap] + image.words)
            return try mustRun(
                "nbdinfo", ["--map=qemu:dirty-bitmap:\(bitmap)", "--json", "--", "[", program] + arguments + ["]"], in: image.folder.url)
        }
        let values = try maps.map { try JSON(parsing: $0.output) }
        if values[0] != values[1] { return "\(maps[0])\n\(maps[1])" }
        let dirty = (values[0].array ?? []).compactMap { extent -> Range<Int>? in
            guard extent["type"] == 1, let start = extent["offset"]?.integer, let length = extent["length"]?.integer else { return nil }
            return start / GuestModel.sector..<(start + length + GuestModel.sector - 1) / GuestModel.sector
        }
        let missing = image.model.touched.filter { sector in !dirty.contains { $0.contains(sector) } }
        return missing.isEmpty ? nil : "sector \(missing.sorted()[0]) was written and is clean"
    }
}

/// One extent of `map --output=json`.
struct MapExtent {
    /// The map, with stored zeroes taken for data like any other: the two programs ask the file about holes in different places, and so tell
    /// stored zeroes from other data, and count them in `measure`, in different places.
    static func normalised(_ map: JSON) -> JSON {
        var extents: [[String: JSON]] = []
        for extent in (map.array ?? []).compactMap(\.object) {
            var extent = extent
            if extent["data"] == true { extent["zero"] = "any" }
            if let last = extents.last, let joined = join(last, extent) { extents[extents.count - 1] = joined } else { extents.append(extent) }
        }
        return .array(extents.map(JSON.object))
    }

    private static func join(_ first: [String: JSON], _ second: [String: JSON]) -> [String: JSON]? {
        guard let start = first["start"]?.integer, let length = first["length"]?.integer, second["start"]?.integer == start + length else { return nil }
        if let place = first["offset"]?.integer, second["offset"]?.integer != place + length { return nil }
        func rest(_ extent: [String: JSON]) -> [String: JSON] { extent.filter { !["start", "length", "offset"].contains($0.key) } }
        guard rest(first) == rest(second), (first["offset"] == nil) == (second["offset"] == nil) else { return nil }
        var joined = first
        joined["length"] = .integer(length + (second["length"]?.integer ?? 0))
        return joined
    }
}
