extension JSONObject {
    /// The object for people, as `img info` and its relatives print what has no layout of its own: one line for each scalar, the members
    /// of a container four columns further in, blanks in place of the dashes of names.
    /// - Parameter indentation: blanks in front of every line.
    public func plainText(indentation: Int = 0) -> String {
        members.map { member in
            PlainText.entry(member.value, named: String(member.key.map { $0 == "-" ? " " : $0 }), indentation: indentation)
        }.joined()
    }
}

private enum PlainText {
    static func entry(_ value: JSONValue, named name: String, indentation: Int) -> String {
        let start = String(repeating: " ", count: indentation) + name + ":"
        switch value {
        case .object(let object): return start + "\n" + object.plainText(indentation: indentation + 4)
        case .array(let elements):
            let lines = elements.enumerated().map { entry($0.element, named: "[\($0.offset)]", indentation: indentation + 4) }
            return start + "\n" + lines.joined()
        case .string(let string): return "\(start) \(string)\n"
        default: return "\(start) \(value.text())\n"
        }
    }
}
