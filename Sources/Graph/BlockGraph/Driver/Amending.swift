package import StorageSchema
package import StrataBase

/// Can change what an image says about itself.
package protocol Amending: BlockDriver {
    /// Changes an image that nobody else uses: no request runs, and it may be written and resized.
    ///
    /// Everything is checked before anything is changed. The change is made in steps, each of which a crash leaves done or not done.
    /// - Parameter progress: called with work done and all work, as far as it is known.
    func amend(_ amendment: ImageAmendment, progress: @Sendable (_ done: Int, _ total: Int) -> Void) async throws(BlockError)
}

/// What is to be changed about an image; nil stays as it is.
package struct ImageAmendment: Hashable, Sendable {
    package var version: BlockdevQcow2Version?
    /// Bytes; 0 leaves the size as it is.
    package var size: Int?
    /// When one of these two is there, both must say what the image says: changing them is rebasing.
    package var backingFile: String?
    package var backingFormat: String?
    /// The name of the external data file; an empty one takes the name out.
    package var dataFile: String?
    package var dataFileRaw: Bool?
    package var lazyRefcounts: Bool?
    package var refcountBits: Int?

    package init() {}
}
