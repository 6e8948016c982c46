import Foundation
import StrataTesting
import Testing

/// The options with which images are created and measured, in random combinations.
@Suite("creating images with random options by Strata and QEMU")
struct RandomCreationTests {
    /// What differs from one image to the next, whoever makes it; and where preallocated tables lie between the data is up to the maker.
    private static let accidental: Set = ["actual-size", "uuid", "iters", "master-key-iters", "fragmented-clusters"]

    private static func comparable(_ value: JSON) -> JSON {
        switch value {
        case .object(let members): .object(members.filter { !accidental.contains($0.key) }.mapValues(comparable))
        case .array(let items): .array(items.map(comparable))
        default: value
        }
    }

    @Test("both make images that QEMU describes, checks and maps alike, and measure the same", arguments: 0..<(extendedRun ? 400 : 40) as Range<UInt64>)
    func creation(number: UInt64) throws {
        let seed = runSeed &+ 7000 &+ number
        var random = SeededGenerator(seed: seed)
        let features = ImageFeatures(&random)
        let secret = features.isEncrypted ? ["--object", "secret,id=s,data=abc"] : []
        let create = ["img", "create", "-q"] + secret + ["-f", "qcow2", "-o", features.text] + features.backingArguments + ["disk.qcow2", "\(features.byteCount)"]
        var answers: [[JSON]] = []
        for tool in Toolset.allCases {
            let folder = try TemporaryFolder()
            if let backing = features.backing {
                try mustRun("qemu-img", ["create", "-q", "-f", backing.format] + backing.options + [backing.name, "\(backing.byteCount)"], in: folder.url)
            }
            let (program, arguments) = tool.command(create)
            try mustRun(program, arguments, in: folder.url)
            let opened = secret + (features.isEncrypted ? ["--image-opts", "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=disk.qcow2"] : ["-f", "qcow2", "disk.qcow2"])
            var found: [JSON] = []
            var questions = [["info", "--output=json", "-f", "qcow2", "disk.qcow2"], ["check", "--output=json"] + opened]
            if features.preallocation == "off" { questions.append(["map", "--output=json"] + opened) }
            for question in questions {
                let answer = try JSON(parsing: try mustRun("qemu-img", question, in: folder.url).output)
                found.append(question[0] == "map" ? MapExtent.normalised(answer) : Self.comparable(answer))
            }
            let measure = tool.command(["img", "measure", "--output=json"] + secret + ["-O", "qcow2", "-o", features.text, "--size", "\(features.byteCount)"])
            let measured = try run(measure.program, measure.arguments, in: folder.url)
            found.append(measured.succeeded ? try JSON(parsing: measured.output) : .string("refused"))
            answers.append(found)
        }
        for (ours, theirs) in zip(answers[0], answers[1]) {
            #expect(ours == theirs, "STRATA_SEED=\(seed &- 7000 &- number), number \(number): \(create.joined(separator: " "))")
        }
    }
}
