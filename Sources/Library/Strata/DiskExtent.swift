/// A run of bytes of a disk that are alike.
public struct DiskExtent: Hashable, Sendable {
    /// Bytes.
    public var offset: Int
    /// Bytes; at least 1.
    public var count: Int
    /// The bytes read as zeroes. When it is false they may still happen to be zeroes.
    public var isZero: Bool
    /// Reading the bytes reads stored data.
    public var isData: Bool
    /// Some layer of the image decides the content; otherwise nothing was ever written there.
    public var isAllocated: Bool
    /// How many images lie above the one that decides: 0 for the image itself, 1 for its backing file.
    public var depth: Int

    public init(offset: Int, count: Int, isZero: Bool, isData: Bool, isAllocated: Bool, depth: Int) {
        self.offset = offset
        self.count = count
        self.isZero = isZero
        self.isData = isData
        self.isAllocated = isAllocated
        self.depth = depth
    }
}
