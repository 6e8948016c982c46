/// Sentences that a server sends for people.
enum ServerText {
    /// The text as one line, without anything that steers a terminal; empty when it is no text.
    static func line(_ payload: RawSpan) -> String {
        guard let text = try? String(wireBytes: payload, what: "error text") else { return "" }
        return String(String.UnicodeScalarView(text.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : $0 }))
    }
}
