import BlockGraph
import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// Finds out what lies where, and prints it while it goes: the map of a large image is long.
struct ImageMap {
    private let image: PaddedImage
    /// Bytes; may lie beyond the end.
    private let start: Int
    private let end: Int

    init(_ image: PaddedImage, from start: Int, byteCount: Int?) {
        self.image = image
        self.start = start
        let (wanted, overflow) = start.addingReportingOverflow(byteCount ?? image.length)
        end = overflow ? image.length : min(wanted, image.length)
    }

    /// Lines that are collected before they are written.
    private static let chunkSize = 64 << 10

    /// - Parameter progress: ended here, before the last lines.
    func print(_ output: OutputFormat, _ progress: ProgressReporter) async throws(BlockError) {
        var names = NodeDescriptions()
        var text = output == .human ? MapEntry.header : "["
        func flush() throws(BlockError) {
            guard StandardStreams.print(text) else { throw BlockError(.io, "Could not write to standard output") }
            text = ""
        }
        func add(_ entry: MapEntry, isLast: Bool) throws(BlockError) {
            switch output {
            case .json: text += entry.json + (isLast ? "]\n" : ",\n")
            case .human:
                guard let line = try entry.line() else { break }
                text += line
            }
            if text.utf8.count >= Self.chunkSize { try flush() }
        }
        do throws(BlockError) {
            var current = MapEntry(start: start)
            var position = start
            while position < end {
                let extent = try await image.extent(at: position, limit: end - position)
                let next = MapEntry(extent, at: position, filename: extent.file.map { names.filename(of: $0) })
                if !current.absorb(next) {
                    if current.byteCount > 0 { try add(current, isLast: false) }
                    current = next
                }
                position += extent.byteCount
                progress.report(position - start, of: end - start)
            }
            try add(current, isLast: true)
        } catch {
            // What has been found out before stands.
            progress.end(succeeded: false)
            try flush()
            throw error
        }
        progress.end(succeeded: true)
        try flush()
    }
}
