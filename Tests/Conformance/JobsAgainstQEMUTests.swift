import Foundation
import StrataTesting
import Testing

/// The same script for QEMU's storage daemon and for ours: answers, events and what is in the images afterwards must be the same.
@Suite("jobs against qemu-storage-daemon")
struct JobsAgainstQEMUTests {
    /// Plays the script with both, in folders of their own, and compares everything.
    /// - Parameter images: those whose contents and backing files are compared; each may be missing in both.
    private func compare(
        _ names: [String] = ["base", "mid", "top"], images: [String] = ["base", "mid", "top", "target"], readOnly: Set<String> = [], opens: Bool = true,
        _ script: (JobStage) throws -> Void
    ) throws {
        var outcomes: [(told: [String], answers: [String], folder: TemporaryFolder)] = []
        for program in JobStage.programs {
            let folder = try TemporaryFolder()
            try ChainImages.make(in: folder, names)
            let stage = try JobStage(program, in: folder)
            if opens { try stage.openChain(names, readOnly: readOnly) }
            try script(stage)
            try stage.daemon.quit()
            outcomes.append((stage.toldWithoutPauses, stage.answers, folder))
        }
        let (theirs, ours) = (outcomes[0], outcomes[1])
        #expect(ours.told == theirs.told)
        #expect(ours.answers.count == theirs.answers.count)
        // Our refusals go on with who holds what, and what to do.
        for (our, their) in zip(ours.answers, theirs.answers) where !our.hasPrefix("\(their). ") { #expect(our == their) }
        for image in images {
            let name = "\(image).qcow2"
            #expect(try backing(of: name, in: ours.folder) == backing(of: name, in: theirs.folder), "\(image)")
            let same = try run("qemu-img", ["compare", "-f", "qcow2", "-F", "qcow2", ours.folder.path(name), theirs.folder.path(name)], in: ours.folder.url)
            #expect(same.succeeded, "\(image): \(same)")
            try QEMU.mustFindClean(name, in: ours.folder)
        }
    }

    private func backing(of image: String, in folder: TemporaryFolder) throws -> String {
        let info = try JSON(parsing: try mustRun("qemu-img", ["info", "-U", "--output=json", image], in: folder.url).output)
        return "\(info["backing-filename"]?.string ?? "-") \(info["backing-filename-format"]?.string ?? "-")"
    }

    private func job(_ more: [String: JSON]) -> JSON { .object(more.merging(["job-id": "j"]) { first, _ in first }) }

    @Test("verbs for jobs that are not there")
    func unknownJobs() throws {
        try compare(images: []) { stage in
            for verb in ["pause", "resume", "cancel", "complete", "dismiss", "finalize"] {
                try stage.run("job-\(verb)", ["id": "x"])
                try stage.run("block-job-\(verb)", ["dismiss", "finalize"].contains(verb) ? ["id": "x"] : ["device": "x"])
            }
            try stage.run("block-job-set-speed", ["device": "x", "speed": 1])
            try stage.run("block-job-change", ["id": "x", "type": "mirror", "copy-mode": "background"])
            try stage.noteJobs()
        }
    }

    // MARK: block-stream

    @Test("stream of a whole chain, down to a base, down to a bottom, with a name of its own for the backing file", arguments: [
        [:], ["base-node": "base"], ["base": "base.qcow2"], ["bottom": "mid"], ["base-node": "base", "backing-file": "./base.qcow2"], ["base-node": "mid"],
    ] as [[String: JSON]])
    func stream(options: [String: JSON]) throws {
        try compare { stage in
            try stage.run("block-stream", job(options.merging(["device": "top"]) { first, _ in first }))
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    @Test("stream of a middle layer, of a base, and of a read-only image")
    func streamElsewhere() throws {
        try compare(readOnly: ["mid", "base"]) { stage in
            try stage.run("block-stream", job(["device": "mid"]))
            try stage.wait(for: "j null")
            try stage.noteGraph()
            try stage.run("block-stream", job(["device": "base"]))
            try stage.wait(for: "j null", times: 2)
            try stage.noteGraph()
        }
    }

    @Test("whoever comes to a disk while it is committed goes over to the base with the others, and nobody cuts the chain meanwhile")
    func lateComer() throws {
        try compare(["base", "top"], images: ["base"]) { stage in
            try stage.must("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(stage.folder.path("nbd.sock"))]]])
            try stage.run("block-commit", job(["device": "top"]))
            try stage.wait(prefix: "j BLOCK_JOB_READY")
            try stage.run("block-export-add", ["type": "nbd", "id": "late", "node-name": "top", "writable": true])
            try stage.run("blockdev-reopen", ["options": [["driver": "qcow2", "node-name": "top", "backing": nil, "file": "top-file"]]])
            try stage.run("job-complete", ["id": "j"])
            try stage.wait(for: "j null")
            #expect(try stage.must("query-block-exports").array?.first?["node-name"] == "base")
            try stage.noteGraph()
        }
    }

    @Test("links of a chain are frozen where its middle is committed")
    func frozenMiddle() throws {
        try compare { stage in
            try stage.run("block-commit", job(["device": "top", "top-node": "mid", "auto-finalize": false]))
            try stage.wait(for: "j BLOCK_JOB_PENDING commit")
            for (name, backing) in [("mid", nil), ("top", "mid")] as [(String, String?)] {
                let options: [String: JSON] = [
                    "driver": "qcow2", "node-name": .string(name), "backing": backing.map { .string($0) } ?? .null, "file": .string("\(name)-file"),
                ]
                try stage.run("blockdev-reopen", ["options": [.object(options)]])
            }
            try stage.run("job-finalize", ["id": "j"])
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    @Test("zeroes of an overlay hide its base in the copy too, which was opened without the base that it names", arguments: [
        ("blockdev-mirror", "top"), ("blockdev-mirror", "full"), ("blockdev-backup", "top"), ("blockdev-backup", "full"),
    ])
    func zeroesOverBase(command: String, sync: String) throws {
        let folder = try TemporaryFolder()
        try ChainImages.make(in: folder, ["base", "top"])
        // What the base has here the overlay's guest has zeroed.
        try QEMU.io("top.qcow2", ["write -z 256k 512k", "discard 3584k 128k"], in: folder)
        try QEMU.img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "copy.qcow2", in: folder)
        let stage = try JobStage(nil, in: folder)
        try stage.openChain(["base", "top"])
        try stage.must(
            "blockdev-add",
            ["driver": "qcow2", "node-name": "copy", "backing": nil, "file": ["driver": "file", "filename": "copy.qcow2"]])
        try stage.must(command, job(["device": "top", "target": "copy", "sync": .string(sync)]))
        if command == "blockdev-mirror" {
            try stage.wait(for: "j ready")
            try stage.must("block-job-cancel", ["device": "j"])
        }
        try stage.wait(for: "j null")
        try stage.daemon.quit()
        try QEMU.img("compare", "-f", "qcow2", "-F", "qcow2", "top.qcow2", "copy.qcow2", in: folder)
    }

    @Test("two streams in one chain where each has its part")
    func twoStreams() throws {
        let names = ["a", "b", "c", "d", "e"]
        try compare(names, images: names) { stage in
            try stage.run("block-stream", ["job-id": "upper", "device": "e", "base-node": "c", "auto-finalize": false])
            try stage.wait(for: "upper BLOCK_JOB_PENDING stream")
            try stage.run("block-stream", ["job-id": "same", "device": "d", "base-node": "a"])
            try stage.run("block-stream", ["job-id": "lower", "device": "c", "base-node": "a"])
            try stage.wait(for: "lower null")
            try stage.run("job-finalize", ["id": "upper"])
            try stage.wait(for: "upper null")
            try stage.noteGraph()
        }
    }

    @Test("what is wrong with a stream is said in the same words")
    func streamMistakes() throws {
        try compare(images: []) { stage in
            for options: [String: JSON] in [
                ["base": "base.qcow2", "base-node": "base"], ["base": "base.qcow2", "bottom": "mid"], ["bottom": "mid", "base-node": "base"], ["base": "nope"],
                ["base-node": "nope"], ["base-node": "target"], ["bottom": "target"], ["bottom": "nope"], ["backing-file": "x"], ["base-node": "top"],
                ["filter-node-name": "mid"], ["job-id": "1bad"], ["device": "nope"], ["job-id": ""],
            ] {
                try stage.run("block-stream", job(options.merging(["device": "top"]) { first, _ in first }))
            }
            try stage.run("block-stream", ["device": "top"])
            try stage.noteGraph()
        }
    }

    // MARK: block-commit

    @Test("commit of middle images by node or by file, with names of its own", arguments: [
        ["top-node": "mid", "base-node": "base"], ["top": "mid.qcow2", "base": "base.qcow2"], ["top-node": "mid"],
        ["top-node": "mid", "backing-file": "./base.qcow2"],
    ] as [[String: JSON]])
    func commit(options: [String: JSON]) throws {
        try compare(images: ["base", "top"]) { stage in
            try stage.run("block-commit", job(options.merging(["device": "top"]) { first, _ in first }))
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    @Test("commit of the active image, completed or cancelled softly or by force", arguments: ["complete", "soft", "force"])
    func activeCommit(end: String) throws {
        try compare(images: ["base"]) { stage in
            try stage.run("block-commit", job(["device": "top", "filter-node-name": "f"]))
            try stage.wait(prefix: "j BLOCK_JOB_READY")
            try stage.noteJobs()
            try stage.noteGraph()
            switch end {
            case "complete": try stage.run("job-complete", ["id": "j"])
            case "soft": try stage.run("block-job-cancel", ["device": "j"])
            default: try stage.run("block-job-cancel", ["device": "j", "force": true])
            }
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    @Test("commit that is finalized and dismissed by hand, in each status with each verb")
    func byHand() throws {
        try compare(images: ["base", "top"]) { stage in
            func verbs() throws {
                for verb in ["pause", "resume", "complete"] { try stage.run("job-\(verb)", ["id": "j"]) }
                try stage.run("block-job-set-speed", ["device": "j", "speed": 0])
                try stage.run("block-job-change", ["id": "j", "type": "mirror", "copy-mode": "background"])
                try stage.noteJobs()
            }
            try stage.run("block-commit", job(["device": "top", "top-node": "mid", "auto-finalize": false, "auto-dismiss": false]))
            try stage.wait(for: "j BLOCK_JOB_PENDING commit")
            try verbs()
            try stage.run("job-dismiss", ["id": "j"])
            try stage.noteGraph()
            try stage.run("job-finalize", ["id": "j"])
            try verbs()
            try stage.run("job-finalize", ["id": "j"])
            try stage.run("job-cancel", ["id": "j"])
            try stage.run("block-job-dismiss", ["id": "j"])
            try stage.noteJobs()
        }
    }

    @Test("a read-only base is written to for the time of the job")
    func readOnlyBase() throws {
        try compare(images: ["base", "top"], readOnly: ["base", "mid"]) { stage in
            try stage.run("block-commit", job(["device": "top", "top-node": "mid"]))
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    @Test("a base in a file that was opened read-only on purpose, or that may not be written to, is refused before anything is touched", arguments: [false, true])
    func unwritableBase(isOnStorage: Bool) throws {
        for program in JobStage.programs {
            let folder = try TemporaryFolder()
            try ChainImages.make(in: folder)
            let before = try folder.read("base.qcow2")
            let stage = try JobStage(program, in: folder)
            // Whoever runs as root may write to any file: a link to what is read-only for everybody.
            let file: JSON = ["driver": "file", "filename": "base.qcow2", "read-only": .bool(!isOnStorage), "auto-read-only": .bool(isOnStorage)]
            try stage.must("blockdev-add", ["driver": "qcow2", "node-name": "base", "read-only": true, "file": isOnStorage ? ["driver": "raw", "read-only": true, "file": file] : file])
            try stage.must("blockdev-add", ChainImages.node("mid", backing: "base"))
            try stage.must("blockdev-add", ChainImages.node("top", backing: "mid"))
            try stage.run("block-commit", ["job-id": "j", "device": "top", "top-node": "mid"])
            #expect(stage.answers.last?.contains("read-only") == true, "\(stage.answers)")
            try stage.run("block-commit", ["job-id": "j", "device": "top"])
            #expect(stage.answers.last?.contains("read-only") == true, "\(stage.answers)")
            #expect(try stage.must("query-jobs").array?.isEmpty == true)
            #expect(!stage.told.contains("j running"))
            try stage.noteGraph()
            #expect(stage.answers.last?.contains("_top") == false)
            try stage.daemon.quit()
            #expect(try folder.read("base.qcow2") == before)
        }
    }

    @Test("what is wrong with a commit is said in the same words")
    func commitMistakes() throws {
        try compare(images: []) { stage in
            for options: [String: JSON] in [
                ["device": "nope"], ["device": "mid"], ["base": "x", "base-node": "base"], ["top": "x", "top-node": "mid"], ["top-node": "nope"],
                ["base-node": "nope"], ["top": "nope"], ["base": "nope"], ["top-node": "target"], ["base-node": "target"],
                ["top-node": "base", "base-node": "mid"], ["top-node": "mid", "base-node": "mid"], ["top-node": "base"], ["backing-file": "x"],
                ["device": "base"], ["top-node": "mid", "filter-node-name": "mid"], ["job-id": ""],
            ] {
                try stage.run("block-commit", job(options.merging(["device": "top"]) { first, _ in first }))
            }
            try stage.noteGraph()
        }
    }

    // MARK: blockdev-mirror

    @Test("mirror of everything, of the top or of nothing, in both modes", arguments: ["full", "top", "none"], ["background", "write-blocking"])
    func mirror(sync: String, mode: String) throws {
        try compare { stage in
            try stage.run("blockdev-mirror", job(["device": "top", "target": "target", "sync": .string(sync), "copy-mode": .string(mode), "filter-node-name": "f"]))
            try stage.wait(prefix: "j BLOCK_JOB_READY")
            try stage.noteGraph()
            try stage.run("job-dismiss", ["id": "j"])
            try stage.run("job-complete", ["id": "j"])
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    @Test("a ready mirror is cancelled softly, by force and by job-cancel, held, changed and completed while held")
    func mirrorEnds() throws {
        try compare { stage in
            func start() throws {
                try stage.run("blockdev-mirror", job(["device": "top", "target": "target", "sync": "none"]))
            }
            try start()
            try stage.wait(for: "j ready")
            try stage.run("block-job-cancel", ["device": "j"])
            try stage.wait(for: "j null")
            try start()
            try stage.wait(for: "j ready", times: 2)
            try stage.run("block-job-cancel", ["device": "j", "force": true])
            try stage.wait(for: "j null", times: 2)
            try start()
            try stage.wait(for: "j ready", times: 3)
            try stage.run("job-cancel", ["id": "j"])
            try stage.wait(for: "j null", times: 3)
            try start()
            try stage.wait(for: "j ready", times: 4)
            try stage.run("block-job-change", ["id": "j", "type": "mirror", "copy-mode": "background"])
            try stage.run("block-job-change", ["id": "j", "type": "mirror", "copy-mode": "write-blocking"])
            try stage.run("block-job-change", ["id": "j", "type": "mirror", "copy-mode": "background"])
            try stage.run("blockdev-del", ["node-name": "target"])
            try stage.run("blockdev-del", ["node-name": "top"])
            try stage.run("block_resize", ["node-name": "top", "size": 1048576])
            try stage.run("job-pause", ["id": "j"])
            try stage.wait(for: "j standby")
            try stage.run("job-pause", ["id": "j"])
            try stage.run("job-complete", ["id": "j"])
            try stage.run("job-resume", ["id": "j"])
            try stage.wait(for: "j null", times: 4)
            try stage.noteGraph()
        }
    }

    @Test("a pending mirror is cancelled")
    func pendingCancel() throws {
        try compare { stage in
            try stage.run("blockdev-mirror", job(["device": "top", "target": "target", "sync": "none", "auto-finalize": false]))
            try stage.wait(for: "j ready")
            try stage.run("job-complete", ["id": "j"])
            try stage.wait(for: "j BLOCK_JOB_PENDING mirror")
            try stage.run("job-cancel", ["id": "j"])
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    @Test("what is wrong with a mirror is said in the same words")
    func mirrorMistakes() throws {
        try compare(images: []) { stage in
            try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", "small.qcow2", "8M"], in: stage.folder.url)
            try stage.must("blockdev-add", ChainImages.node("small"))
            for options: [String: JSON] in [
                ["device": "nope"], ["target": "nope"], ["sync": "incremental"], ["sync": "bitmap"], ["target": "top"], ["target": "mid"], ["target": "base"],
                ["granularity": 100], ["granularity": 600], ["granularity": 134_217_728], ["buf-size": -1], ["replaces": "nope"], ["replaces": "small"],
                ["filter-node-name": "mid"], ["device": "mid"], ["job-id": ""],
            ] {
                try stage.run("blockdev-mirror", job(options.merging(["device": "top", "target": "target", "sync": "full"]) { first, _ in first }))
            }
            try stage.run("blockdev-mirror", job(["device": "top", "target": "small", "sync": "full"]))
            try stage.wait(for: "j null")
            try stage.noteGraph()
        }
    }

    // MARK: Errors

    struct Fault: Sendable, CustomTestStringConvertible {
        let command: String
        let policy: String
        let errno: Int
        var testDescription: String { "\(command) \(policy) \(errno)" }
    }

    private static let faults = ["report", "ignore", "stop", "enospc", "auto"].flatMap { policy in
        [5, 28].flatMap { errno in ["block-stream", "blockdev-mirror"].map { Fault(command: $0, policy: policy, errno: errno) } }
    }

    @Test("a failing request is dealt with as the policy says, and a job that was stopped goes on when it is resumed", arguments: faults)
    func policies(fault: Fault) throws {
        let isStream = fault.command == "block-stream"
        let stops = fault.policy == "stop" || (["enospc", "auto"].contains(fault.policy) && fault.errno == 28)
        // How far a job came that has failed depends on how many requests it has under way.
        func withoutCounts(_ lines: [String]) -> [String] {
            lines.map { line in line.hasPrefix("j BLOCK_JOB_COMPLETED") ? line.replacing(#/ \d+/\d+ /#, with: " ") : line }
        }
        var outcomes: [[String]] = []
        for program in JobStage.programs {
            let folder = try TemporaryFolder()
            try mustRun("qemu-img", ["create", "-q", "-f", "raw", "base.raw", "4M"], in: folder.url)
            try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 1 0 4M", "base.raw"], in: folder.url)
            try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2"], in: folder.url)
            try mustRun("qemu-img", ["create", "-q", "-f", "raw", "target.raw", "4M"], in: folder.url)
            let stage = try JobStage(program, in: folder)
            let inject: JSON = [["event": .string(isStream ? "none" : "none"), "iotype": .string(isStream ? "read" : "write"), "errno": .integer(fault.errno), "once": true, "sector": 4000]]
            func file(_ name: String, faulty: Bool) -> JSON {
                let file: JSON = ["driver": "file", "filename": .string(name)]
                return faulty ? ["driver": "blkdebug", "image": file, "inject-error": inject] : file
            }
            try stage.must("blockdev-add", ["driver": "raw", "node-name": "base", "file": file("base.raw", faulty: isStream)])
            try stage.must("blockdev-add", ["driver": "qcow2", "node-name": "top", "backing": "base", "file": file("top.qcow2", faulty: false)])
            try stage.must("blockdev-add", ["driver": "raw", "node-name": "target", "file": file("target.raw", faulty: !isStream)])
            if isStream {
                try stage.run("block-stream", job(["device": "top", "on-error": .string(fault.policy)]))
            } else {
                try stage.run("blockdev-mirror", job(["device": "top", "target": "target", "sync": "full", "on-target-error": .string(fault.policy)]))
            }
            if stops {
                try stage.wait(for: "j paused")
                let status = try stage.must("query-block-jobs").array?.first?["io-status"]?.string
                #expect(status == (fault.errno == 28 ? "nospace" : "failed"))
                try stage.run("job-resume", ["id": "j"])
            }
            if !isStream, stops || fault.policy == "ignore" {
                try stage.wait(for: "j ready")
                #expect(try stage.must("query-block-jobs").array?.first?["io-status"]?.string == "ok")
                try stage.run("block-job-cancel", ["device": "j"])
            }
            try stage.wait(for: "j null")
            try stage.daemon.quit()
            outcomes.append(withoutCounts(stage.toldWithoutPauses) + stage.answers)
            if !isStream, stops || fault.policy == "ignore" {
                #expect(try folder.read("target.raw") == [UInt8](repeating: 1, count: 4 << 20))
            }
        }
        #expect(outcomes[1] == outcomes[0])
    }
}
