import Foundation

/// What the package says about itself: the targets of Package.swift with their floors, and the files on disk.
///
/// Package.swift is read as text. Asking SwiftPM (`swift package dump-package`) from inside `swift test` would wait for a lock that
/// `swift test` holds, and would lose the floor comments, which are the point.
struct PackageLayout {
    struct Target {
        let name: String
        let floor: Int
        /// Relative to the root of the package.
        let path: String
        let dependencies: [String]
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// Every target above the comment "// Tests.", lowest floor first.
    let targets: [Target]

    init() throws {
        let text = try String(contentsOf: Self.root.appending(path: "Package.swift"), encoding: .utf8)
        guard let start = text.range(of: "// Floor 0:"), let end = text.range(of: "// Tests.") else {
            throw Failure(description: "Package.swift lost its floor comments or the comment '// Tests.'")
        }
        var targets: [Target] = []
        // A declaration starts at a line like `module("X", in: "Room", ...` or `.target(name: "X", ...` and ends before the next one.
        let declaration = #/(?:// Floor (?<floor>[0-9]+):)|(?:(?:module|program)\(\s*"(?<ours>[^"]+)",\s*in:\s*"(?<room>[^"]+)")|(?:^\s+\.(?:target|systemLibrary|plugin)\(name:\s*"(?<plain>[^"]+)")/#
            .anchorsMatchLineEndings()
        let body = text[start.lowerBound..<end.lowerBound]
        let matches = Array(body.matches(of: declaration))
        var floor = 0
        for (index, match) in matches.enumerated() {
            if let number = match.output.floor {
                floor = Int(number) ?? floor
                continue
            }
            let stop = index + 1 < matches.count ? matches[index + 1].range.lowerBound : body.endIndex
            let rest = body[match.range.upperBound..<stop]
            if let name = match.output.ours, let room = match.output.room {
                targets.append(
                    Target(name: String(name), floor: floor, path: "Sources/\(room)/\(name)", dependencies: Self.firstList(in: rest)))
            } else if let name = match.output.plain {
                guard let path = rest.firstMatch(of: #/path:\s*"([^"]+)"/#)?.output.1 else {
                    throw Failure(description: "Package.swift gives no path for target '\(name)'")
                }
                targets.append(Target(name: String(name), floor: floor, path: String(path), dependencies: []))
            }
        }
        self.targets = targets
    }

    /// The string literals of the first `[...]` in `text`.
    private static func firstList(in text: Substring) -> [String] {
        guard let list = text.firstMatch(of: #/\[([^\]]*)\]/#)?.output.1 else { return [] }
        return list.matches(of: #/"([^"]+)"/#).map { String($0.output.1) }
    }

    /// The files below `folder` (relative to the root) with one of these endings, as paths relative to the root, sorted.
    static func files(in folder: String, endings: Set<String>) -> [String] {
        let base = root.appending(path: folder)
        guard let found = FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil, options: [.skipsHiddenFiles]) else { return [] }
        var paths: [String] = []
        for case let file as URL in found where endings.contains(file.pathExtension) {
            paths.append(String(file.path.dropFirst(root.path.hasSuffix("/") ? root.path.count : root.path.count + 1)))
        }
        return paths.sorted()
    }

    static func lines(of path: String) throws -> [Substring] {
        try String(contentsOf: root.appending(path: path), encoding: .utf8).split(separator: "\n", omittingEmptySubsequences: false)
    }

    /// The modules that a file imports.
    static func imports(of path: String) throws -> Set<String> {
        let form = #/^\s*(?:@[A-Za-z_]+\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?import\s+(?:(?:struct|class|enum|protocol|func|var|let|typealias)\s+)?(?<module>[A-Za-z_][A-Za-z0-9_]*)/#
        return Set(try lines(of: path).compactMap { $0.firstMatch(of: form).map { String($0.output.module) } })
    }

    /// A line of Swift without its comment and without what its string literals say. Good for one-line literals, which are all we have.
    static func code(of line: Substring) -> String {
        var code = "", inString = false, previous: Character = " "
        for character in line {
            if inString {
                if character == "\"" && previous != "\\" { inString = false }
            } else if character == "\"" {
                inString = true
            } else if character == "/" && previous == "/" {
                code.removeLast()
                return code
            } else {
                code.append(character)
            }
            previous = character
        }
        return code
    }
}
