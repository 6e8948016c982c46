/// The name of a type where it is used.
package indirect enum TypeReference: Hashable, Sendable, CustomStringConvertible {
    case named(String)
    case array(TypeReference)

    /// The name without the array around it.
    package var elementName: String {
        switch self {
        case .named(let name): name
        case .array(let element): element.elementName
        }
    }

    package var description: String {
        switch self {
        case .named(let name): name
        case .array(let element): "[\(element)]"
        }
    }
}

package struct Feature: Hashable, Sendable {
    package let name: String
    package let condition: Condition?
}

/// A member of a struct, of a union's base, or of the arguments of a command or event.
package struct Member: Hashable, Sendable {
    package let name: String
    package let type: TypeReference
    package let isOptional: Bool
    package let condition: Condition?
    package var features: [Feature]
}

package struct EnumValue: Hashable, Sendable {
    package let name: String
    package let condition: Condition?
    package var features: [Feature]
}

/// A branch of a union or alternate.
package struct Branch: Hashable, Sendable {
    package let name: String
    package let type: TypeReference
    package let condition: Condition?
}

/// A set of members, given by name or written where it is needed.
package enum MemberSource: Hashable, Sendable {
    case none
    case named(String)
    case inline([Member])
}

package struct CommandDetails: Hashable, Sendable {
    package var arguments: MemberSource
    package var isBoxed = false
    package var returns: TypeReference?
    package var answersSuccess = true
    /// False when arguments and result are left to the handler as raw JSON.
    package var isTyped = true
    package var allowsOutOfBand = false
    package var allowsPreconfig = false
    package var isCoroutine = false
}

/// One definition of a schema.
package struct Definition: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case enumeration([EnumValue], prefix: String?)
        case structure(base: String?, members: [Member])
        case union(base: MemberSource, discriminator: String, branches: [Branch])
        case alternate([Branch])
        case command(CommandDetails)
        case event(MemberSource, isBoxed: Bool)
    }

    package let name: String
    package var kind: Kind
    package let condition: Condition?
    package var features: [Feature]
    package let documentation: DocBlock?
    package let location: SourceLocation
    /// The path of the module's file, as the reader names it.
    package let module: String

    /// The definition as errors name it: `struct 'Point'`.
    package var title: String { "\(keyword) '\(name)'" }

    package var keyword: String {
        switch kind {
        case .enumeration: "enum"
        case .structure: "struct"
        case .union: "union"
        case .alternate: "alternate"
        case .command: "command"
        case .event: "event"
        }
    }

    package var isType: Bool {
        switch kind {
        case .command, .event: false
        default: true
        }
    }
}
