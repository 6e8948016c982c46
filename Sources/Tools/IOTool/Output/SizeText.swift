/// Amounts of bytes and rates as the tool prints them: whole numbers without decimals, everything else with three.
enum SizeText {
    private static let units = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB"]

    static func of(_ byteCount: Int) -> String { of(Double(byteCount)) }

    static func of(_ byteCount: Double) -> String {
        var scale = Double(1 << 60)
        for unit in units {
            if byteCount >= scale { return "\(number(byteCount / scale, decimals: 3)) \(unit)" }
            scale /= 1024
        }
        return "\(number(byteCount, decimals: 6)) bytes"
    }

    private static func number(_ value: Double, decimals: Int) -> String {
        value == value.rounded(.towardZero) && value < 1e15 ? String(Int(value)) : fixed(value, decimals: decimals)
    }

    /// C's `%.Nf` for values that are not negative.
    static func fixed(_ value: Double, decimals: Int) -> String {
        var scale = 1
        for _ in 0..<decimals { scale *= 10 }
        guard value.isFinite, value * Double(scale) < 9e18 else { return "inf" }
        let scaled = Int((value * Double(scale)).rounded(.toNearestOrEven))
        if decimals == 0 { return String(scaled) }
        let rest = String(scaled % scale)
        return "\(scaled / scale).\(String(repeating: "0", count: decimals - rest.utf8.count))\(rest)"
    }
}
