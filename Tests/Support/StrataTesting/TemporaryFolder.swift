package import Foundation

/// A private folder that goes away with the object. Its path is short enough for sockets.
package final class TemporaryFolder: Sendable {
    package let url: URL

    package init() throws {
        var name = Array("/tmp/strata-test.XXXXXX".utf8CString)
        guard mkdtemp(&name) != nil else { throw HarnessError("cannot make a temporary folder: \(String(cString: strerror(errno)))") }
        url = URL(filePath: String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self), directoryHint: .isDirectory)
    }

    deinit {
        try? FileManager.default.removeItem(at: url)
    }

    package func path(_ name: String) -> String { url.appending(path: name).path }

    package func write(_ contents: some Sequence<UInt8>, to name: String) throws {
        try Data(contents).write(to: url.appending(path: name))
    }

    package func read(_ name: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: url.appending(path: name)))
    }

    package func contains(_ name: String) -> Bool { FileManager.default.fileExists(atPath: path(name)) }

    package var names: [String] {
        get throws { try FileManager.default.contentsOfDirectory(atPath: url.path).sorted() }
    }
}
