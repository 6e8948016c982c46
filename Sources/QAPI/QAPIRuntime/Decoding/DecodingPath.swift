/// Where in a value the decoder stands, for error messages: `file.driver`, `bitmaps[0].name`.
public indirect enum DecodingPath: Hashable, Sendable, CustomStringConvertible {
    case root
    case member(DecodingPath, String)
    case element(DecodingPath, Int)

    public var description: String {
        switch self {
        case .root: ""
        case .member(.root, let name): name
        case .member(let parent, let name): "\(parent).\(name)"
        case .element(let parent, let index): "\(parent)[\(index)]"
        }
    }
}
