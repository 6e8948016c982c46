import StrataBase

/// The name of a file or a format as an image stores it: bytes, of which those before the first NUL count, as in QEMU.
package struct StoredName: Hashable, Sendable {
    package let bytes: [UInt8]

    init(_ text: String) { bytes = Array(text.utf8) }

    /// - Precondition: the range lies inside `bytes`.
    init(decoding bytes: RawSpan, at start: Int, length: Int) {
        self.bytes = Array(HeaderExtensions.copy(bytes, at: start, length: length).prefix { $0 != 0 })
    }

    var isEmpty: Bool { bytes.isEmpty }
    var isUTF8: Bool { String(validating: bytes, as: UTF8.self) != nil }
    /// For people: U+FFFD stands for what is not UTF-8. Whoever opens a file takes `filename`.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// The name of a file that may be opened. Names are Unicode text in this program: read in another way it would be another file's.
    /// - Parameters:
    ///   - kind: what the file is to the image: "backing file".
    ///   - image: what the image is called.
    func filename(ofThe kind: String, in image: String) throws(BlockError) -> String {
        guard let name = String(validating: bytes, as: UTF8.self) else {
            throw BlockError(.invalidArgument, "The name of the \(kind) in the image '\(image)' is not UTF-8: '\(text)'", hint: "Name the \(kind) in the options.")
        }
        return name
    }
}
