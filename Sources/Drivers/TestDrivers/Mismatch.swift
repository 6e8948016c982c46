import IOCore

/// What becomes of a program in which two copies of a disk have been found to differ: it says where and ends, with exit code 1, like QEMU's.
enum Mismatch {
    /// - Parameter text: one line; without the program's name in front, because scripts look for it at the beginning.
    static func end(_ text: String) -> Never {
        StandardStreams.printError(text + "\n")
        ProcessEnd.now(exitCode: 1)
    }
}
