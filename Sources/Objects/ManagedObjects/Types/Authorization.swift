package import StorageSchema
import StrataBase
import Synchronization

/// Decides whether a client may do something, from the name that it has proved to have (for TLS: its certificate's distinguished name).
package protocol Authorization: ManagedObject {
    /// Any thread; a decision that depends on a file may read it.
    func allows(_ identity: String) -> Bool
}

extension Authorization {
    package static var parentTypeName: String { "authz" }
}

/// Lets one name in.
package final class SimpleAuthorization: Authorization {
    package static let typeName = "authz-simple"
    private let identity: Mutex<String>

    package init(_ options: AuthZSimpleProperties) { identity = Mutex(options.identity) }

    package func allows(_ identity: String) -> Bool { self.identity.withLock { $0.isSame(as: identity) } }

    package static let properties: [ObjectProperty<SimpleAuthorization>] = [
        ObjectProperty(
            "identity", type: "string", get: { object in object.identity.withLock { $0 } },
            set: { object, name in object.identity.withLock { $0 = name } })
    ]
}

/// Rules in order; the first one that matches decides, and the policy decides for names that none matches.
package struct AuthorizationRules: Sendable, Hashable {
    package var policy = QAuthZListPolicy.deny
    package var rules: [QAuthZListRule] = []

    package init(_ options: AuthZListProperties) {
        policy = options.policy ?? .deny
        rules = options.rules ?? []
    }

    package func allows(_ identity: String) -> Bool {
        let decision = rules.first { rule in
            switch rule.format ?? .exact {
            case .exact: rule.match.isSame(as: identity)
            case .glob: GlobPattern(rule.match).matches(identity)
            }
        }
        return (decision?.policy ?? policy) == .allow
    }
}

/// Lets in whom a list of rules lets in.
package final class ListAuthorization: Authorization {
    package static let typeName = "authz-list"
    private let rules: Mutex<AuthorizationRules>

    package init(_ options: AuthZListProperties) { rules = Mutex(AuthorizationRules(options)) }

    package func allows(_ identity: String) -> Bool { rules.withLock { $0 }.allows(identity) }

    package static let properties: [ObjectProperty<ListAuthorization>] = [
        ObjectProperty(
            "policy", type: "QAuthZListPolicy", get: { object in object.rules.withLock { $0.policy } },
            set: { object, policy in object.rules.withLock { $0.policy = policy } }),
        ObjectProperty(
            "rules", type: "QAuthZListRule", get: { object in object.rules.withLock { $0.rules } },
            set: { object, rules in object.rules.withLock { $0.rules = rules } }),
    ]
}

extension String {
    /// Byte for byte: Swift's own comparison takes different spellings of one character for equal, which no certificate's signer has promised.
    fileprivate func isSame(as other: String) -> Bool { utf8.elementsEqual(other.utf8) }
}
