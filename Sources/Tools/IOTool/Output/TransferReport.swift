import IOCore

/// What is printed about a request that has succeeded: what it moved, how long it took.
struct TransferReport {
    enum Style {
        case forPeople
        /// One line of numbers: bytes, requests, time, bytes and requests per second.
        case forMachines
        case silent

        /// What `-C` and `-q` ask for.
        init(_ options: LetterOptions) {
            self = options.contains("q") ? .silent : options.contains("C") ? .forMachines : .forPeople
        }
    }

    /// What was done, in the past: `wrote`.
    var verb: String
    var offset: Int
    /// What was asked for and what was moved, in bytes: the tool has no partial success.
    var byteCount: Int
    var style: Style

    /// - Parameter start: when the request began (`MonotonicTime`).
    func print(since start: Int64) {
        let nanoseconds = max(1, MonotonicTime.now - start)
        StandardStreams.print(text(nanoseconds: nanoseconds))
    }

    func text(nanoseconds: Int64) -> String {
        let seconds = Double(nanoseconds) / 1e9
        let (bytesPerSecond, requestsPerSecond) = (Double(byteCount) / seconds, 1 / seconds)
        switch style {
        case .silent: return ""
        case .forMachines:
            let time = Self.time(nanoseconds, isLong: true)
            return "\(byteCount),1,\(time),\(SizeText.fixed(bytesPerSecond, decimals: 3)),\(SizeText.fixed(requestsPerSecond, decimals: 3))\n"
        case .forPeople:
            return """
                \(verb) \(byteCount)/\(byteCount) bytes at offset \(offset)
                \(SizeText.of(byteCount)), 1 ops; \(Self.time(nanoseconds, isLong: false)) (\(SizeText.of(bytesPerSecond))/sec and \
                \(SizeText.fixed(requestsPerSecond, decimals: 4)) ops/sec)

                """
        }
    }

    /// `00.01 sec`, or with minutes and hours from the first minute on.
    private static func time(_ nanoseconds: Int64, isLong: Bool) -> String {
        let hundredths = nanoseconds / 10_000_000
        let seconds = "\(twoDigits(hundredths / 100 % 60)).\(twoDigits(hundredths % 100))"
        if !isLong, hundredths < 6000 { return "\(seconds) sec" }
        return "\(hundredths / 360_000):\(twoDigits(hundredths / 6000 % 60)):\(seconds)"
    }

    private static func twoDigits(_ number: Int64) -> String { number < 10 ? "0\(number)" : String(number) }
}
