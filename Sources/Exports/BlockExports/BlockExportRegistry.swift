package import StrataBase

/// The exports of one daemon, of every type. Ids are unique, removal follows one set of rules, and whoever listens hears of each end.
package actor BlockExportRegistry {
    private struct Entry {
        let export: any BlockExport
        var isShuttingDown = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private var entries: [String: Entry] = [:]
    /// Ids in the order in which the exports were added.
    private var order: [String] = []
    private let onDeleted: @Sendable (String) -> Void

    /// - Parameter onDeleted: told the id when an export is gone for good (QMP's `BLOCK_EXPORT_DELETED`).
    package init(onDeleted: @escaping @Sendable (String) -> Void = { _ in }) { self.onDeleted = onDeleted }

    /// Whether the id may be used for a new export. Ids look like node names do: a letter, then letters, digits, `-`, `.` and `_`.
    /// - Throws: `.invalidArgument` or `.alreadyExists`.
    package func checkNewID(_ id: String) throws(BlockError) {
        guard let first = id.utf8.first, Self.isLetter(first), id.utf8.allSatisfy({ Self.isLetter($0) || Self.isDigitOrMark($0) }) else {
            throw BlockError(.invalidArgument, "Invalid block export id")
        }
        if entries[id] != nil { throw BlockError(.alreadyExists, "Block export id '\(id)' is already in use") }
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }

    private static func isDigitOrMark(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_")
    }

    /// Takes an export in that is ready to serve.
    package func add(_ export: any BlockExport) throws(BlockError) {
        try checkNewID(export.id)
        entries[export.id] = Entry(export: export)
        order.append(export.id)
    }

    /// Starts to remove an export; `onDeleted` reports the end.
    /// - Throws: `.notFound`; `.permissionConflict` when it is in use and the mode is safe, or is being removed already.
    package func remove(id: String, mode: ExportRemovalMode) throws(BlockError) {
        guard let entry = entries[id] else { throw BlockError(.notFound, "Export '\(id)' is not found") }
        if entry.isShuttingDown { throw BlockError(.permissionConflict, "Export '\(id)' is already shutting down") }
        if mode == .safe, entry.export.isInUse {
            throw BlockError(.permissionConflict, "export '\(id)' still in use", hint: "Use mode='hard' to force client disconnect")
        }
        startShutDown(id, entry.export)
    }

    private func startShutDown(_ id: String, _ export: any BlockExport) {
        entries[id]?.isShuttingDown = true
        Task {
            await export.shutDown()
            self.finishShutDown(id)
        }
    }

    private func finishShutDown(_ id: String) {
        guard let entry = entries.removeValue(forKey: id) else { return }
        order.removeAll { $0 == id }
        onDeleted(id)
        for waiter in entry.waiters { waiter.resume() }
    }

    /// Removes every export that `isWanted` selects, in use or not, and waits until they are gone.
    package func removeAll(where isWanted: @Sendable (any BlockExport) -> Bool = { _ in true }) async {
        let chosen = order.compactMap { entries[$0]?.export }.filter(isWanted)
        for export in chosen where entries[export.id]?.isShuttingDown == false { startShutDown(export.id, export) }
        for export in chosen {
            await withCheckedContinuation { waiter in
                if entries[export.id]?.export === export { entries[export.id]?.waiters.append(waiter) } else { waiter.resume() }
            }
        }
    }

    /// All exports, in the order in which they were added.
    package var summaries: [ExportSummary] {
        order.compactMap { entries[$0] }.map {
            ExportSummary(id: $0.export.id, typeName: type(of: $0.export).typeName, nodeName: $0.export.nodeName, isShuttingDown: $0.isShuttingDown)
        }
    }
}
