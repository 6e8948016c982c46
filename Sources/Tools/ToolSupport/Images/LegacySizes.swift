import QAPIRuntime
import StrataBase

/// Sizes that the command line has always taken with a suffix, although the QMP schema makes plain integers of them.
enum LegacySizes {
    private static let keys = ["size", "offset"]

    static func resolved(in options: JSONObject) -> JSONObject {
        var options = options
        for (key, value) in options.members.map({ ($0.key, $0.value) }) {
            if keys.contains(key), let text = value.string, let bytes = ByteSize.parse(text) {
                options[key] = .integer(bytes)
            } else if let child = value.object {
                options[key] = .object(resolved(in: child))
            }
        }
        return options
    }
}
