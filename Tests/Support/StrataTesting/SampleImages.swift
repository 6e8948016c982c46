import Foundation

/// The images of the folder images/, unpacked into one folder per test run, because some name others. Tests only read them.
package enum SampleImages {
    package static let names: [String] = {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: source.path)) ?? []
        return files.filter { $0.hasSuffix(".expected.json") }.map { String($0.dropLast(".expected.json".count)) }.sorted()
    }()

    /// What QEMU says about an image.
    package static func expectation(for name: String) throws -> JSON {
        try JSON(parsing: try Data(contentsOf: source.appending(path: "\(name).expected.json")))
    }

    package static let folder: Result<TemporaryFolder, any Error> = Result {
        let folder = try TemporaryFolder()
        for file in try FileManager.default.contentsOfDirectory(atPath: source.path) where !file.hasSuffix(".json") {
            let from = source.appending(path: file).path
            if file.hasSuffix(".gz") {
                try mustRun("sh", ["-c", "gzip -dc \"$1\" | cp --sparse=always /dev/stdin \"$2\"", "sh", from, folder.path(String(file.dropLast(3)))])
            } else {
                try FileManager.default.copyItem(atPath: from, toPath: folder.path(file))
            }
        }
        // A static outlives every test, and its deinit never runs.
        atexit(removeUnpackedImages)
        return folder
    }

    /// JSON without what depends on the machine, as images/make-images writes it.
    package static func portable(_ value: JSON) -> JSON {
        switch value {
        case .object(let members):
            .object(members.filter { !["actual-size", "children", "full-backing-filename"].contains($0.key) }.mapValues(portable))
        case .array(let items): .array(items.map(portable))
        default: value
        }
    }

    private static let source = Strata.root.appending(path: "images")
}

private func removeUnpackedImages() {
    if case .success(let folder) = SampleImages.folder { try? FileManager.default.removeItem(at: folder.url) }
}
