package import Foundation

/// The built binary.
package enum Strata {
    /// The root of the package.
    package static let root = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// STRATA_BINARY, or the one that lies beside the tests that are running.
    package static let binary: String = {
        if let given = ProcessInfo.processInfo.environment["STRATA_BINARY"], !given.isEmpty { return given }
        let beside = URL(filePath: CommandLine.arguments.first ?? "").deletingLastPathComponent().appending(path: "strata").path
        if FileManager.default.isExecutableFile(atPath: beside) { return beside }
        return root.appending(path: ".build/debug/strata").path
    }()

    /// The Python that has qemu.qmp: STRATA_PYTHON, or the one that Scripts/install-packages made.
    package static let python =
        ProcessInfo.processInfo.environment["STRATA_PYTHON"] ?? root.appending(path: ".build/test-venv/bin/python3").path

    /// Runs `strata img ...`.
    package static func img(_ arguments: String..., in folder: TemporaryFolder, atMost limit: Duration = .seconds(120)) throws -> Finished {
        try run(binary, ["img"] + arguments, in: folder.url, atMost: limit)
    }

    /// Runs `strata img ...`, which must succeed.
    @discardableResult
    package static func mustImg(_ arguments: String..., in folder: TemporaryFolder, atMost limit: Duration = .seconds(120)) throws -> Finished {
        try mustRun(binary, ["img"] + arguments, in: folder.url, atMost: limit)
    }
}

/// QEMU's programs, as oracles.
package enum QEMU {
    /// Runs `qemu-img ...`, which must succeed.
    @discardableResult
    package static func img(_ arguments: String..., in folder: TemporaryFolder) throws -> Finished {
        try mustRun("qemu-img", arguments, in: folder.url)
    }

    /// Runs commands of `qemu-io` on an image; they must all succeed.
    package static func io(_ image: String, format: String = "qcow2", _ commands: [String], in folder: TemporaryFolder) throws {
        let finished = try mustRun("qemu-io", ["-f", format] + commands.flatMap { ["-c", $0] } + [image], in: folder.url)
        guard !finished.text.contains("failed") else { throw HarnessError("\(finished)") }
    }

    /// What `qemu-img check` finds, as JSON; the image must have neither corruptions nor, unless allowed, leaks.
    @discardableResult
    package static func mustFindClean(_ image: String, in folder: TemporaryFolder, allowingLeaks: Bool = false) throws -> JSON {
        let finished = try run("qemu-img", ["check", "-f", "qcow2", "--output=json", image], in: folder.url)
        let acceptable: [Finished.Ending] = allowingLeaks ? [.exited(0), .exited(3)] : [.exited(0)]
        guard acceptable.contains(finished.ending) else { throw HarnessError("QEMU finds fault with \(image): \(finished)") }
        return try JSON(parsing: finished.output)
    }

    /// What the guest reads, as QEMU sees it.
    package static func contents(of image: String, format: String = "qcow2", in folder: TemporaryFolder) throws -> [UInt8] {
        let target = "\(image).contents-\(UInt32.random(in: 0...UInt32.max))"
        defer { try? FileManager.default.removeItem(atPath: folder.path(target)) }
        try img("convert", "-f", format, "-O", "raw", image, target, in: folder)
        return try folder.read(target)
    }
}

/// The first place where two disks differ, in words; nil if they are equal. A test prints this instead of two megabytes.
package func firstDifference(_ left: [UInt8], _ right: [UInt8]) -> String? {
    // Debug builds compare byte by byte slowly: let the C library say where to look.
    if left.count != right.count { return "lengths differ: \(left.count) and \(right.count)" }
    let stride = 4096
    for start in Swift.stride(from: 0, to: left.count, by: stride) {
        let length = min(stride, left.count - start)
        let same = left.withUnsafeBytes { left in
            right.withUnsafeBytes { right in memcmp(left.baseAddress! + start, right.baseAddress! + start, length) == 0 }
        }
        if same { continue }
        for offset in start..<start + length where left[offset] != right[offset] {
            return "byte \(offset) (0x\(String(offset, radix: 16))) is \(left[offset]) on one side and \(right[offset]) on the other"
        }
    }
    return nil
}

package func firstDifference(_ left: [UInt8], _ right: ArraySlice<UInt8>) -> String? { firstDifference(left, Array(right)) }
