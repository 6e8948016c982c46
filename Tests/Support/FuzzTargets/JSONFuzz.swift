import QAPIRuntime
import StorageSchema

/// JSON and dotted keys: read, decoded as a node's definition, written and read again.
package enum JSONFuzz: FuzzTarget {
    package static let name = "json"

    package static func run(_ input: [UInt8]) {
        let text = String(decoding: input, as: UTF8.self)
        if let value = try? JSONValue(parsing: input) {
            let written = value.text()
            guard let again = try? JSONValue(parsing: written) else { preconditionFailure("what was written cannot be read: \(written)") }
            precondition(again.text() == written, "what was written changes when it is read again: \(written)")
            define(value)
        }
        if let (value, mode) = try? KeyValueParser.parseArgument(text, impliedKey: "driver") { define(value, mode) }
    }

    private static func define(_ value: JSONValue, _ mode: DecodingContext.Mode = .json) {
        guard let options = try? BlockdevOptions(decoding: value, mode: mode) else { return }
        let json = options.json
        guard let again = try? BlockdevOptions(decoding: json) else { preconditionFailure("a definition is not understood when it is written: \(json.text())") }
        precondition(again == options, "a definition changes when it is written: \(json.text())")
    }

    package static func seeds() -> [[UInt8]] {
        [
            #"{"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"/x\u00e9\ud83d\ude00"},"overlap-check":{"template":"all","main-header":false}}"#,
            #"{"driver":"nbd","server":{"type":"inet","host":"h","port":"1"},"export":"e","reconnect-delay":3,"read-only":true}"#,
            #"{'driver':'throttle','throttle-group':'g','file':'ref'}"#, "qcow2,node-name=a,file.driver=file,file.filename=x,,y,backing=",
            "raw,file.driver=nbd,file.server.type=unix,file.server.path=/s,offset=512,cache.direct=on", "quorum,children.0=a,children.1=b,vote-threshold=2",
            "[1,-2,3.25,1e10,true,false,null,\"\",[],{}]",
        ].map { Array($0.utf8) }
    }

    package static var dictionary: [[UInt8]] {
        [
            "\"driver\"", "\"file\"", "qcow2", "raw", "null-co", "file.", "true", "null", "\\u", "\\ud83d", "1e308", "18446744073709551615", "-9223372036854775808", ",,", "=", "0.",
            "{\"", "\":{\"", "[[[[", "children.0",
        ].map { Array($0.utf8) }
    }
}
