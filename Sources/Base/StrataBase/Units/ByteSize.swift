/// Sizes as people write them on QEMU's command lines.
package enum ByteSize {
    /// What a text says when it is read as a number.
    package enum Reading: Hashable, Sendable {
        case value(UInt64)
        /// A number, but a negative one or one beyond 64 bits.
        case outOfRange
        case noNumber
    }

    /// Parses a size such as `64k`, `1.5G` or `4096`; see `read`.
    /// - Returns: bytes, or nil when the text is not a size or does not fit in a signed 64-bit number.
    package static func parse(_ text: some StringProtocol) -> Int? {
        guard case .value(let value) = read(text) else { return nil }
        return Int(exactly: value)
    }

    /// Reads a size such as `64k`, `1.5G` or `4096`.
    ///
    /// The suffixes are b, k, M, G, T, P and E in either case, for powers of 1024; without one the number counts bytes. A fraction is rounded to
    /// whole bytes, and may not be one where bytes are counted. Hexadecimal (`0x1000`) takes neither. Blanks and a plus may stand in front.
    package static func read(_ text: some StringProtocol) -> Reading {
        var rest = Array(text.utf8)[...].drop { $0 == UInt8(ascii: " ") || (9...13).contains($0) }
        let isNegative = rest.first == UInt8(ascii: "-")
        if isNegative || rest.first == UInt8(ascii: "+") { rest.removeFirst() }
        if rest.count > 2, rest.starts(with: "0x".utf8) || rest.starts(with: "0X".utf8) {
            let digits = rest.dropFirst(2)
            guard !isNegative, digits.allSatisfy(isHexadecimalDigit) else { return .noNumber }
            return UInt64(String(decoding: digits, as: UTF8.self), radix: 16).map { .value($0) } ?? .outOfRange
        }
        let digits = rest.prefix(while: isDigit)
        rest = rest.dropFirst(digits.count)
        let whole = digits.isEmpty ? 0 : UInt64(String(decoding: digits, as: UTF8.self))
        // Only a plain number can be out of range before its suffix is looked at.
        if rest.isEmpty, !digits.isEmpty, isNegative || whole == nil { return .outOfRange }
        guard !isNegative, let whole else { return .noNumber }
        var fraction = 0.0
        if rest.first == UInt8(ascii: ".") {
            let digitsBehind = rest.dropFirst().prefix(while: isDigit)
            if digits.isEmpty, digitsBehind.isEmpty { return .noNumber }
            rest = rest.dropFirst(1 + digitsBehind.count)
            fraction = Double("0.\(String(decoding: digitsBehind, as: UTF8.self))0") ?? 0
        } else if digits.isEmpty {
            return .noNumber
        }
        guard let shift = shift(ofSuffix: rest) else { return .noNumber }
        // Very many nines are one.
        if shift == 0, fraction > 0, fraction < 1 { return .noNumber }
        let (scaled, overflow) = whole.multipliedReportingOverflow(by: 1 << shift)
        let (sum, carry) = scaled.addingReportingOverflow(UInt64((fraction * Double(1 << shift)).rounded()))
        return overflow || carry ? .outOfRange : .value(sum)
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
    private static func isHexadecimalDigit(_ byte: UInt8) -> Bool { isDigit(byte) || (byte | 0x20 >= UInt8(ascii: "a") && byte | 0x20 <= UInt8(ascii: "f")) }

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
