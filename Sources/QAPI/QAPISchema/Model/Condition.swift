/// When a part of the schema exists: a combination of names that the build defines or does not.
package indirect enum Condition: Hashable, Sendable, CustomStringConvertible {
    case defined(String)
    case all([Condition])
    case any([Condition])
    case not(Condition)

    package func holds(for defines: Set<String>) -> Bool {
        switch self {
        case .defined(let name): defines.contains(name)
        case .all(let conditions): conditions.allSatisfy { $0.holds(for: defines) }
        case .any(let conditions): conditions.contains { $0.holds(for: defines) }
        case .not(let condition): !condition.holds(for: defines)
        }
    }

    package var description: String {
        switch self {
        case .defined(let name): name
        case .all(let conditions): "all(\(conditions.map(\.description).joined(separator: ", ")))"
        case .any(let conditions): "any(\(conditions.map(\.description).joined(separator: ", ")))"
        case .not(let condition): "not(\(condition))"
        }
    }
}
