/// Amounts of bytes and rates as the tool prints them: with three decimals, or none when they would be zero.
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

    /// Without decimals that are all zero.
    private static func number(_ value: Double, decimals: Int) -> String {
        let text = fixed(value, decimals: decimals)
        let zeroes = "." + String(repeating: "0", count: decimals)
        return text.hasSuffix(zeroes) ? String(text.dropLast(zeroes.utf8.count)) : text
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
