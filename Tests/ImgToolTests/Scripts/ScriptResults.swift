import Foundation
import StrataTesting

/// What a script has left on both sides: the same files, described alike, with the same contents, and sound.
struct ScriptResults {
    private let pair: ToolPair
    /// Images that `info --backing-chain` has already told about, as the chain above them was described alike.
    private var described: Set<String> = []

    init(_ pair: ToolPair) { self.pair = pair }

    /// - Returns: the first thing that is not the same; nil when everything is.
    mutating func difference() throws -> String? {
        let names = try files(pair.theirs)
        if names != (try files(pair.ours)) { return "files: \(names) and \(try files(pair.ours))" }
        for name in names {
            let (theirs, ours) = try (Self.read(name, in: pair.theirs), Self.read(name, in: pair.ours))
            // No program has to be asked about plain bytes.
            if !Self.isQCOW2(theirs), !Self.isQCOW2(ours) {
                if theirs != ours { return "the bytes of \(name) differ (\(theirs.count) and \(ours.count))" }
                continue
            }
            guard Self.isQCOW2(theirs), Self.isQCOW2(ours) else { return "\(name) is of one format here and of another one there" }
            if let difference = try differentDescriptions(of: name) ?? differentContents(of: name, isEncrypted: Self.isEncrypted(theirs)) { return difference }
            let paths = ["theirs/\(name)", "ours/\(name)"]
            let check = try ToolPair.run(ToolPair.qemu, ["check", "-f", "qcow2", paths[1]], in: pair.root)
            if check.status != 0, try ToolPair.run(ToolPair.qemu, ["check", "-f", "qcow2", paths[0]], in: pair.root).status != check.status { return "\(name) is not sound: \(check)" }
        }
        return nil
    }

    private func files(_ directory: URL) throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() }

    private static func read(_ name: String, in directory: URL) throws -> Data { try Data(contentsOf: directory.appendingPathComponent(name), options: .alwaysMapped) }

    private static func isQCOW2(_ bytes: Data) -> Bool { bytes.starts(with: [0x51, 0x46, 0x49, 0xfb]) }

    /// The header's crypt_method. Source: docs/interop/qcow2.txt, "Header", bytes 32 to 35.
    private static func isEncrypted(_ bytes: Data) -> Bool { bytes.count > 36 && bytes[32..<36].contains { $0 != 0 } }

    private mutating func differentDescriptions(of name: String) throws -> String? {
        if described.contains(name) { return nil }
        var descriptions = try [pair.theirs, pair.ours].map { try Self.description(of: name, in: $0, ["--backing-chain"]) }
        if descriptions[0] == descriptions[1], descriptions[0].status == 0 {
            described.formUnion(descriptions[0].output.matches(of: #/(?m)^image: (?:\S*\/)?(i[0-9])$/#).map { String($0.output.1) })
            return nil
        }
        // Part of the chain is not there.
        descriptions = try [pair.theirs, pair.ours].map { try Self.description(of: name, in: $0) }
        return descriptions[0] == descriptions[1] ? nil : "\(name) is described differently:\n\(descriptions[0].output)\n--- ours:\n\(descriptions[1].output)"
    }

    private func differentContents(of name: String, isEncrypted: Bool) throws -> String? {
        func compare(_ paths: [String]) throws -> ToolPair.Outcome {
            if isEncrypted {
                let images = paths.map { "driver=qcow2,encrypt.key-secret=k,file.filename=\($0)" }
                return try ToolPair.run(ToolPair.qemu, ["compare"] + RandomScript.secret + ["--image-opts"] + images, in: pair.root)
            }
            return try ToolPair.run(ToolPair.qemu, ["compare", "-f", "qcow2", "-F", "qcow2"] + paths, in: pair.root)
        }
        let (theirs, ours) = ("theirs/\(name)", "ours/\(name)")
        let comparison = try compare([theirs, ours])
        if comparison.status == 0 { return nil }
        // A chain that has come apart cannot be read in either place.
        return try compare([theirs, theirs]).status == 0 ? "the contents of \(name) differ: \(comparison)" : nil
    }

    private struct Description: Equatable { let status: Int32, output: String }

    /// What qemu-img says about the image, without what it takes on disk and when its snapshots were taken.
    private static func description(of name: String, in directory: URL, _ options: [String] = []) throws -> Description {
        let outcome = try ToolPair.run(ToolPair.qemu, ["info", "-f", "qcow2"] + options + [name], in: directory)
        let lines = outcome.output.split(separator: "\n").filter { !$0.contains("disk size:") && !$0.contains("file length:") }
        let text = lines.joined(separator: "\n").replacing(#/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}/#, with: "DATE").replacing(#/(iters|uuid): [0-9a-f-]+/#) { "\($0.output.1)" }
        return Description(status: outcome.status, output: text)
    }
}
