import QAPIRuntime
package import StorageSchema
package import StrataBase
import Synchronization

/// Lets in whom the rules in a file let in. The file holds what `authz-list` takes, as JSON: `{"policy": "deny", "rules": […]}`.
package final class FileAuthorization: Authorization {
    package static let typeName = "authz-list-file"
    private static let sizeLimit = 16 << 20  // bytes

    private struct Loaded {
        /// Nil after a change that could not be read: then nobody is let in.
        var rules: AuthorizationRules?
        var stamp: FileStamp?
    }

    private let options: AuthZListFileProperties
    private let loaded: Mutex<Loaded>

    /// - Throws: when the file cannot be read or holds something else.
    package init(_ options: AuthZListFileProperties) throws(BlockError) {
        self.options = options
        // The stamp comes first: a change in between is then seen as one.
        let stamp = FileStamp(of: options.filename)
        loaded = Mutex(Loaded(rules: try Self.read(options.filename), stamp: stamp))
    }

    /// With `refresh` (the default) the file is read again when it has changed since; as long as it cannot be read, nobody is let in.
    package func allows(_ identity: String) -> Bool {
        let rules = loaded.withLock { loaded in
            guard options.refresh ?? true else { return loaded.rules }
            let stamp = FileStamp(of: options.filename)
            if stamp == nil || stamp != loaded.stamp {
                do throws(BlockError) { loaded.rules = try Self.read(options.filename) } catch { loaded.rules = nil }
                loaded.stamp = stamp
            }
            return loaded.rules
        }
        return rules?.allows(identity) ?? false
    }

    private static func read(_ path: String) throws(BlockError) -> AuthorizationRules {
        let bytes = try SmallFile.read(path, limit: sizeLimit)
        let message: String
        do {
            return AuthorizationRules(try AuthZListProperties(decoding: try JSONValue(parsing: bytes)))
        } catch let error as JSONError {
            message = error.message
        } catch {
            message = "\(error)"
        }
        throw BlockError(.invalidArgument, "Rules in '\(path)': \(message)")
    }

    package static let properties: [ObjectProperty<FileAuthorization>] = [
        ObjectProperty("filename", type: "string") { $0.options.filename },
        ObjectProperty("refresh", type: "bool") { $0.options.refresh ?? true },
    ]
}
