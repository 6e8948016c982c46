/// What a child is to its parent.
package struct ChildRole: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Holds guest data.
    package static let data = ChildRole(rawValue: 1 << 0)
    /// Holds the parent's metadata.
    package static let metadata = ChildRole(rawValue: 1 << 1)
    /// The parent is a filter and shows this child's data.
    package static let filtered = ChildRole(rawValue: 1 << 2)
    /// Supplies the data that the parent has not allocated (a backing file).
    package static let copyOnWrite = ChildRole(rawValue: 1 << 3)
    /// The one child whose file name and description stand for the parent.
    package static let primary = ChildRole(rawValue: 1 << 4)

    /// The usual file below a format driver.
    package static let image: ChildRole = [.data, .metadata, .primary]
}
