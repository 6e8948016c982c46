import IOCore
import Synchronization

/// What is said when a signal ends a command that has begun to write an image.
enum HalfMade {
    static func text(_ target: String) -> String {
        let name = StandardStreams.programName.withLock { $0 }
        return "\n\(name): interrupted: '\(target)' is incomplete\n"
    }
}
