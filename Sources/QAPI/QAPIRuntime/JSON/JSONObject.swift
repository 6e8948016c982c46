/// The members of a JSON object in the order in which they were added, with lookup that stays fast when somebody sends a huge object.
public struct JSONObject: Sendable {
    public struct Member: Hashable, Sendable {
        public let key: String
        public var value: JSONValue
    }

    public private(set) var members: [Member] = []
    /// Positions by key, kept once an object is too large to search through.
    private var index: [String: Int] = [:]
    private static let largestSearched = 8  // members

    public init() {}

    public var count: Int { members.count }
    public var isEmpty: Bool { members.isEmpty }

    private func position(of key: String) -> Int? {
        members.count > Self.largestSearched ? index[key] : members.firstIndex { $0.key == key }
    }

    /// Reading a key that is absent gives nil; assigning replaces in place or appends; assigning nil removes.
    public subscript(_ key: String) -> JSONValue? {
        get { position(of: key).map { members[$0].value } }
        set {
            switch (position(of: key), newValue) {
            case (let position?, let value?): members[position].value = value
            case (let position?, nil):
                members.remove(at: position)
                rebuildIndex()
            case (nil, let value?): append(Member(key: key, value: value))
            case (nil, nil): break
            }
        }
    }

    /// Adds a member unless the key exists.
    /// - Returns: false when the key exists already; the object is unchanged then.
    mutating func insert(_ key: String, _ value: JSONValue) -> Bool {
        if position(of: key) != nil { return false }
        append(Member(key: key, value: value))
        return true
    }

    private mutating func append(_ member: Member) {
        members.append(member)
        if members.count == Self.largestSearched + 1 {
            rebuildIndex()
        } else if members.count > Self.largestSearched {
            index[member.key] = members.count - 1
        }
    }

    private mutating func rebuildIndex() {
        index = [:]
        guard members.count > Self.largestSearched else { return }
        for (position, member) in members.enumerated() { index[member.key] = position }
    }
}

extension JSONObject: Hashable {
    /// Objects are equal when they hold the same members; JSON gives order no meaning.
    public static func == (a: Self, b: Self) -> Bool {
        a.count == b.count && a.members.allSatisfy { b[$0.key] == $0.value }
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(count)
        hasher.combine(members.reduce(0) { $0 ^ $1.key.hashValue })
    }
}
