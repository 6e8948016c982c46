import StrataBase
import ToolSupport

/// A size as `resize` takes it: absolute, or with a sign relative to the present one.
enum SizeChange: Hashable {
    case to(Int)
    /// May be negative.
    case by(Int)

    /// - Throws: a failure in the words of every option that is a size.
    init(_ text: String) throws(ToolFailure) {
        let sign = text.first == "+" ? 1 : text.first == "-" ? -1 : 0
        // A number may have blanks and a plus of its own.
        let digits = sign == 0 ? text[...] : text.dropFirst()
        // QEMU takes what does not fit beside a sign for a negative number.
        if case .value(let value) = ByteSize.read(digits), value > Int.max {
            self = .to(0)
            return
        }
        let byteCount = try NumberArgument.size(String(digits), "size")
        self = sign == 0 ? .to(byteCount) : .by(sign * byteCount)
    }

    /// The size that comes out; nil when it is beyond what a disk can have.
    func applied(to current: Int) -> Int? {
        switch self {
        case .to(let byteCount): return byteCount
        case .by(let change):
            let (sum, overflow) = current.addingReportingOverflow(change)
            return overflow ? nil : sum
        }
    }
}
