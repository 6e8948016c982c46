import Foundation

/// A library that makes QEMU's programs quick at making passwords: see Tests/Support/QuickKeys/quick-keys.c.
enum QuickKeys {
    private static let folder = Result {
        let folder = try TemporaryFolder()
        let source = Strata.root.appending(path: "Tests/Support/QuickKeys/quick-keys.c").path
        try mustRun("clang", ["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder.path(library), source])
        // A static outlives every test, and its deinit never runs.
        atexit(removeLibrary)
        return folder
    }

    private static let library = "quick-keys.so"

    /// Variables of the environment for a program that is one of QEMU's, or a script that starts them.
    static func variables(for program: String) throws -> [String: String] {
        let name = (program as NSString).lastPathComponent
        guard name.hasPrefix("qemu-") || name.hasPrefix("python") else { return [:] }
        return ["LD_PRELOAD": try folder.get().path(library)]
    }

    fileprivate static func remove() {
        if case .success(let folder) = folder { try? FileManager.default.removeItem(at: folder.url) }
    }
}

private func removeLibrary() { QuickKeys.remove() }
