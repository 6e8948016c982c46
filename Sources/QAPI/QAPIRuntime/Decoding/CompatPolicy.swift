/// The features that mean the same everywhere, so that a policy can apply to them.
public struct SpecialFeatures: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Will go away; something else takes its place.
    public static let deprecated = Self(rawValue: 1 << 0)
    /// May change or go away at any time.
    public static let unstable = Self(rawValue: 1 << 1)

    /// The special ones among the names of features.
    public init(names: [String]) {
        self = []
        if names.contains("deprecated") { insert(.deprecated) }
        if names.contains("unstable") { insert(.unstable) }
    }
}

/// What happens to the deprecated and unstable parts of the interface: `--compat`.
///
/// Decoding applies the input half to members and values, encoding applies the output half to members; both are handed the policy by
/// `DecodingContext` and `ObjectEncoder`. `CommandEntry.run` applies it to the command itself and passes it on to both. Events as a whole
/// are the sender's: see `hides(_:)`.
public struct CompatPolicy: Hashable, Sendable {
    /// For what a client sends.
    public enum Input: String, CaseIterable, Hashable, Sendable {
        case accept
        /// Refuse with an error that names the part.
        case reject
        /// End the program on the spot, so that a test of management software cannot miss it.
        case crash
    }
    /// For what a client is told.
    public enum Output: String, CaseIterable, Hashable, Sendable {
        case accept
        /// Leave the part out.
        case hide
    }

    public var deprecatedInput = Input.accept
    public var deprecatedOutput = Output.accept
    public var unstableInput = Input.accept
    public var unstableOutput = Output.accept

    /// Accepts everything.
    public init() {}

    /// Whether output leaves out a part with these features.
    public func hides(_ features: SpecialFeatures) -> Bool {
        (deprecatedOutput == .hide && features.contains(.deprecated)) || (unstableOutput == .hide && features.contains(.unstable))
    }

    /// Decides about a part that a client used.
    /// - Parameters:
    ///   - kind: `command`, `parameter` or `value`.
    ///   - name: how the client wrote it; a parameter's whole path.
    /// - Throws: what the client is told, in QEMU's wording.
    public func check(
        _ features: SpecialFeatures, of kind: @autoclosure () -> String, _ name: @autoclosure () -> String,
        class errorClass: QMPErrorClass = .genericError
    ) throws(QMPError) {
        // Almost everything has no special feature.
        if features.isEmpty { return }
        for (feature, input, adjective) in [
            (SpecialFeatures.deprecated, deprecatedInput, "Deprecated"), (.unstable, unstableInput, "Unstable"),
        ] where features.contains(feature) {
            switch input {
            case .accept: break
            case .reject: throw QMPError("\(adjective) \(kind()) \(name()) disabled by policy", class: errorClass)
            case .crash: fatalError("\(adjective) \(kind()) \(name()) was used, and the policy for that is 'crash'")
            }
        }
    }
}
