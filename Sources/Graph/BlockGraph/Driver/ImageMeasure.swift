/// How much room a new image would take. All in bytes.
package struct ImageMeasure: Hashable, Sendable {
    /// With what is in the source now.
    package var required: Int
    /// When the guest has written everywhere.
    package var fullyAllocated: Int
    /// For the source's persistent bitmaps; nil where there cannot be any.
    package var bitmaps: Int?

    package init(required: Int, fullyAllocated: Int, bitmaps: Int? = nil) {
        self.required = required
        self.fullyAllocated = fullyAllocated
        self.bitmaps = bitmaps
    }
}
