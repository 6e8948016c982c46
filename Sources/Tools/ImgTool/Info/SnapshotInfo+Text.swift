import StrataBase

// The table of snapshots.

extension SnapshotInfo {
    static let header = "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT"

    var line: String {
        let size = ByteSize.humanReadable(stateSize)
        let date = CalendarTime(secondsSince1970: dateSeconds).text
        let milliseconds = clockNanoseconds / 1_000_000
        let seconds = milliseconds / 1000
        let clock =
            Self.digits(seconds / 3600, 4) + ":" + Self.digits(seconds / 60 % 60, 2) + ":" + Self.digits(seconds % 60, 2) + "."
            + Self.digits(milliseconds % 1000, 3)
        return Self.left(id, 7) + " " + Self.left(name, 16) + " " + Self.right(size, 8) + " " + Self.right(date, 19) + " "
            + Self.right(clock, 15) + " " + Self.right(instructionCount.map(String.init) ?? "--", 10)
    }

    private static func digits(_ value: Int, _ width: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
    }

    private static func left(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.utf8.count))
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.utf8.count)) + text
    }
}
