/// What a person does on a keyboard, as far as a line editor cares.
enum Key: Hashable, Sendable {
    case text(Unicode.Scalar)
    case pasted(String)
    /// The letter that is pressed together with Ctrl, in lower case.
    case control(Character)
    case left, right, up, down, home, end, delete, backspace, wordLeft, wordRight, deleteWordLeft, deleteWordRight
    /// A sequence that no key of ours sends.
    case unknown
    /// Bytes that are not UTF-8.
    case invalid
}

/// Makes keys of bytes, in whatever portions they come.
struct KeyDecoder: Sendable {
    private enum State: Sendable {
        case ground
        case escape
        /// Behind ESC [ or ESC O.
        case sequence([UInt8])
        case utf8([UInt8], missing: Int)
        case paste([UInt8])
    }

    private var state = State.ground
    private static let pasteEnd = Array("\u{1b}[201~".utf8)
    /// A paste is not kept beyond this.
    private static let longestPaste = 1 << 20

    mutating func take(_ byte: UInt8) -> Key? {
        switch state {
        case .ground: return ground(byte)
        case .escape:
            state = .ground
            switch byte {
            case UInt8(ascii: "["), UInt8(ascii: "O"): state = .sequence([])
            case UInt8(ascii: "b"): return .wordLeft
            case UInt8(ascii: "f"): return .wordRight
            case UInt8(ascii: "d"): return .deleteWordRight
            case 0x7f, 0x08: return .deleteWordLeft
            case 0x1b: state = .escape
            default: return .unknown
            }
            return nil
        case .sequence(var bytes):
            bytes.append(byte)
            if (0x40...0x7e).contains(byte) {
                state = .ground
                return key(of: bytes)
            }
            state = bytes.count > 16 ? .ground : .sequence(bytes)
            return bytes.count > 16 ? .unknown : nil
        case .utf8(var bytes, let missing):
            guard byte & 0xc0 == 0x80 else {
                state = .ground
                // The byte may begin something of its own; that it cut another character short is told by the bell.
                return ground(byte) ?? .invalid
            }
            bytes.append(byte)
            if missing > 1 {
                state = .utf8(bytes, missing: missing - 1)
                return nil
            }
            state = .ground
            guard let string = String(validating: bytes, as: UTF8.self), let scalar = string.unicodeScalars.first else { return .invalid }
            return .text(scalar)
        case .paste(var bytes):
            bytes.append(byte)
            state = .ground
            if bytes.suffix(Self.pasteEnd.count).elementsEqual(Self.pasteEnd) {
                return .pasted(String(decoding: bytes.dropLast(Self.pasteEnd.count), as: UTF8.self))
            }
            if bytes.count > Self.longestPaste { return .pasted(String(decoding: bytes, as: UTF8.self)) }
            state = .paste(bytes)
            return nil
        }
    }

    private mutating func ground(_ byte: UInt8) -> Key? {
        switch byte {
        case 0x1b:
            state = .escape
            return nil
        case 0x7f: return .backspace
        case 0x01...0x1a: return .control(Character(Unicode.Scalar(byte + 0x60)))
        case 0x1c: return .control("\\")
        case 0x00, 0x1d...0x1f: return .unknown
        case 0x20...0x7e: return .text(Unicode.Scalar(byte))
        case 0xc2...0xdf: state = .utf8([byte], missing: 1)
        case 0xe0...0xef: state = .utf8([byte], missing: 2)
        case 0xf0...0xf4: state = .utf8([byte], missing: 3)
        default: return .invalid
        }
        return nil
    }

    private mutating func key(of bytes: [UInt8]) -> Key? {
        switch String(decoding: bytes, as: UTF8.self) {
        case "A": return .up
        case "B": return .down
        case "C": return .right
        case "D": return .left
        case "H", "1~", "7~": return .home
        case "F", "4~", "8~": return .end
        case "3~": return .delete
        case "1;5D", "1;3D": return .wordLeft
        case "1;5C", "1;3C": return .wordRight
        case "200~":
            state = .paste([])
            return nil
        default: return .unknown
        }
    }
}

/// How many columns of a terminal a character takes.
enum CharacterWidth {
    static func of(_ text: String) -> Int { text.reduce(0) { $0 + of($1) } }

    static func of(_ character: Character) -> Int {
        guard let first = character.unicodeScalars.first else { return 0 }
        if character.unicodeScalars.contains(where: { $0.value == 0xfe0f }) { return 2 }
        switch first.properties.generalCategory {
        case .nonspacingMark, .enclosingMark: return 0
        default: break
        }
        switch first.value {
        // East Asian wide and full-width blocks, and pictures (Unicode Standard Annex 11).
        case 0x1100...0x115f, 0x2e80...0x303e, 0x3041...0xa4cf, 0xac00...0xd7a3, 0xf900...0xfaff, 0xfe30...0xfe6f, 0xff00...0xff60,
            0xffe0...0xffe6, 0x1f300...0x1f64f, 0x1f680...0x1f6ff, 0x1f900...0x1f9ff, 0x20000...0x3fffd:
            return 2
        default: return 1
        }
    }
}
