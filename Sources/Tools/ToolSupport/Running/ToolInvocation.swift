/// How a tool was called.
package struct ToolInvocation: Sendable, Hashable {
    /// What the user typed to reach the tool: `strata img`, `/usr/bin/qemu-img`. Usage texts repeat it.
    package var program: String
    /// The name that stands in front of messages: `strata img`, `qemu-img`.
    package var name: String
    /// What follows the tool's name.
    package var arguments: [String]

    package init(program: String, name: String, arguments: [String]) {
        self.program = program
        self.name = name
        self.arguments = arguments
    }
}

/// The tools inside the one executable.
package enum ToolName: String, CaseIterable, Sendable {
    case img
    case io
    case nbd
    case daemon
    case qmp

    package var summary: String {
        switch self {
        case .img: "create, inspect, check, convert and measure disk images"
        case .io: "read, write and otherwise exercise a disk image"
        case .nbd: "serve one disk image over NBD, or list what a server has"
        case .daemon: "serve disk images over NBD, controlled over QMP"
        case .qmp: "talk to a daemon's QMP socket"
        }
    }

    /// The tools' names, for messages.
    package static var list: String { allCases.map(\.rawValue).joined(separator: ", ") }

    /// The file names under which a link to the executable is this tool.
    private static let links: [String: ToolName] = [
        "strata-img": .img, "qemu-img": .img,
        "strata-io": .io, "qemu-io": .io,
        "strata-nbd": .nbd, "qemu-nbd": .nbd,
        "strata-daemon": .daemon, "strata-storage-daemon": .daemon, "qemu-storage-daemon": .daemon,
        "strata-qmp": .qmp,
    ]

    /// Who shall act on a command line.
    package enum Choice: Sendable, Hashable {
        case tool(ToolName, ToolInvocation)
        /// `strata` itself: with these arguments, the first of which names no tool.
        case none(program: String, arguments: [String])
    }

    /// - Parameter commandLine: with the program's name in front, as the system passes it; may be empty.
    package static func choose(_ commandLine: [String]) -> Choice {
        let program = commandLine.first ?? "strata"
        let base = String(program.split(separator: "/").last ?? "strata")
        let rest = Array(commandLine.dropFirst())
        if let tool = links[base] { return .tool(tool, ToolInvocation(program: program, name: base, arguments: rest)) }
        guard let word = rest.first, let tool = ToolName(rawValue: word) else { return .none(program: program, arguments: rest) }
        return .tool(
            tool, ToolInvocation(program: "\(program) \(word)", name: "\(base) \(word)", arguments: Array(rest.dropFirst())))
    }
}
