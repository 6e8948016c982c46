/// Something that takes bytes from strangers, as a function that libFuzzer and the tests call.
///
/// A target must come back from every input. What it must not do shows as a trap: that of the code under test, or of a `precondition` here.
package protocol FuzzTarget: SendableMetatype {
    /// On the command line of the runner, and the folder of its findings.
    static var name: String { get }
    static func run(_ input: [UInt8])
    /// Inputs that get far, made by our own encoders.
    static func seeds() throws -> [[UInt8]]
    /// Words that the format knows. Bytes, as they stand in an input.
    static var dictionary: [[UInt8]] { get }
}

package let fuzzTargets: [any FuzzTarget.Type] = [QCOW2Fuzz.self, NBDServerFuzz.self, NBDClientFuzz.self, JSONFuzz.self]

extension FixedWidthInteger {
    /// As formats and protocols of the network write it.
    var bigEndianBytes: [UInt8] { stride(from: Self.bitWidth - 8, through: 0, by: -8).map { UInt8(truncatingIfNeeded: self >> Self($0)) } }
}
