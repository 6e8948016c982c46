import StrataBase

/// The text that describes a VMDK image, embedded in it or a file of its own.
///
/// Source: Virtual Disk Format 5.0, "The Descriptor File".
struct VMDKDescriptor: Hashable {
    /// Changes with each use of the image.
    var contentID: UInt32?
    /// That of the image which this one holds the differences from; all ones for none.
    var parentContentID = Self.noParent
    var createType: String?
    var parentFileName: String?

    static let noParent = UInt32.max
    static let firstLine = Array("# Disk DescriptorFile".utf8)

    /// - Parameter text: up to the first zero byte.
    /// - Throws: for a content ID that is no hexadecimal number.
    init(parsing text: [UInt8]) throws(BlockError) {
        for line in text.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }) {
            let words = String(decoding: line, as: UTF8.self)
            if words.hasPrefix("#") { continue }
            guard let equals = words.firstIndex(of: "=") else { continue }
            let key = words[..<equals].filter { $0 != " " }
            let value = Self.unquoted(words[words.index(after: equals)...])
            switch key {
            case "CID": contentID = try Self.identifier(value, key)
            case "parentCID": parentContentID = try Self.identifier(value, key)
            case "createType": createType = value
            case "parentFileNameHint": parentFileName = value
            default: break
            }
        }
    }

    private static func unquoted(_ text: Substring) -> String {
        var text = text.drop { $0 == " " }
        while let last = text.last, last == " " || last == "\t" { text = text.dropLast() }
        return text.count >= 2 && text.hasPrefix("\"") && text.hasSuffix("\"") ? String(text.dropFirst().dropLast()) : String(text)
    }

    private static func identifier(_ text: String, _ key: String) throws(BlockError) -> UInt32 {
        guard let value = UInt32(text, radix: 16) else { throw BlockError(.corruptImage, "The VMDK descriptor's \(key) is '\(text.prefix(32))', not a hexadecimal number") }
        return value
    }

    /// - Throws: for images that are made in another way than one sparse file.
    func requireSupported() throws(BlockError) {
        guard let createType else { throw BlockError(.corruptImage, "The VMDK descriptor has no createType") }
        guard ["monolithicSparse", "streamOptimized"].contains(createType) else {
            throw BlockError(.unsupported, "VMDK images of the subformat '\(createType.prefix(64))' are not supported", hint: "Supported are monolithicSparse and streamOptimized.")
        }
        if parentContentID != Self.noParent || parentFileName != nil {
            throw BlockError(.unsupported, "VMDK images that hold the differences from a parent image are not supported")
        }
    }
}
