/// Sizes as people write them on QEMU's command lines.
package enum ByteSize {
    /// Parses a size such as `64k`, `1.5G` or `4096`.
    ///
    /// The suffixes are b, k, M, G, T, P and E in either case, for powers of 1024; without one the number counts bytes. A fraction is
    /// allowed when a suffix other than `b` follows and is rounded to the nearest byte. Hexadecimal (`0x1000`) takes neither.
    /// - Returns: bytes, or nil when the text is not a size or does not fit in a signed 64-bit number.
    package static func parse(_ text: some StringProtocol) -> Int? {
        let bytes = Array(text.utf8)
        if bytes.count > 2, bytes[0] == UInt8(ascii: "0"), bytes[1] | 0x20 == UInt8(ascii: "x") {
            return Int(text.dropFirst(2), radix: 16).flatMap { $0 >= 0 && bytes[2] != UInt8(ascii: "+") ? $0 : nil }
        }
        var position = 0
        var whole = 0
        while position < bytes.count, let digit = decimalDigit(bytes[position]) {
            let (product, overflow) = whole.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(digit)
            if overflow || carry { return nil }
            whole = sum
            position += 1
        }
        if position == 0 { return nil }
        var fraction = 0.0
        var hasFraction = false
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            hasFraction = true
            position += 1
            let start = position
            while position < bytes.count, decimalDigit(bytes[position]) != nil { position += 1 }
            guard position > start, let value = Double("0." + String(decoding: bytes[start..<position], as: UTF8.self)) else { return nil }
            fraction = value
        }
        guard let shift = shift(ofSuffix: bytes[position...]) else { return nil }
        if hasFraction && shift == 0 { return nil }
        let (scaled, overflow) = whole.multipliedReportingOverflow(by: 1 << shift)
        if overflow { return nil }
        let (sum, carry) = scaled.addingReportingOverflow(Int((fraction * Double(1 << shift)).rounded()))
        return carry ? nil : sum
    }

    private static func decimalDigit(_ byte: UInt8) -> Int? {
        byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") ? Int(byte - UInt8(ascii: "0")) : nil
    }

    private static func shift(ofSuffix suffix: ArraySlice<UInt8>) -> Int? {
        guard let first = suffix.first else { return 0 }
        if suffix.count > 1 { return nil }
        switch first | 0x20 {
        case UInt8(ascii: "b"): return 0
        case UInt8(ascii: "k"): return 10
        case UInt8(ascii: "m"): return 20
        case UInt8(ascii: "g"): return 30
        case UInt8(ascii: "t"): return 40
        case UInt8(ascii: "p"): return 50
        case UInt8(ascii: "e"): return 60
        default: return nil
        }
    }

    /// Formats bytes as QEMU's tools do for people: three significant digits and a binary unit, `1 GiB`, `196 KiB`, `1.5 MiB`.
    package static func humanReadable(_ byteCount: Int) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var value = Double(byteCount)
        var unit = 0
        // 999.5 would print as 1000 at three digits, so it moves to the next unit, as the peers do.
        while value >= 999.5, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        return "\(threeSignificantDigits(value)) \(units[unit])"
    }

    /// C's `%.3g` for values below 1000.
    private static func threeSignificantDigits(_ value: Double) -> String {
        let decimals = value >= 99.95 ? 0 : value >= 9.995 ? 1 : value >= 0.9995 ? 2 : 3
        var scale = 1.0
        for _ in 0..<decimals { scale *= 10 }
        let scaled = Int((value * scale).rounded(.toNearestOrEven))
        let divisor = Int(scale)
        let whole = scaled / divisor
        var rest = String(scaled % divisor)
        if decimals == 0 { return String(whole) }
        rest = String(repeating: "0", count: decimals - rest.utf8.count) + rest
        while rest.utf8.last == UInt8(ascii: "0") { rest.removeLast() }
        return rest.isEmpty ? String(whole) : "\(whole).\(rest)"
    }
}
