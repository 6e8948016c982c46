package import StrataBase

/// Where a tool keeps what was typed: `$XDG_STATE_HOME/strata/NAME-history`, or below `~/.local/state`. Readable by its owner alone.
package struct HistoryFile: Sendable {
    private static let limit = 4 << 20  // bytes
    private let path: String

    /// Nil when the environment names no home.
    package init?(name: String) {
        let base: String
        if let state = HostEnvironment["XDG_STATE_HOME"], state.hasPrefix("/") {
            base = state
        } else if let home = HostEnvironment["HOME"], home.hasPrefix("/") {
            base = home + "/.local/state"
        } else {
            return nil
        }
        path = "\(base)/strata/\(name)-history"
    }

    /// An unreadable file is an empty history: nobody's work depends on it.
    package func read() -> LineHistory {
        guard let bytes = try? SmallFile.read(path, limit: Self.limit) else { return LineHistory() }
        return LineHistory(String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init))
    }

    package func write(_ history: LineHistory) throws(BlockError) {
        try PrivateFile.write(Array(history.entries.map { $0 + "\n" }.joined().utf8), to: path)
    }
}
