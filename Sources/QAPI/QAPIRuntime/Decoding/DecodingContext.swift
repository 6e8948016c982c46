/// Where a value comes from decides how strictly its scalars are read; where it stands decides what an error names.
public struct DecodingContext: Hashable, Sendable {
    public enum Mode: Hashable, Sendable {
        /// JSON: every type is written as itself.
        case json
        /// Dotted `key=value` text, where every scalar is a string: numbers in digits, booleans `on` and `off`, sizes with suffixes.
        case keyValue
        /// Flat option text: scalars as in `keyValue`, each option with all values that it was given.
        case optionText

        /// Whether scalars are strings.
        public var isText: Bool { self != .json }
    }

    public let mode: Mode
    /// What becomes of deprecated and unstable members and values.
    public let policy: CompatPolicy
    public let path: DecodingPath
    let depth: Int

    public init(_ mode: Mode = .json, policy: CompatPolicy = CompatPolicy()) {
        self.init(mode: mode, policy: policy, path: .root, depth: 0)
    }

    private init(mode: Mode, policy: CompatPolicy, path: DecodingPath, depth: Int) {
        self.mode = mode
        self.policy = policy
        self.path = path
        self.depth = depth
    }

    public func member(_ name: String) -> DecodingContext {
        DecodingContext(mode: mode, policy: policy, path: .member(path, name), depth: depth + 1)
    }

    public func element(_ index: Int) -> DecodingContext {
        DecodingContext(mode: mode, policy: policy, path: .element(path, index), depth: depth + 1)
    }

    /// Definitions that nest deeper than any real one are refused, since decoding and later use recurse.
    func checkDepth() throws(QMPError) {
        if depth > 128 { throw QMPError("Parameters are nested too deeply") }
    }

    public func wrongType(expected: String) -> QMPError {
        QMPError("Invalid parameter type for '\(path)', expected: \(expected)")
    }

    /// For values of the right JSON type that are not what the parameter takes; QEMU names the expectation without a colon here.
    public func unacceptable(expected: String) -> QMPError {
        QMPError("Parameter '\(path)' expects \(expected)")
    }

    public func badValue(_ value: String) -> QMPError {
        QMPError("Parameter '\(path)' does not accept value '\(value)'")
    }
}
