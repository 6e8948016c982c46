import Glibc
import StrataBase

/// Text for people on the standard error stream.
enum StandardText {
    static func printError(_ message: String) {
        // Where even standard error is closed there is nobody left to tell.
        try? SmallFile.write(Array((message + "\n").utf8), toDescriptor: STDERR_FILENO)
    }
}
