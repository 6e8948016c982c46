import IOCore
import StorageSchema
import StrataBase

/// Where a copy of everything that is sent goes: `logfile` and `logappend`, which all kinds of devices have.
struct LogOptions {
    var file: String?
    var appends: Bool?

    func open() throws(BlockError) -> ConnectedSocket? {
        guard let file else { return nil }
        do { return try StreamFiles.open(file, for: .writing(appends: appends ?? false)) } catch { throw error.during("Unable to open logfile") }
    }
}
